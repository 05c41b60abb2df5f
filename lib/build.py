"""What a run is made of, from its spec and config: device, cut of the batch, model, optimizer, plan of the pruning."""

import dataclasses
import hashlib

import torch
from torch import nn

from lib.config import Config, InputError
from lib.hyper import Length, Recipe, Training
from lib.matrix import distribution
from lib.optim.base import OPTIMIZERS, Hyper, decay_groups
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.kernel.audit import audit_event
from lib.prune.kernel.pruner import Plan
from lib.prune.schedule import schedule
from lib.records import Gpu
from lib.spec import RunSpec


def derive(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that no use of random numbers shifts another."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1


def device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("DEVICE_CUDA is set, but torch finds no GPU: choose DEVICE_AUTO or DEVICE_CPU")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def gpus(device: torch.device, count: int) -> list[Gpu]:
    """By what the monitor can tell the GPUs of a run from others: NVIDIA's UUID and the PCI slot."""
    found = []
    for i in range(count if device.type == "cuda" else 0):
        p = torch.cuda.get_device_properties(i if count > 1 else device)
        place = [getattr(p, f"pci_{name}_id", None) for name in ("domain", "bus", "device")]
        bus = None if None in place else "{:04x}:{:02x}:{:02x}.0".format(*place)
        found.append(Gpu(uuid=str(getattr(p, "uuid", "")) or None, bus=bus))
    return found


def cut(task, dataset: str, recipe: Recipe, training: Training, world) -> tuple[Recipe, dict | None]:
    """The recipe with what CONFIG_HYPER_PARAM_AUTO chose for these devices, and the choice; None where it is off."""
    if not training.hyper_param_auto:
        return recipe, None
    gpu = world.device.type == "cuda"
    gib = world.least(torch.cuda.get_device_properties(world.device).total_memory / 2**30) if gpu else None
    found = task.batching(dataset, recipe, gib, training.ddp_num_gpus)
    whole = recipe.batch_size - found.left
    cut_ = {"batch_size": whole, "micro_batch": found.samples}
    if gpu and task.metric == "perplexity":  # its logits are what an evaluation takes memory for, too
        cut_["eval_batch_size"] = min(recipe.eval_batch_size, found.samples)
    return dataclasses.replace(recipe, **cut_), dataclasses.asdict(found)


def model(task, spec: RunSpec, recipe: Recipe, device: torch.device) -> nn.Module:
    """With initial weights that all runs of a seed share, whatever else they draw."""
    torch.manual_seed(derive(spec.seed, "init"))
    made = task.model(spec.dataset, recipe).to(device)
    torch.manual_seed(derive(spec.seed, "dropout"))
    return made


def optimizer(parameters: list[tuple[str, nn.Parameter]], spec: RunSpec, config: Config, recipe: Recipe):
    """(optimizer of these named parameters, peak learning rate, shape of its schedule). A record may replace recipe
    settings (adamwadv: schedule and clip)."""
    record = OPTIMIZERS[spec.optimizer]
    replaced = record.replaces(spec.adamwprune_base)
    clip = replaced.get("clip_norm", recipe.clip_norm)
    if record.family == "sgd":
        h = Hyper(recipe.sgd_lr, recipe.sgd_weight_decay, clip_norm=clip)
    else:
        h = Hyper(recipe.adam_lr, recipe.adam_weight_decay, recipe.adam_beta1, recipe.adam_beta2, clip)
    groups = decay_groups(parameters, h.weight_decay)
    made = record.build(groups, h, config.read, spec.adamwprune_base)
    return made, h.lr, replaced.get("lr_schedule", recipe.lr_schedule)


def pruning(spec: RunSpec, config: Config, length: Length) -> Plan | None:
    """What the run asks of its pruner, or None without pruning."""
    method = PRUNERS[spec.pruning_method]
    if not method.sparse:
        return None
    options = config.read(PruningOptions)
    resets = OPTIMIZERS[spec.optimizer].resets(config.read, spec.adamwprune_base)
    return Plan(
        schedule(options, spec.target_sparsity, length.steps, length.scale, resets, method.schedule),
        distribution(spec, options),
        spec.adamwprune_variant,
        floor=options.pruning_layer_floor,
        pattern=options.pattern(),
        drop=options.pruning_drop_fraction,
        seed=derive(spec.seed, "pruning"),
        audit=audit_event if options.pruning_audit else None,
    )
