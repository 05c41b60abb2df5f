"""The audit of a results directory: which scores of state pruning are the same method under two names.

Every score is asked what it would prune at the end of every finished run, from that run's own last weights and Adam
state (lib/prune/kernel/audit.py); audit.json holds the answers, and everything else here reads them without torch.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from lib import checkpoint, kconfig, provenance
from lib.config import InputError
from lib.files import Damaged, check_file, read_record
from lib.hyper import read_recipe
from lib.matrix import expand
from lib.prune.importance import IMPORTANCE
from lib.records import Audit, RunScores, Skipped
from lib.results import Results, Run
from lib.rundir import RunDir
from lib.sanitize import printable_line
from lib.schema import parse
from lib.spec import percent

FILE = "audit.json"
USUAL = (0.5, 0.7, 0.9)  # audited where the matrix prunes nothing
NEAR = 0.999  # Jaccard index from which two scores are said to hardly differ
AXIS = "ADAMWPRUNE_VARIANT_"


def audit(results: Results, task: Callable, say: Callable[[str], None] = print) -> Audit:
    """Audit every finished run that has Adam state.

    task(model name) gives the model's task, whose network names the weights. Sparsities are the matrix's own (else 50,
    70 and 90%), as shares of the weights that are live in a run: a pruned one is asked what would go next.
    A run whose checkpoint is damaged or of another model is left out. Raises InputError where no run can be audited.
    """
    sparsities = sorted({s.target_sparsity for s in expand(results.config)} - {0.0}) or list(USUAL)
    states, skipped = [], [Skipped(run=r.id, reason=r.status) for r in results if r.status != "done"]
    for r in results.done:
        try:
            model = task(r.model).model(r.dataset, read_recipe(results.config, r.model, r.dataset))
            states.append(one(r, model, sparsities))
        except Unaudited as why:
            skipped.append(Skipped(run=r.id, reason=str(why)))
            say(f"left out: {r.id}: {why}")
        else:
            say(f"audited:  {r.id}: step {states[-1].step}, {states[-1].live} live weights")
    if not states:
        why = "; ".join(f"{s.run}: {s.reason}" for s in skipped) or "no run has been started"
        raise InputError(f"{results.root} has nothing to audit, which takes a finished run of an Adam optimizer: {why}")
    here = provenance.collect()
    return Audit(
        commit=here.commit, provenance=here, sparsities=sparsities, scores=in_order(), states=states, skipped=skipped
    )


class Unaudited(Exception):
    """A finished run that cannot be audited; the message says why."""


def one(run: Run, model, sparsities: list[float]) -> RunScores:
    """The record of one run's last state."""
    from lib.prune.kernel.audit import audit_state

    path = RunDir(run.path).last
    if not path.exists():
        raise Unaudited(f"{path.name} is not there")
    check_checkpoint(run, path)
    group, weights = moments(path, model)
    try:
        found = audit_state(weights, group["step"], group["beta1"], sparsities, in_order())
    except ValueError as e:
        raise Unaudited(str(e)) from None
    return parse(RunScores, {"run": run.id, **found})


def check_checkpoint(run: Run, path: Path) -> None:
    """Raise Unaudited unless a checkpoint is what it was when the run ended."""
    try:
        if path.name in (run.files or {}):
            check_file(path, run.files[path.name])
    except Damaged as e:
        raise damaged(path, e.what) from None


def damaged(path: Path, why: str) -> Unaudited:
    why = printable_line(why)
    return Unaudited(
        f"{path} is damaged ({why}): remove {path.parent.name}/summary.json and `make continue` trains it again"
    )


def moments(path: Path, model) -> tuple[dict, list[tuple]]:
    """The optimizer's first parameter group, and (name, w, exp_avg, exp_avg_sq) of a checkpoint's prunable weights.

    The optimizer numbers its parameters in the order of decay_groups, which `model` gives; its weights are not used.
    """
    from lib.optim.base import decay_groups
    from lib.prune.kernel.pruner import prunable

    weights, optimizer = read(path)
    saved = [i for g in optimizer["param_groups"] for i in g["params"]]
    made = [id(p) for g in decay_groups(model.named_parameters(), 0.0) for p in g["params"]]
    if len(saved) != len(made):
        raise Unaudited(f"{path} is of another model: it has {len(saved)} parameters, and this code {len(made)}")
    number = dict(zip(made, saved, strict=True))
    found = []
    for name, p in prunable(model):
        state = optimizer["state"].get(number[id(p)], {})
        if not {"exp_avg", "exp_avg_sq"} <= state.keys():
            raise Unaudited(f"its optimizer keeps {', '.join(state) or 'nothing'} and no exp_avg and exp_avg_sq")
        row = weights.get(name), state["exp_avg"], state["exp_avg_sq"]
        if any(t is None or t.shape != p.shape for t in row):
            raise Unaudited(f"{path} is of another model: {name} is not there in the shape {tuple(p.shape)}")
        found.append((name, *row))
    return optimizer["param_groups"][0], found


def read(path: Path) -> tuple[dict, dict]:
    """The weights and the optimizer's state of a checkpoint."""
    try:
        state = checkpoint.load(path)
        return state["model"], state["optimizer"]
    except Exception as e:  # a torn archive raises whatever its torn part was for
        raise damaged(path, str(e).partition("\n")[0] or type(e).__name__) from None


