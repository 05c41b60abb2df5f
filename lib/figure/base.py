"""What all figures share: the registry, what may stand in one panel, and colours and markers with one meaning.

A panel holds the finished runs of one model and data set (a family), and, where it shows memory, of one source of
memory figures. Runs that differ by seed alone are one setting: its mean is drawn strong and its seeds faint.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lib.config import Config, InputError
from lib.figure.folder import GraphFolder
from lib.measure import HOST, TENSORS
from lib.record import perplexity
from lib.records import Epoch
from lib.registry import Registry
from lib.results import Results, Run
from lib.sanitize import printable_line
from lib.spec import percent

# key (GRAPH_* in Kconfig) -> function(results) -> (stem, matplotlib Figure) pairs
FIGURES: Registry[Callable[[Results], Iterable]] = Registry("graph", "lib.figure")

# Okabe and Ito's colours, which people with any colour vision can tell apart, and then Tol's muted set. Methods begin
# in the muted set, so that no method looks like an optimizer; the dense reference is dark grey.
PALETTE = (
    "#0072B2 #E69F00 #009E73 #CC79A7 #56B4E9 #D55E00 #332288 #999933 #882255 #44AA99 #AA4499 #117733 #661100 #888888"
).split()
METHODS = ["#444444", *PALETTE[6:]]
PALETTES = {"pruning_method": METHODS}
MARKERS = "osD^vP*X<>hpd8"
PARTS = ("adamwprune_base", "adamwprune_variant")  # what a run may be told apart by, beside the axes
MISSING = {
    "train_memory_mean": "no memory was recorded over the training phase of any run",
    "test_accuracy_last": "no run has a test accuracy",
    "compared_memory": "no memory was recorded over the training phase of any run",
    "inference_memory_mean": "no run has measured inference: INFERENCE_TEST=y",
    "memory_multiple": "no run has a memory ledger",
    "test_perplexity_last": "no run has a test perplexity",
}
PROCESS = "Memory is the whole process, interpreter and libraries included: small differences do not tell methods apart"
BY_LEDGER = "Memory is that of tensors between a backward pass and its update, which no allocator blurs"
MEMORY = {"compared_memory": "compared_source", "train_memory_mean": "memory_source"}  # field -> what it is
NAMED = 3  # runs named in a foot before it says only how many


@dataclass(frozen=True)
class Quality:
    """What runs are compared by. worse: which way. test: the field of a run with that of its last weights. unit: of an
    axis. of(row, split): an evaluation's, or None."""

    word: str
    worse: str
    test: str
    unit: str
    of: Callable[[Epoch, str], float | None]


def accuracy_of(row: Epoch, split: str) -> float | None:
    return row.accuracy(split)


def perplexity_of(row: Epoch, split: str) -> float | None:
    return perplexity(row.loss(split))


QUALITIES = {
    "accuracy": Quality("accuracy", "lower", "test_accuracy_last", "accuracy, %", accuracy_of),
    "perplexity": Quality("perplexity", "higher", "test_perplexity_last", "perplexity", perplexity_of),
}
QUALITY = "quality"  # as a field of `families`: the `test` of whatever its runs are compared by


class Skip(Exception):
    """Raised by a figure that cannot be drawn from these results; the message says what is missing."""


def figure(key: str):
    """Register a figure: a function of Results that yields (stem, Figure), or raises Skip with the reason."""

    def register(function):
        return FIGURES.add(key, function)

    return register


@dataclass(frozen=True)
class Setting:
    """Runs that differ by seed alone."""

    runs: tuple[Run, ...]

    @property
    def r(self) -> Run:
        """Any of them, for what they have in common."""
        return self.runs[0]

    def values(self, field: str) -> list[float]:
        return [v for v in (getattr(r, field) for r in self.runs) if v is not None]

    def mean(self, field: str) -> float:
        return average(self.values(field))


