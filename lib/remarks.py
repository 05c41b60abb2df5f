"""What every number of a report was measured under, and what a reader must know before comparing rows."""

from collections.abc import Iterator

from lib.measure import HOST
from lib.results import Results, Run

MIB = 1024 * 1024
BUSY = 2.0  # ratio of times per step from which they are taken to speak of the machine
SMALL = 0.05  # share of a process's memory below which a model's weights vanish in it


def metric(group: Results) -> str:
    """What the runs of a model are compared by; where none has finished it cannot matter."""
    return next((r.metric for r in group if r.metric), "accuracy")


def conditions(group: Results) -> str:
    """What every number of a table was measured under."""
    done = group.done or group
    seeds = sorted({r.seed for r in group})

    def distinct(field, form=str):
        values = [v for v in dict.fromkeys(getattr(r, field) for r in done) if v is not None]
        return " or ".join(form(v) for v in values) or "unknown"

    compared, process = distinct("compared_source"), distinct("memory_source")
    same = compared in (process, "unknown")
    where = process if same else f"{compared}; of the process: {process}"
    quality = "accuracies in percent"
    if metric(group) == "perplexity":
        quality = f"perplexities of tokens ({distinct('tokenizer')})"
    one = ", so differences have no interval" if len(seeds) == 1 else ""
    many = {r.devices or 1 for r in done}  # records in docs may be older
    each = f" in each of {max(many)} processes" if many != {1} else ""
    origins = list(dict.fromkeys(origin(r, group) for r in group))
    return (
        f"n = {len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))}){one}; "
        f"{distinct('steps')} steps of {distinct('batch_size')} samples; {quality}, memory in MiB "
        f"({where}, training phase), time in seconds; "
        f"{distinct('device')}, {distinct('precision')}; "
        f"{distinct('threads')} thread{'s' * (distinct('threads') != '1')}{each}; "
        f"data {distinct('data_hash', lambda h: h[:12])}; commit {' or '.join(origins)}."
    )


def origin(r: Run, group: Results) -> str:
    """The commit a run was trained with, as the run itself recorded it."""
    p = r.provenance or group.provenance
    return f"{((p and p.commit) or 'unknown')[:12]}{' with local changes' if p and p.dirty else ''}"


def remarks(group: Results) -> Iterator[str]:
    """What a reader must know before comparing rows."""
    found = []
    if len({r.steps for r in group.done}) > 1:
        found.append("rows differ in steps: " + ", ".join(f"{r.id} {r.steps}" for r in group.done))
    for r in group.done:
        asked = round(r.target_sparsity * r.prunable_parameters) / r.prunable_parameters
        if r.achieved_sparsity != asked:
            found.append(f"{r.id}: sparsity {r.achieved_sparsity:.6f} is not the {asked:.6f} that was asked for")
        if r.stopped:
            found.append(f"{r.id}: stopped at step {r.steps} of {r.planned_steps}: {r.stopped}")
        if r.damaged_images:
            found.append(f"{r.id}: {r.damaged_images} files were no images and were left out (output.log names them)")
        if r.skipped_steps:
            found.append(f"{r.id}: {r.skipped_steps} steps had gradients that were not finite and changed nothing")
        found += [f"{r.id}: {problem}" for problem in r.problems]
        if r.monitor_problem:
            found.append(f"{r.id}: the monitor's record: {r.monitor_problem}")
        found += [f"{r.id}: step {e.step}: {w}" for e in r.events for w in e.warnings]
    found += same_schedule(group)
    found += same_masks(group)
    found += resident(group)
    found += busy(group)
    if len({origin(r, group) for r in group.done}) > 1:
        found.append(f"rows come from different code: {'; '.join(f'{r.id} {origin(r, group)}' for r in group.done)}")
    found += [f"{r.id}: {r.status}{': ' + r.reason if r.reason else ''}" for r in group if r.status != "done"]
    if found:
        yield "Remarks:"
        yield ""
        yield from (f"- {line}" for line in found)
        yield ""


def same_masks(group: Results) -> Iterator[str]:
    """Runs that ended with the same mask, weight for weight: one method under two names."""
    by_mask: dict[str, list[str]] = {}
    for r in group.done:
        if r.events:
            by_mask.setdefault(r.events[-1].mask, []).append(r.id)
    for ids in by_mask.values():
        if len(ids) > 1:
            yield f"{' and '.join(ids)} ended with the same mask, weight for weight"


def resident(group: Results) -> Iterator[str]:
    """Resident memory holds interpreter and libraries too; beside a small model it cannot tell methods apart."""
    rows = [r for r in group.done if r.memory_source == HOST and r.model_parameters]
    if rows:
        weights = 4 * rows[0].model_parameters / MIB
        low, high = min(r.train_memory_mean for r in rows), max(r.train_memory_mean for r in rows)
        span = f"{low:.0f}" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}"
        if weights < SMALL * low:
            yield (
                f"process MiB counts the whole process, with interpreter and libraries ({span} MiB); "
                f"the weights are {weights:.2f} MiB of it, so its differences between rows do not tell methods apart"
            )


def busy(group: Results) -> Iterator[str]:
    """Equal work that took very unequal time says more of the machine than of the rows."""
    per_step = {r.id: r.elapsed_s / r.steps for r in group.done if r.elapsed_s and r.steps}
    if per_step and max(per_step.values()) > BUSY * min(per_step.values()):
        slow, fast = max(per_step, key=per_step.get), min(per_step, key=per_step.get)
        yield (
            f"times are not comparable: a step of {slow} took {per_step[slow] / per_step[fast]:.1f} times that of "
            f"{fast}, so the machine was probably busy"
        )


def same_schedule(group: Results) -> Iterator[str]:
    """adamwadv is AdamW with AMSGrad, a cosine schedule and a clip: where the recipe has the last two already, only
    AMSGrad differs."""
    from lib.hyper import read_recipe
    from lib.optim.base import OPTIMIZERS

    for r in group.runs[:1]:
        recipe = read_recipe(group.config, r.model, r.dataset)
        replaced = OPTIMIZERS["adamwadv"].replaces("")
        same = all(getattr(recipe, k) == v for k, v in replaced.items())
        if same and any("adamwadv" in (x.optimizer, x.adamwprune_base) for x in group):
            yield "adamwadv differs from adamw by AMSGrad alone: the recipe has its schedule and clip already"
