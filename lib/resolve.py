"""What AUTO means on this machine, and what a run of several devices may not be: pure but for a look at the machine."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from lib import hyper, kconfig, provenance
from lib.compiling import Trial, known_trials, try_compiling
from lib.config import Config, InputError
from lib.data.base import DATASETS
from lib.matrix import pin
from lib.monitor.base import BACKENDS
from lib.optim.base import OPTIMIZERS, UpdateOptions
from lib.prune.base import PRUNERS, PruningOptions
from lib.spec import RunSpec

COMPILED_FROM = 5_000_000  # parameters, for UPDATE_AUTO: found with `make bench-core`
BF16 = {"amx_bf16"}  # what makes bf16 on a CPU faster; with avx512_bf16 alone all models are 1.4 times slower
SPREAD_FROM = 700_000_000  # parameters, for SHARDING_AUTO: with gradients and Adam's state 11 GiB, before activations
STEPS_FROM = 1_000  # of a run, for COMPILE_AUTO: compiling takes about a minute


@dataclass(frozen=True)
class Form:
    """What can be compiled: the choice that asks for it, its member that does, and the one that does without."""

    choice: str
    compiled: str
    plain: str

    def chosen(self, config: Config) -> str:
        return config.on(self.choice)[0]


FORMS = {"update": Form("UPDATE", "compiled", "eager"), "model": Form("COMPILE", "yes", "no")}


def resolve(config: Config) -> Config:
    """Fix what must be equal for all runs of a directory, however often it is continued."""
    if config["NUM_THREADS"] == "0":
        config = config.replace({"NUM_THREADS": str(provenance.cores())})
    gpu = trains_on_gpu(config)
    if config.read(UpdateOptions).update == "auto" and gpu:
        config = choose(config, "UPDATE", "eager")
    if config.read(hyper.Training).precision == "auto":
        native = bf16_on_gpu() if gpu else BF16 & set(provenance.cpu_units())
        config = choose(config, "PRECISION", "bf16" if native else "fp32")
    return config


def trains_on_gpu(config: Config) -> bool:
    device = config.read(hyper.Training).device
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return device == "cuda" or (device == "auto" and not hidden and BACKENDS["nvidia"].probe())


def bf16_on_gpu() -> bool:
    """Whether every NVIDIA GPU computes in bf16 itself: from compute capability 8.0 on. One that does not say is
    taken for new."""
    found = BACKENDS["nvidia"].devices() if BACKENDS["nvidia"].probe() else []
    return all(d.capability is None or d.capability >= 8 for d in found)


def choose(config: Config, name: str, member: str) -> Config:
    """`config` with this member of a choice."""
    return config.replace({f"{name}_{m.upper()}": "y" if m == member else "n" for m in config.members(name)})


def parameters(config: Config, spec: RunSpec) -> int:
    return int(config[f"{spec.model.upper()}_PARAMETERS"])


def pinned(config: Config, spec: RunSpec) -> Config:
    """The config of one run of a resolved matrix."""
    for name, form in FORMS.items():
        if form.chosen(config) == "auto":
            config = choose(config, form.choice, form.compiled if compiles(config, spec, name) else form.plain)
    config = choose(config, "SHARDING", sharding(config, spec))
    batch = hyper.read_recipe(config, spec.model, spec.dataset).batch_size
    config = config.replace({f"{spec.model.upper()}_BATCH_SIZE": str(batch)})
    return kconfig.normalise(pin(config, spec))


def lengths(config: Config, spec: RunSpec) -> hyper.Length:
    training = config.read(hyper.Training)
    samples = DATASETS[spec.dataset].train_samples(training.full_train)
    return hyper.length(hyper.read_recipe(config, spec.model, spec.dataset), training.max_iters, samples)


def compiles(config: Config, spec: RunSpec, form: str) -> bool:
    """Return whether a run would compile this form, where it can be had."""
    chosen = FORMS[form].chosen(config)
    if form == "update":
        names = filter(None, (spec.optimizer, spec.adamwprune_base))
        if not any(UpdateOptions in OPTIMIZERS[n].options for n in names):
            return False
        pays = parameters(config, spec) >= COMPILED_FROM and not trains_on_gpu(config)
    else:
        pays = trains_on_gpu(config) and find_spec("triton") and lengths(config, spec).steps >= STEPS_FROM
    return chosen == FORMS[form].compiled or (chosen == "auto" and bool(pays))


def compiled_forms(config: Config, specs: Sequence[RunSpec]) -> dict[str, list[RunSpec]]:
    """Return the runs that would compile each form, for the forms that any would."""
    found = {form: [s for s in specs if compiles(config, s, form)] for form in FORMS}
    return {form: runs for form, runs in found.items() if runs}


def device_kind(config: Config) -> str:
    return "cuda" if trains_on_gpu(config) else "cpu"


def without_failed(config: Config, trials: Mapping[str, Trial | None]) -> tuple[Config, dict[str, str]]:
    """Return the config with AUTO turned to what does without the forms that failed, and the reasons by choice.
    Raises InputError where such a form is asked for by name."""
    reasons = {}
    for name, trial in trials.items():
        form = FORMS[name]
        if trial is None or trial.works:
            continue
        if form.chosen(config) != "auto":
            log = f" (traceback: {trial.log})" if trial.log else ""
            raise InputError(
                f"{form.choice}_{form.compiled.upper()} is set, and torch.compile cannot be used here: {trial.reason}"
                f'{log}. Mend that, or go without: `make SET="{form.choice}_{form.plain.upper()}=y"`, or '
                f"`--{form.choice.lower()} {form.plain}` of a train.py"
            )
        config, reasons[form.choice] = choose(config, form.choice, form.plain), str(trial.reason)
    return config, reasons


def settle_compiling(config: Config, specs: Sequence[RunSpec]) -> tuple[Config, dict[str, str]]:
    """Try what these runs would compile, unless it is known, and do `without_failed`."""
    wanted = compiled_forms(config, specs)
    return without_failed(config, try_compiling(wanted, device_kind(config)) if wanted else {})


def check_compiling(config: Config, specs: Sequence[RunSpec]) -> None:
    """Raise InputError where a form is asked for by name that is known to fail here."""
    wanted = compiled_forms(config, specs)
    without_failed(config, known_trials(wanted, device_kind(config)) if wanted else {})


def compiling_notes(config: Config, specs: Sequence[RunSpec]) -> Iterator[str]:
    """Say what compiling comes to here, as far as it is not simply done."""
    wanted = compiled_forms(config, specs)
    for name, trial in (known_trials(wanted, device_kind(config)) if wanted else {}).items():
        form, models = FORMS[name], ", ".join(dict.fromkeys(s.model for s in wanted[name]))
        asked = f"{form.choice}_{form.chosen(config).upper()}"
        if trial is None:
            yield (
                f"{asked}: {form.compiled} for {models} is a guess, for torch.compile has not been tried here "
                f"(`make` does, before the first run)"
            )
        elif not trial.works:
            yield f"{asked} is {form.plain} here, for torch.compile cannot be used: {trial.reason}"


def check_devices(config: Config) -> None:
    """Raise InputError where a run is to have more GPUs than there are."""
    wanted = config.read(hyper.Training).ddp_num_gpus
    if wanted > 1 and trains_on_gpu(config):
        there = len(BACKENDS["nvidia"].devices()) if BACKENDS["nvidia"].probe() else 0
        if 0 < there < wanted:
            raise InputError(
                f"DDP_NUM_GPUS={wanted}, and this machine has {there} GPUs: choose at most {there}, or DEVICE_CPU"
            )


def check_sharding(config: Config, spec: RunSpec) -> None:
    """Raise InputError for a run that needs whole layers and is to have parts of them."""
    if sharding(config, spec) != "full":
        return
    if PRUNERS[spec.pruning_method].whole_layers:
        raise InputError(
            f"{spec.id}: PRUNING_METHOD_{spec.pruning_method.upper()} needs whole layers, and SHARDING spreads them "
            f"over DDP_NUM_GPUS={config['DDP_NUM_GPUS']} devices: choose SHARDING_NONE, or another method"
        )
    if config.read(PruningOptions).pruning_audit:
        raise InputError(f"{spec.id}: PRUNING_AUDIT needs whole layers: choose SHARDING_NONE")


def sharding(config: Config, spec: RunSpec) -> str:
    """ "full" or "none", for one run."""
    training = config.read(hyper.Training)
    if training.ddp_num_gpus == 1 or config.get(f"{spec.model.upper()}_SPREADS") != "y":
        return "none"
    if training.sharding == "auto":
        return "full" if parameters(config, spec) >= SPREAD_FROM else "none"
    return training.sharding
