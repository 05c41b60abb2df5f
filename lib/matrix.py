"""From a Config to the list of its runs, and from one run back to a Config. Pure; no torch, no files.

An optimizer pairs with a method when it keeps what the method needs and neither refuses the other. `none` is one run
at sparsity 0 (for an optimizer with bases, one per base); every other method is run at each sparsity; state pruning
also with each variant. Impossible pairs are left out with a reason; an axis member that ends in no run is an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lib.config import Config, InputError
from lib.optim.adamwprune import DEFAULT_BASE
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.distribution import DISTRIBUTIONS
from lib.prune.importance import IMPORTANCE
from lib.prune.state import DEFAULT_VARIANT
from lib.rundir import OWN
from lib.spec import RunSpec, identify, percent

NEAR = 5e-4  # three digits of a sparsity are enough to name an N:M pattern
RUN_ID = re.compile(r"[a-z0-9_.-]+")


@dataclass(frozen=True)
class Plan:
    """specs: the runs, in Kconfig's order. left_out: why a pair is missing. notes: defaults that were taken."""

    specs: tuple[RunSpec, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Axes:
    """The members of every axis; datasets by model."""

    datasets: dict[str, list[str]]
    optimizers: list[str]
    methods: list[str]
    variants: list[str]
    bases: list[str]
    sparsities: list[float]
    seeds: list[int]


def expand(config: Config) -> list[RunSpec]:
    """The runs of a config, in order, with their ids. Raises InputError where an axis is empty or a member unused."""
    return list(plan(config).specs)


def plan(config: Config) -> Plan:
    axes = read_axes(config)
    options = config.read(PruningOptions)
    specs, left_out = [], []
    for cell in cells(axes):
        why = impossible(cell, options)
        (left_out.append(why) if why else specs.append(exact(cell, options)))
    check_used(axes, specs, left_out)
    for optimizer, base in dict.fromkeys((s.optimizer, s.adamwprune_base) for s in specs):
        OPTIMIZERS[optimizer].check(config.read, base)
    specs = name(config, axes, specs)
    return Plan(tuple(specs), tuple(dict.fromkeys(left_out)), tuple(defaults(axes)))


def read_axes(config: Config) -> Axes:
    models = needed(config, "MODEL")
    axes = Axes(
        datasets={m: needed(config, f"{m.upper()}_DATASET") for m in models},
        optimizers=needed(config, "OPTIMIZER"),
        methods=needed(config, "PRUNING_METHOD"),
        variants=config.on("ADAMWPRUNE_VARIANT"),
        bases=config.on("ADAMWPRUNE_BASE"),
        sparsities=read_sparsities(config),
        seeds=read_seeds(config),
    )
    sparse = [m for m in axes.methods if PRUNERS[m].sparse]
    if sparse and not axes.sparsities:
        raise InputError(f'TARGET_SPARSITY is empty, and {", ".join(sparse)} needs it: for example "0.5,0.7,0.9"')
    if axes.sparsities and not sparse:
        raise InputError(f"{config.where('TARGET_SPARSITY')} ends in no run: the only method is none")
    return axes


def needed(config: Config, axis: str) -> list[str]:
    on = config.on(axis)
    if not on:
        members = ", ".join(f"{axis}_{m.upper()}" for m in config.members(axis))
        first = f"{axis}_{config.members(axis)[0].upper()}=y" if config.members(axis) else f"{axis}_..."
        raise InputError(
            f"the axis {axis} is empty: set at least one of {members} (`make menuconfig`, or CONFIG_{first} in .config)"
        )
    return on


def missing(config: Config) -> list[str]:
    """What a config still needs before it has runs, each with what would mend it; [] where nothing is missing."""
    found = []
    for axis in ["MODEL", *(f"{m.upper()}_DATASET" for m in config.on("MODEL")), "OPTIMIZER", "PRUNING_METHOD"]:
        try:
            needed(config, axis)
        except InputError as e:
            found.append(str(e))
    if not found:
        try:
            plan(config)
        except InputError as e:
            found.append(str(e))
    return found


def read_sparsities(config: Config) -> list[float]:
    """TARGET_SPARSITY as floats in the order given, each above 0 and below 1."""
    found = []
    for part in _parts(config.get("TARGET_SPARSITY", "")):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value < 1:
            raise InputError(
                f"{config.where('TARGET_SPARSITY')}: {part!r} is no sparsity: give shares above 0 and below 1, "
                f'such as "0.5,0.7,0.9" (without pruning, the method none is sparsity 0)'
            )
        found.append(value)
    _distinct(config, "TARGET_SPARSITY", [percent(s) for s in found])  # what ids are made of
    return found


def read_seeds(config: Config) -> list[int]:
    """SEEDS: "3" is 0, 1, 2; with a comma it is a list: "4,7", "4,"."""
    text = config.get("SEEDS", "1")
    try:
        numbers = [int(p) for p in _parts(text)]
    except ValueError:
        numbers = []
    if "," not in text and len(numbers) == 1 and 1 <= numbers[0] <= 10000:
        return list(range(numbers[0]))
    if "," in text and numbers and min(numbers) >= 0:
        return _distinct(config, "SEEDS", numbers)
    raise InputError(
        f'{config.where("SEEDS")}: give a count from 1 to 10000, such as 3 (seeds 0, 1, 2), or a list: "4,7"'
    )


def _parts(text: str) -> list[str]:
    return [p.strip() for p in text.split(",") if p.strip()]


def _distinct(config: Config, name: str, values: list) -> list:
    if len(set(values)) < len(values):
        raise InputError(f"{config.where(name)}: a value is given twice")
    return values


def cells(axes: Axes) -> Iterator[RunSpec]:
    """Every combination, possible or not, in order."""
    for model, datasets in axes.datasets.items():
        for dataset in datasets:
            for optimizer in axes.optimizers:
                for base in (axes.bases or [DEFAULT_BASE]) if OPTIMIZERS[optimizer].has_base else [""]:
                    for method in axes.methods:
                        record = PRUNERS[method]
                        for variant in (axes.variants or [DEFAULT_VARIANT]) if record.has_variant else [""]:
                            for sparsity in axes.sparsities if record.sparse else [0.0]:
                                for seed in axes.seeds:
                                    yield RunSpec(model, dataset, optimizer, method, variant, base, sparsity, seed)


def impossible(s: RunSpec, options: PruningOptions) -> str | None:
    """Why a cell cannot be run, or None."""
    optim, method = OPTIMIZERS[s.optimizer], PRUNERS[s.pruning_method]
    pair = f"{s.optimizer} x {s.pruning_method}"
    if optim.pairs_with is not None and method.name not in optim.pairs_with:
        return f"{pair}: {s.optimizer} pairs only with {' and '.join(sorted(optim.pairs_with))}"
    if method.pairs_with is not None and optim.name not in method.pairs_with:
        return f"{pair}: {s.pruning_method} pairs only with {' and '.join(sorted(method.pairs_with))}"
    owner = optim.state_owner(s.adamwprune_base)
    if missing := needs(s) - owner.keeps:
        who = s.adamwprune_variant or s.pruning_method
        return (
            f"{pair}: {who} reads {', '.join(sorted(missing))}, and {owner.name} keeps "
            f"{', '.join(sorted(owner.keeps)) or 'nothing that a score can read'}"
        )
    if not method.sparse:
        return None
    takes, asked = distributions(s), options.pruning_distribution
    who = s.adamwprune_variant if own_distribution(s) else s.pruning_method
    if takes and asked not in ("global", *takes):
        return f"{who} x {asked}: it takes {' or '.join(takes)} as its distribution over the layers"
    if takes and takes[0] not in DISTRIBUTIONS and options.pruning_layer_floor:
        return f"{who} x PRUNING_LAYER_FLOOR={options.pruning_layer_floor:g}: its distribution, {takes[0]}, has none"
    return None


def needs(s: RunSpec) -> frozenset[str]:
    """The state tensors that a run's score reads."""
    return IMPORTANCE[s.adamwprune_variant].needs if s.adamwprune_variant else PRUNERS[s.pruning_method].needs


def own_distribution(s: RunSpec) -> str | None:
    """The distribution that a variant brings."""
    return IMPORTANCE[s.adamwprune_variant].distribution if s.adamwprune_variant else None


def distributions(s: RunSpec) -> tuple[str, ...] | None:
    """The distributions that a run can have, the first in the place of global; None is any."""
    own = own_distribution(s)
    return (own,) if own else PRUNERS[s.pruning_method].distributions


def distribution(s: RunSpec, options: PruningOptions) -> str:
    """The distribution that a run has."""
    takes, asked = distributions(s), options.pruning_distribution
    return takes[0] if takes and asked == "global" else asked


def exact(s: RunSpec, options: PruningOptions) -> RunSpec:
    """With the very sparsity of an N:M pattern where its first digits were given: 1:3 leaves no short decimal."""
    if not s.target_sparsity or distribution(s, options) != "nm":
        return s
    n, m = options.pattern()
    near = abs(s.target_sparsity - (1 - n / m)) < NEAR
    return replace(s, target_sparsity=1 - n / m) if near else s


def check_distribution(s: RunSpec, options: PruningOptions) -> None:
    """Raises InputError where a run's distribution cannot give the sparsity that is asked for."""
    if not PRUNERS[s.pruning_method].sparse:
        return
    if distribution(s, options) == "nm":
        n, m = options.pattern()
        if s.target_sparsity != 1 - n / m:
            raise InputError(
                f"TARGET_SPARSITY={s.target_sparsity!r}: PRUNING_DISTRIBUTION_NM with PRUNING_NM={n}:{m} is sparsity "
                f"{1 - n / m:.4g} and no other"
            )
        if options.pruning_layer_floor:
            raise InputError("PRUNING_LAYER_FLOOR with PRUNING_DISTRIBUTION_NM: an N:M pattern is a floor already")
    elif options.pruning_layer_floor + s.target_sparsity > 1:
        raise InputError(
            f"PRUNING_LAYER_FLOOR={options.pruning_layer_floor:g} keeps more of every layer than "
            f"TARGET_SPARSITY={s.target_sparsity:g} leaves: their sum must be at most 1"
        )


def check_used(axes: Axes, specs: list[RunSpec], left_out: list[str]) -> None:
    """Every member of every axis must end in a run."""
    members = [  # variants and methods first: where one is impossible, it is the reason that an optimizer has no run
        ("ADAMWPRUNE_VARIANT", axes.variants, {s.adamwprune_variant for s in specs}),
        ("PRUNING_METHOD", axes.methods, {s.pruning_method for s in specs}),
        ("OPTIMIZER", axes.optimizers, {s.optimizer for s in specs}),
        ("ADAMWPRUNE_BASE", axes.bases, {s.adamwprune_base for s in specs}),
    ]
    for axis, wanted, used in members:
        for member in wanted:
            if member not in used:
                why = next((r for r in left_out if member in re.split(r"[ :]", r)), "nothing that is set uses it")
                raise InputError(f"{axis}_{member.upper()} ends in no run: {why}")


def name(config: Config, axes: Axes, specs: list[RunSpec]) -> list[RunSpec]:
    """Give every run its id. RUN_ID names the run of a matrix of one."""
    varies = {
        "base": len(axes.bases) > 1,
        "seed": len(axes.seeds) > 1,
    }
    named = [
        replace(s, id=identify(s, dataset=len(axes.datasets[s.model]) > 1, **varies)) for s in specs
    ]  # fmt: skip
    given = config.get("RUN_ID", "")
    if not given:
        return named
    if len(named) > 1:
        raise InputError(f"{config.where('RUN_ID')} names one run, and this matrix has {len(named)}: clear RUN_ID")
    if not RUN_ID.fullmatch(given) or given.startswith("."):
        raise InputError(f"{config.where('RUN_ID')}: use lower-case letters, digits, '_', '.' and '-'")
    if given in OWN:
        raise InputError(f"{config.where('RUN_ID')}: the matrix itself writes {', '.join(OWN)}: take another name")
    return [replace(named[0], id=given)]


def defaults(axes: Axes) -> Iterator[str]:
    if any(OPTIMIZERS[o].has_base for o in axes.optimizers):
        if not axes.bases:
            yield f"no ADAMWPRUNE_BASE_* is set: {DEFAULT_BASE} is taken"
        if any(PRUNERS[m].has_variant for m in axes.methods) and not axes.variants:
            yield f"no ADAMWPRUNE_VARIANT_* is set: {DEFAULT_VARIANT} is taken"


def pin(config: Config, spec: RunSpec) -> Config:
    """The config narrowed to one run: `expand(pin(config, spec)) == [spec]`. RESULTS is cleared: it says where the
    matrix was written, and would stop the run from being repeated."""
    values = {"RUN_ID": spec.id, "SEEDS": f"{spec.seed},", "RESULTS": ""}
    values["TARGET_SPARSITY"] = repr(spec.target_sparsity) if spec.target_sparsity else ""
    chosen = {
        "MODEL": spec.model,
        f"{spec.model.upper()}_DATASET": spec.dataset,
        "OPTIMIZER": spec.optimizer,
        "PRUNING_METHOD": spec.pruning_method,
        "ADAMWPRUNE_VARIANT": spec.adamwprune_variant,
        "ADAMWPRUNE_BASE": spec.adamwprune_base,
    }
    for axis, member in chosen.items():
        for other in config.members(axis):
            values[f"{axis}_{other.upper()}"] = "y" if other == member else "n"
    return config.replace(values)