@dataclass(frozen=True)
class Family:
    """The finished runs that one figure may show together. `found` holds those that its foot must account for as
    well, `whole` every run of the directory; `suffix` ends the figure's file name."""

    results: Results
    found: Results
    whole: Results
    suffix: str = ""

    def of(self, **want) -> "Family":
        return replace(self, results=self.results.where(**want), found=self.found.where(**want))

    def alone(self, r: Run) -> "Family":
        one = replace(self.results, runs=(r,), missing=())
        return replace(self, results=one, found=one)

    @cached_property
    def settings(self) -> list[Setting]:
        groups = self.results.by("optimizer", *PARTS, "pruning_method", "target_sparsity").values()
        return [Setting(g.runs) for g in groups]

    @cached_property
    def sparsities(self) -> list[float]:
        return sorted({r.target_sparsity for r in self.results if r.target_sparsity})

    @property
    def quality(self) -> Quality:
        return QUALITIES[self.results.runs[0].metric]

    @property
    def seeds(self) -> list[int]:
        return sorted({r.seed for r in self.results})

    @property
    def source(self) -> str | None:
        """What the memory is that all of these runs are compared by; None unless it is one thing."""
        sources = {r.compared_source for r in self.results}
        return sources.pop() if len(sources) == 1 else None

    @property
    def process_source(self) -> str | None:
        """Where memory was read for all of these runs; None unless it is one place."""
        sources = {r.memory_source for r in self.results}
        return sources.pop() if len(sources) == 1 else None

    def name(self, r: Run, what: str = "all") -> str:
        """A run in the words and the order of run ids. `what`: all of it, the arm (without its sparsity), or what is
        along an axis: the optimizer or the method, with base and variant only where they vary."""
        inner = [getattr(r, p) for p in PARTS if p in self.varied or (what in ("all", "arm") and p == PARTS[1])]
        words = [r.optimizer if what != "pruning_method" else "", *inner]
        words += [r.pruning_method] if what != "optimizer" else []
        words += [f"{percent(r.target_sparsity)}%"] if what == "all" and r.target_sparsity else []
        return " ".join(w for w in words if w)

    @cached_property
    def varied(self) -> set[str]:
        """Which of base and variant are needed to tell runs apart."""
        return {p for p in PARTS if len({getattr(r, p) for r in self.whole} - {""}) > 1}

    def hues(self, axis: str) -> dict[str, str]:
        """name along the axis -> colour. Members have their own; a base and variant that is named with them has the
        same along every axis, one that no member has as long as there are any."""
        parted = dict.fromkeys(parts for r in self.whole if any(parts := self.parts(r)))
        plain = [r for r in self.whole if not any(self.parts(r))]
        taken = {colour(self.whole, a, getattr(r, a)) for r in plain for a in ("optimizer", "pruning_method")}
        spare = sorted(PALETTE, key=lambda c: c in taken)
        other = {parts: spare[i % len(spare)] for i, parts in enumerate(parted)}
        return {
            self.name(r, axis): other.get(self.parts(r)) or colour(self.whole, axis, getattr(r, axis))
            for r in self.results
        }

    def parts(self, r: Run) -> tuple[str, ...]:
        """A run's base and variant, as far as they are needed to tell runs apart."""
        return tuple(getattr(r, p) if p in self.varied else "" for p in PARTS)

    def shade(self, r: Run, hue: str) -> str:
        """A run's colour: the stronger, the sparser. The dense runs have the full one."""
        return lighter(hue, 0.5 * (1 - self.level(r))) if r.target_sparsity else hue

    def level(self, r: Run) -> float:
        """Place of a run's sparsity among those of the family, 1 for the highest."""
        last = len(self.sparsities) - 1
        return self.sparsities.index(r.target_sparsity) / last if last > 0 else 1.0

    @cached_property
    def odd(self) -> set[str]:
        """Runs not to be compared with the rest: of another budget or data, or not at the sparsity asked."""
        budgets = {r.id: (r.steps, r.batch_size, r.data_hash) for r in self.results}
        usual, _ = Counter(budgets.values()).most_common(1)[0]
        return {r.id for r in self.results if budgets[r.id] != usual or missed(r)}

    def memory_notes(self, process: bool = False) -> list[str]:
        """What a reader of memory figures must know; of one that shows that of the processes alone, with `process`."""
        if self.source == TENSORS and not process:
            return [BY_LEDGER]
        return [PROCESS] if any(r.memory_source == HOST for r in self.results) else []

    def foot(self, *notes: str) -> str:
        """Under what conditions the runs were made, which runs are not shown, and what else a reader must know."""
        r, p = self.results.runs[0], [x.provenance or self.results.provenance for x in self.results]
        samples = distinct(f"{x.steps} steps of {x.batch_size}" for x in self.results)
        commit = distinct(((x and x.commit) or "unknown")[:7] for x in p)
        words = [
            f"{r.model} on {r.dataset}",
            f"n = {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)} ({', '.join(map(str, self.seeds))})",
            f"{samples} samples",
            distinct(short(x.device) for x in self.results),
            f"commit {commit}{' with local changes' if any(x and x.dirty for x in p) else ''}",
            *left_out(self.results, self.found),
        ]
        marked = [f"* Of other steps or data than the rest, or not at the sparsity asked: {named(sorted(self.odd))}."]
        return " ".join([f"{'; '.join(words)}.", *(f"{n}." for n in notes), *(marked if self.odd else [])])