def in_order() -> list[str]:
    """The scores in Kconfig's order."""
    symbols = [s.name for s in kconfig.tree().unique_defined_syms if s.name.startswith(AXIS)]
    return [n for s in symbols if (n := s.removeprefix(AXIS).lower()) in IMPORTANCE]


def load(root: Path) -> Audit | None:
    """What audit.json says, or None where there is none. Raises InputError where it is damaged or of another schema."""
    try:
        return read_record(Audit, root / FILE)
    except FileNotFoundError:
        return None


def findings(record: Audit) -> Iterator[str]:
    """What the audit says, a sentence each: scores that are one method, scores that differ by their distribution over
    the layers alone, and the range that the others span."""
    n, least = len(record.states), {}
    where = f"all {n} audited states" if n > 1 else "the one audited state"
    at = f"{where} at {listed([percent(s) + '%' for s in record.sparsities])}"
    for value, a, b, *_ in pairs(record):
        least[a, b] = min(value, least.get((a, b), 1.0))
    one_method = groups(record.scores, {pair for pair, value in least.items() if value == 1.0})
    for group in one_method:
        yield f"{listed(group)} chose the same mask in {at}: one method under {len(group)} names."
    for group in groups(record.scores, ranked_alike(record)):
        if group not in one_method:
            yield f"{listed(group)} rank the weights alike in {where}: what differs is the share each layer gives up."
    for (a, b), value in least.items():
        if NEAR <= value < 1:
            yield f"{a} and {b} hardly differ: the Jaccard index of their kept sets is at least {below_one(value)}."
    others = [row for row in pairs(record) if least[row[1:3]] < NEAR]
    if others:
        yield f"Jaccard index of every two other kept sets: from {shown(*min(others))} to {shown(*max(others))}."


def listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def shown(value: float, a: str, b: str, run: str, share: float) -> str:
    return f"{below_one(value)} ({a} and {b} in {run} at {percent(share)}%)"


def below_one(value: float) -> str:
    """As many digits as it takes to tell a value from 1, and three at least."""
    digits = 3
    while value < 1 and f"{value:.{digits}f}".startswith("1") and digits < 9:
        digits += 1
    return f"{value:.{digits}f}"


def pairs(record: Audit) -> Iterator[tuple[float, str, str, str, float]]:
    """(Jaccard index of the kept sets, score, score, run, sparsity) of every two scores in every state."""
    for state in record.states:
        for at in state.at:
            for (i, a), (j, b) in combinations(enumerate(state.scores), 2):
                yield at.jaccard_kept[i][j], a, b, state.run, at.sparsity


def ranked_alike(record: Audit) -> set[tuple[str, str]]:
    """Pairs of scores whose rank correlation is 1 exactly in every state."""
    found = set(combinations(record.scores, 2))
    for state in record.states:
        order = list(combinations(enumerate(state.scores), 2))
        found &= {(a, b) for (i, a), (j, b) in order if state.spearman[i][j] == 1.0}
    return found


def groups(names: list[str], equal: set[tuple[str, str]]) -> list[list[str]]:
    """Names that are equal to one another, in groups of two or more."""
    found: list[list[str]] = []
    for name in names:
        home = next((g for g in found if (g[0], name) in equal), None)
        if home:
            home.append(name)
        else:
            found.append([name])
    return [g for g in found if len(g) > 1]


def table(state: RunScores) -> Iterator[str]:
    """One state for a terminal: the scores by number; below the diagonal the Jaccard index of the kept sets, above it
    that of the pruned sets, in percent, "=" where it is exactly 100; then ties and underflow."""
    names, live = state.scores, state.live
    yield f"{state.run}: step {state.step}, {live} of {state.weights} weights live; exp_avg_sq is 0 for " + (
        f"{100 * state.v_zero:.2f}% of them, by underflow for {100 * state.v_lost:.2f}%"
    )
    for at in state.at:
        yield f"  {percent(at.sparsity)}% pruned; below the diagonal kept sets, above it pruned sets, Jaccard, %"
        yield from matrix(names, lambda i, j, at=at: hundred((at.jaccard_kept if i > j else at.jaccard_pruned)[i][j]))
    yield f"  Spearman's rank correlation of {state.ranked} weights, %"
    yield from matrix(names, lambda i, j: hundred(state.spearman[i][j]) if i > j else "")
    yield "  weights in ties at the threshold, % of live; score lost to underflow, %"
    width = max(map(len, names))
    heads = [f"{percent(at.sparsity)}%" for at in state.at]
    yield "  " + " " * (width + 3) + "".join(f"{h:>9}" for h in heads) + f"{'lost':>9}"
    for i, name in enumerate(names, 1):
        ties = "".join(f"{100 * at.ties[name] / live:9.3f}" for at in state.at)
        yield f"  {i:2} {name:<{width}}{ties}{100 * state.lost[name]:9.3f}"


def matrix(names: list[str], cell: Callable[[int, int], str]) -> Iterator[str]:
    width = max(map(len, names))
    yield "  " + " " * (width + 3) + "".join(f"{i + 1:>4}" for i in range(len(names)))
    for i, name in enumerate(names):
        cells = ["." if i == j else cell(i, j) for j in range(len(names))]
        yield f"  {i + 1:2} {name:<{width}}".ljust(width + 5) + "".join(f"{c:>4}" for c in cells).rstrip()


def hundred(value: float | None) -> str:
    """A share in whole percent, rounded towards 0 so that only 1 itself is "="."""
    return "-" if value is None else "=" if value == 1 else str(int(100 * value))
