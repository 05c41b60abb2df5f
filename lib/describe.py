"""The plan for a person: runs, what is left out and why, what to know, and what it will take. No torch."""

from collections.abc import Iterator

from lib.config import Config
from lib.estimate import describe_costs
from lib.hyper import read_recipe
from lib.matrix import Plan
from lib.optim.base import OPTIMIZERS, UpdateOptions
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.schedule import schedule
from lib.resolve import COMPILED_FROM, compiling_notes, lengths, parameters
from lib.spec import RunSpec


def describe(config: Config, plan: Plan, probe: float | None = None) -> Iterator[str]:
    """Runs, what was left out and why, defaults taken, notes, missing data, memory, and time; probe: as
    `describe_costs` takes it."""
    yield f"{len(plan.specs)} run{'s' * (len(plan.specs) != 1)}:"
    width = max(len(s.id) for s in plan.specs)
    for spec in plan.specs:
        length, batch = lengths(config, spec), read_recipe(config, spec.model, spec.dataset).batch_size
        yield (
            f"  {spec.id:<{width}}  {length.steps} steps of {batch}, {length.evaluations} evaluations on {spec.dataset}"
        )
    if plan.left_out:
        yield "left out:"
        yield from (f"  {why}" for why in plan.left_out)
    for note in [*plan.notes, *notes(config, plan)]:
        yield f"note: {note}"
    yield from describe_costs(config, plan, probe)


def pruning_schedule(config: Config, spec: RunSpec):
    """When a run prunes how much; None without pruning."""
    method = PRUNERS[spec.pruning_method]
    if not method.sparse:
        return None
    resets = OPTIMIZERS[spec.optimizer].resets(config.read, spec.adamwprune_base)
    length = lengths(config, spec)
    options = config.read(PruningOptions)
    return schedule(options, spec.target_sparsity, length.steps, length.scale, resets, method.schedule)


def notes(config: Config, plan: Plan) -> Iterator[str]:
    """What a reader of the plan should know."""
    said = {}
    for spec in plan.specs:
        length = lengths(config, spec)
        resets = OPTIMIZERS[spec.optimizer].resets(config.read, spec.adamwprune_base)
        if resets and resets.interval > length.steps:
            said[f"SPAM_DELTA_T={resets.interval}: no momentum reset in {length.steps} steps ({spec.model})"] = None
        when = pruning_schedule(config, spec)
        if when and len(when.events) == 1 and when.shape not in ("one_shot", "constant"):
            said[f"{spec.model}: PRUNING_FREQUENCY={when.frequency} leaves one event, at step {when.ramp_end}"] = None
        if config.read(UpdateOptions).update == "compiled" and parameters(config, spec) < COMPILED_FROM:
            said[f"{spec.model}: UPDATE_COMPILED gains nothing on a model this small, and compiling takes time"] = None
        if length.scale < 1:
            said[f"{spec.model}: lengths given in steps are scaled by {length.scale:.3g}, as the run was shortened"] = (
                None
            )
    yield from said
    yield from compiling_notes(config, plan.specs)