def short(device: str | None) -> str:
    """A device's name without its marks and features."""
    return re.sub(r"\((R|TM)\)|\(family.*\)", "", device or "device unknown").strip()


def missed(r: Run) -> bool:
    """Whether a run ended at another sparsity than was asked for, to the weight."""
    return r.achieved_sparsity != round(r.target_sparsity * r.prunable_parameters) / r.prunable_parameters


def average(values: list[float]) -> float:
    return sum(values) / len(values)


def distinct(words: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(words))


def named(ids: list[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more


def left_out(shown: Results, found: Results) -> Iterator[str]:
    """The runs of `found` that are not shown, by reason."""
    reasons: dict = {}
    for x in found:
        if x.id not in {r.id for r in shown}:
            other = f"memory from {x.compared_source}" if x.compared_source else "no memory recorded"
            reasons.setdefault(other if x.status == "done" else x.status, []).append(x.id)
    for why, ids in reasons.items():
        yield f"left out, {why}: {named(ids)}"
    if found.missing:
        yield f"{len(found.missing)} planned runs not run"


def families(results: Results, *fields: str) -> Iterator[Family]:
    """What may be drawn together: the runs of a model and data set that have all `fields`, and where memory is among
    them, of one source. Raises Skip at the end with the reason for each model and data set that gave nothing."""
    by_data = results.by("model", "dataset")
    if not results.done.runs:
        raise Skip("no run has finished")
    reasons = []
    for (model, dataset), found in by_data.items():
        where = f"{model} on {dataset}: " if len(by_data) > 1 else ""
        lacking, group = None, found.done
        for field in fields:
            field = QUALITIES[group.runs[0].metric].test if field == QUALITY and group.runs else field
            have = replace(group, runs=tuple(r for r in group if getattr(r, field) is not None))
            lacking, group = lacking or (None if have.runs else field), have
        if not group.runs:
            why = MISSING.get(lacking, f"no {lacking}") if found.done.runs else "no run has finished"
            reasons.append(where + why)
            continue
        by = next((MEMORY[f] for f in fields if f in MEMORY), None)
        sources = group.by(by) if by else {None: group}
        for source, part in sources.items():
            words = ([model, dataset] if len(by_data) > 1 else []) + ([source] if len(sources) > 1 else [])
            yield Family(part, found, results, "".join("_" + re.sub(r"\W+", "_", w.lower()) for w in words))
    if reasons:
        raise Skip("; ".join(reasons))


def colour(results: Results, axis: str, member: str) -> str:
    """The colour of a member of an axis: by its place in Kconfig, so that it is the same in every figure."""
    palette = PALETTES.get(axis, PALETTE)
    return palette[results.order(axis).index(member) % len(palette)]


def marker(results: Results, method: str) -> str:
    return MARKERS[results.order("pruning_method").index(method) % len(MARKERS)]


def lighter(hue: str, share: float) -> str:
    """A colour mixed with this share of white."""
    parts = [int(hue[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(p + (255 - p) * share):02x}" for p in parts)


def selected(config: Config) -> list[str]:
    return config.on("GRAPH")


def render_all(results: Results) -> tuple[list[Path], list[tuple[str, str]]]:
    """Draw every selected graph into graphs/; the files, and (graphs, reason) for those that were skipped. Pictures
    there that the last report wrote are replaced, and nothing else is. A graph that cannot be drawn costs no report."""
    try:
        folder = GraphFolder(results.root / "graphs")
    except InputError as why:
        return [], [("all", str(why))]
    files, skipped, keys = [], [], selected(results.config)
    for key in keys:
        try:
            for stem, fig in FIGURES[key](results):
                try:
                    files.append(folder.save(fig, stem))
                except InputError as why:  # it costs the others of its kind nothing
                    skipped.append((stem, str(why)))
        except (Skip, InputError) as why:
            skipped.append((key, str(why)))
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            why = f"it cannot be drawn from these values ({type(e).__name__}: {printable_line(str(e))})"
            skipped.append((key, why))
    return files, by_reason(skipped, keys)


def by_reason(skipped: list[tuple[str, str]], keys: list[str]) -> list[tuple[str, str]]:
    """(graphs, reason), a reason once, of (graph, reason) pairs; "all" where it is that of every graph in `keys`."""
    found: dict[str, list[str]] = {}
    for key, why in skipped:
        found.setdefault(why, []).append(key)
    return [("all" if names == keys and len(keys) > 1 else ", ".join(names), why) for why, names in found.items()]
