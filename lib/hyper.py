"""A model's recipe, and the lengths that follow from it. Pure tables and arithmetic; no torch."""

import dataclasses
import math

from lib.config import Config, InputError, Steps, choice, number


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings that carry a model's prefix in Kconfig (`LENET5_EPOCHS`); in its train.py the flag is `--epochs`.
    A model has those that stand in its own Kconfig; the others are at their defaults here."""

    epochs: int = number(10, low=1)
    recipe_epochs: int = number(0, low=0)
    batch_size: int = number(0, low=0)
    eval_batch_size: int = number(2048, low=1)
    sgd_lr: float = number(0.05, above=0)
    sgd_weight_decay: float = number(0.0005, low=0)
    adam_lr: float = number(0.003, above=0)
    adam_weight_decay: float = number(0.01, low=0)
    adam_beta1: float = number(0.9, low=0, below=1)
    adam_beta2: float = number(0.999, low=0, below=1)
    lr_warmup: Steps = Steps("5%")
    lr_schedule: str = choice("cosine")
    lr_final: float = number(0.0, low=0, high=1)
    clip_norm: float = number(0.0, low=0)
    label_smoothing: float = number(0.0, low=0, below=1)
    augment: bool = False
    stem: str = choice("auto")
    size: str = choice("124m")
    tokenizer: str = choice("auto")
    block: int = number(1024, low=1)
    eval_interval: int = number(0, low=1)
    eval_tokens: int = number(0, low=0)
    micro_batch: int = number(0, low=0)


@dataclasses.dataclass(frozen=True)
class Training:
    """Settings of a run that belong to no model."""

    seeds: str = "1"
    max_iters: int = number(0, low=0)
    max_time: int = number(0, low=0)
    early_stopping: bool = False
    early_stopping_patience: int = number(10, low=1)
    device: str = choice("auto")
    num_threads: int = number(0, low=0)
    hyper_param_auto: bool = True
    precision: str = choice("auto")
    compile: str = choice("auto")
    ddp_num_gpus: int = number(1, low=1)
    sharding: str = choice("auto")
    results: str = ""
    run_id: str = ""
    full_train: bool = False
    test_each_epoch: bool = False
    inference_test: bool = False
    data_dir: str = "data"


@dataclasses.dataclass(frozen=True)
class Length:
    """T and its parts. `scale` < 1 shrinks every length given in steps, because an override shortened the run."""

    steps: int
    steps_per_epoch: int
    scale: float = 1.0

    @property
    def evaluations(self) -> int:
        return math.ceil(self.steps / self.steps_per_epoch)


def read_recipe(config: Config, model: str, dataset: str) -> Recipe:
    """The recipe of a model on a data set, its batch size settled. Raises InputError where several devices cannot
    share the batch equally, and nothing may round it."""
    recipe, training = config.read(Recipe, prefix=f"{model}_"), config.read(Training)
    recipe = dataclasses.replace(recipe, batch_size=recipe.batch_size or own_batch(config, model, dataset))
    devices = training.ddp_num_gpus
    if recipe.batch_size < devices or (recipe.batch_size % devices and not training.hyper_param_auto):
        raise InputError(
            f"{model.upper()}_BATCH_SIZE={recipe.batch_size} cannot be shared equally by DDP_NUM_GPUS={devices}: give "
            f"a multiple of {devices}, or let HYPER_PARAM_AUTO round it down"
        )
    return recipe


def own_batch(config: Config, model: str, dataset: str) -> int:
    """What BATCH_SIZE=0 is: the batch size of this data set (`<MODEL>_BATCH_<DATASET>`), else the model's."""
    usual = f"{model}_BATCH".upper()
    return int(config.get(f"{usual}_{dataset.upper()}") or config[usual])


def length(recipe: Recipe, max_iters: int, train_samples: int) -> Length:
    """T = epochs x whole batches, or `max_iters`. Smaller data than one batch makes one batch of it. With an
    EVAL_INTERVAL an epoch is so many steps."""
    per_epoch = recipe.eval_interval or max(1, train_samples // recipe.batch_size)
    steps = max_iters or recipe.epochs * per_epoch
    full = recipe.recipe_epochs * per_epoch
    return Length(steps, per_epoch, min(1.0, steps / full) if full else 1.0)


def warmup_steps(model: str, recipe: Recipe, length: Length) -> int:
    """Steps of learning-rate warm-up. Raises InputError where they are the whole run, so that the peak is never met."""
    warmup = recipe.lr_warmup.resolve(length.steps, length.scale) if recipe.lr_warmup else 0
    if warmup >= length.steps:
        raise InputError(
            f"{model.upper()}_LR_WARMUP={str(recipe.lr_warmup)!r} is {warmup} steps, and the run has {length.steps}"
        )
    return warmup


def learning_rate(step: int, total: int, warmup: int, schedule: str, final: float) -> float:
    """The factor on the peak learning rate at optimizer step `step` of 1..`total`: linear warm-up over `warmup` steps,
    then constant, or half a cosine that reaches `final` at the last step (Loshchilov and Hutter 2016, eq. 5)."""
    if step <= warmup:
        return step / (warmup + 1)
    if schedule == "constant":
        return 1.0
    p = (step - 1 - warmup) / max(1, total - 1 - warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, p))) / 2
