"""What a plan says of its runs before they begin: length, data, memory, time. No torch.

Time rests on finished runs of the same kind here; else on a few steps measured on this device (lib/probe.py), which
are kept in the user's cache folder; else on a guess from the arithmetic, which is called one.
"""

import contextlib
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import ROOT, hyper, ledger, provenance
from lib.cache import read_cache, write_cache
from lib.config import Config, InputError
from lib.data.base import DATASETS, MissingData
from lib.files import read_record
from lib.matrix import Plan
from lib.monitor.base import BACKENDS
from lib.peak import peak_flops
from lib.records import AllResults
from lib.resolve import choose, lengths, parameters, pinned, resolve, trains_on_gpu
from lib.rundir import RunDir, newest, place
from lib.sanitize import printable_line
from lib.spec import RunSpec

KIND, SCHEMA = "steps", 1  # of what is kept in the cache
PROBE_FROM_S = 20.0  # of steps to come, from where on `make` measures some first; that takes some seconds itself
PROBE_S = 60  # a probe takes seconds; on a machine that is busy with other work it is given up after so many
PROBED_RECIPE = "batch_size micro_batch eval_batch_size augment stem size tokenizer block eval_tokens".split()
RECORDED_FROM = 100  # steps of a finished run, from which on its time stands for others
# Guesses. A core of a CPU: GFLOP/s in training, of a small network (up to SMALL parameters) and of a larger one.
# (Two cores with AVX-512: LeNet-5 18, GPT-2 tiny 57, ResNet-18 102; docs/results/models.json.)
SMALL, SMALL_GFLOPS, LARGE_GFLOPS = 100_000, 18.0, 60.0
# A GPU: the share of its bf16 peak that training reaches; the peak where the table has none; fp32 by bf16; and what a
# micro-batch takes at least, however small, for its kernels have to be launched.
TEXT_MFU, IMAGE_MFU, UNKNOWN_PEAK, FP32, LAUNCHES_S = 0.35, 0.15, 1e14, 1 / 15, 0.004
START_S, LOAD_S = 1.5, 2.0  # of a run: its process, model and monitor; its data, where that was not measured
GRAPHS_S = 2.0  # of a run, in the report's figures
LONG_S, SHORT_S = 48 * 3600, 24 * 3600  # from where on a shorter matrix is suggested, and how short
FEW = 100  # steps, which show little
WIDEST = 0.5  # of this machine's memory, that a probe may take
MIB = 1024 * 1024


class ProbeFailed(Exception):
    """Nothing was measured; the message says why."""


@dataclass(frozen=True)
class Cost:
    """What the runs of one model on one data set take. source: "recorded", "measured" or "guess". activations: bytes
    that a backward pass of a micro-batch needs; share: the part of a micro-batch that was measured; problem: why
    measuring failed."""

    step_s: float
    evaluation_s: float
    start_s: float
    source: str
    activations: int | None = None
    parameters: int | None = None
    prunable: int | None = None
    share: float = 1.0
    busy: bool = False
    problem: str = ""

    def run_s(self, length: hyper.Length, sparse: bool) -> float:
        """Seconds of a run: start, steps, validations, and the tests of its last and best weights."""
        tests = 3 if sparse else 2  # of a larger split than validation, as a rule
        return self.start_s + length.steps * self.step_s + (length.evaluations + tests) * self.evaluation_s


@dataclass(frozen=True)
class Group:
    """The runs of one model on one data set, which cost about the same, and the config that each of them will have."""

    specs: tuple[RunSpec, ...]
    config: Config

    @property
    def spec(self) -> RunSpec:
        return self.specs[0]

    @property
    def name(self) -> str:
        return f"{self.spec.model} on {self.spec.dataset}"

    @property
    def recipe(self) -> hyper.Recipe:
        return hyper.read_recipe(self.config, self.spec.model, self.spec.dataset)


def groups(config: Config, specs: Iterable[RunSpec]) -> list[Group]:
    """The runs by model and data set, in order."""
    found: dict[tuple, list[RunSpec]] = {}
    for spec in specs:
        found.setdefault((spec.model, spec.dataset), []).append(spec)
    settled = resolve(config)
    return [Group(tuple(members), pinned(settled, members[0])) for members in found.values()]


def describe_costs(config: Config, plan: Plan, probe: float | None = None) -> Iterator[str]:
    """Data that is missing, memory and start of a run, and the time of the whole matrix. A few steps of each model are
    measured first where they are not known and are guessed to take more than `probe` seconds in all; None: never; 0:
    also where the machine was busy when they were measured."""
    yield from missing_data(config, plan)
    found = [(group, cost(group, probe)) for group in groups(config, plan.specs)]
    for group, known in found:
        yield memory_line(group, known)
    total = sum(
        known.run_s(lengths(group.config, s), s.target_sparsity > 0) for group, known in found for s in group.specs
    )
    starts = sum(known.start_s * len(group.specs) for group, known in found)
    total += GRAPHS_S * len(plan.specs)
    yield f"start-up: about {duration(starts / len(plan.specs))} a run, {duration(starts)} in all"
    yield f"estimate: about {duration(total)} of running"
    yield from dict.fromkeys(f"  {basis(g, c)}" for g, c in found)
    if total > LONG_S:
        yield shorter(config, found, total)


def missing_data(config: Config, plan: Plan) -> Iterator[str]:
    """Each data set that is not there, or not whole, and what will be done about it."""
    folder = place(config["DATA_DIR"])
    for name in dict.fromkeys(s.dataset for s in plan.specs):
        try:
            DATASETS[name].check(folder)
        except MissingData as e:
            yield f"missing data: {e}"
        except InputError as e:
            yield f"data, without which no run begins: {e}"


def cost(group: Group, probe: float | None = None) -> Cost:
    """The best that is known of a group's runs."""
    known = recorded_costs().get(run_key(group))
    guess = measured_cost(read_cache(KIND, probe_key(group)) or {}) or guessed(group)
    unknown = guess.source == "guess" or guess.busy and probe == 0  # which asks for a better measurement
    if unknown and probe is not None and known is None and work_s(group, guess) > probe:
        try:
            guess = measured_cost(run_probe(group)) or guess
        except ProbeFailed as e:
            guess = dataclasses.replace(guess, problem=str(e))
    if known is not None:
        return dataclasses.replace(guess, step_s=known[0], evaluation_s=known[1], source="recorded")
    return guess


def measured_cost(found: dict) -> Cost | None:
    """What a probe found; None where it is not what a probe writes."""
    numbers = ("step_s", "evaluation_s", "activations", "parameters", "prunable", "share")
    values = {name: found.get(name) for name in numbers}
    if not all(type(v) in (int, float) and 0 <= v < math.inf for v in values.values()) or not values["step_s"]:
        return None
    load = found.get("load_s")
    load = load if type(load) in (int, float) and 0 <= load < math.inf else LOAD_S
    return Cost(start_s=START_S + load, source="measured", busy=found.get("busy") is True, **values)


def work_s(group: Group, known: Cost) -> float:
    """Seconds that all steps and validations of a group's runs take."""
    found = (lengths(group.config, spec) for spec in group.specs)
    return sum(n.steps * known.step_s + n.evaluations * known.evaluation_s for n in found)


def device_name(config: Config) -> str:
    """What a run trains on, as the monitor and the system name it."""
    if trains_on_gpu(config):
        found = BACKENDS["nvidia"].devices() if BACKENDS["nvidia"].probe() else []
        return (found[0].name if found else None) or "GPU"
    return provenance.cpu_name()


def threads(config: Config) -> int:
    return config.read(hyper.Training).num_threads or provenance.cores()


def probe_key(group: Group) -> dict:
    """What measured steps depend on: device, versions, and the settings that change the work."""
    training, recipe = group.config.read(hyper.Training), dataclasses.asdict(group.recipe)
    return {
        "schema": SCHEMA,
        "device": device_name(group.config),
        "threads": threads(group.config),
        "versions": provenance.collect().versions,
        "model": group.spec.model,
        "dataset": group.spec.dataset,
        "precision": training.precision,
        "devices": training.ddp_num_gpus,
        "hyper_param_auto": training.hyper_param_auto,
        **{name: recipe[name] for name in PROBED_RECIPE},
    }


def run_probe(group: Group) -> dict:
    """Measure a few steps in a process of its own, and keep what comes out. Raises ProbeFailed where nothing does."""
    if too_large(group):
        raise ProbeFailed("too large for this machine's memory")
    config = choose(choose(group.config, "UPDATE", "eager"), "COMPILE", "no")  # compiling takes a minute
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / group.spec.id).create(config, group.spec)
        command = [sys.executable, str(ROOT / group.spec.model / "train.py"), "--run", str(run.path), "--probe"]
        env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # threads that spin would measure themselves
        print(f"measuring a few steps of {group.name} ...", file=sys.stderr, flush=True)
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=PROBE_S, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise ProbeFailed(f"took over {PROBE_S} s") from None
        except OSError as e:
            raise ProbeFailed(str(e)) from None
    found = probe_output(done)
    write_cache(KIND, probe_key(group), found)
    return found


def probe_output(done: subprocess.CompletedProcess) -> dict:
    """Return what a probe printed as its last line; raise ProbeFailed with the last line of its errors where that is
    nothing."""
    with contextlib.suppress(ValueError, IndexError):
        found = json.loads(done.stdout.splitlines()[-1])
        if done.returncode == 0 and isinstance(found, dict) and measured_cost(found):
            return found
    if done.returncode:
        said = [line for line in map(printable_line, done.stderr.split("\n")) if line]
        raise ProbeFailed(said[-1] if said else f"it ended with status {done.returncode}")
    raise ProbeFailed("it printed no measurement")


def too_large(group: Group) -> bool:
    """Whether weights, gradients and state alone would take much of this machine's memory; never on a GPU, where a run
    that does not fit says so."""
    if trains_on_gpu(group.config):
        return False
    host = BACKENDS["cpu"].devices() if BACKENDS["cpu"].probe() else []
    total = host[0].memory_total if host else None
    return bool(total) and sum(predicted(group, group.spec, None).values()) > WIDEST * total * MIB


def guessed(group: Group) -> Cost:
    """From the arithmetic of a sample (`<MODEL>_MFLOP`) and what such devices do a second."""
    recipe, training = group.recipe, group.config.read(hyper.Training)
    flop = 1e6 * int(group.config[f"{group.spec.model.upper()}_MFLOP"])
    text = recipe.eval_interval > 0
    if trains_on_gpu(group.config):
        peak = peak_flops(device_name(group.config), "bf16") or UNKNOWN_PEAK
        peak *= 1.0 if training.precision == "bf16" else FP32
        speed, least = peak * (TEXT_MFU if text else IMAGE_MFU) * training.ddp_num_gpus, LAUNCHES_S
    else:
        small = parameters(group.config, group.spec) <= SMALL
        speed, least = 1e9 * (SMALL_GFLOPS if small else LARGE_GFLOPS) * threads(group.config), 0.0
    step = max(least, recipe.batch_size * flop / speed)
    samples = -(-recipe.eval_tokens // recipe.block) if text else DATASETS[group.spec.dataset].sizes["validation"]
    return Cost(step, max(least, samples * flop / 3 / speed), START_S + LOAD_S, "guess")  # forward alone: a third


def run_key(group: Group) -> tuple:
    """What a finished run must share with these for its time to stand for theirs."""
    training = group.config.read(hyper.Training)
    device, cores = device_name(group.config), threads(group.config)
    return group.spec.model, group.spec.dataset, group.recipe.batch_size, cores, device, training.precision


def recorded_costs() -> dict[tuple, tuple[float, float]]:
    """`run_key` -> seconds a step and seconds an evaluation: medians over the newest results, so that one busy hour
    does not speak for the machine."""
    found: dict = {}
    for root in newest()[:8]:
        with contextlib.suppress(InputError, FileNotFoundError):
            for r in read_record(AllResults, root / "all_results.json").runs:
                if r.status == "done" and r.steps >= RECORDED_FROM:
                    key = r.model, r.dataset, r.batch_size, r.threads, r.device, r.precision
                    other = (r.elapsed_s - r.train_s) / (r.epochs + 1)
                    found.setdefault(key, []).append((r.train_s / r.steps, other))
    return {k: tuple(map(statistics.median, zip(*v, strict=True))) for k, v in found.items()}


def predicted(group: Group, spec: RunSpec, known: Cost | None) -> dict[str, int]:
    """The ledger's prediction for a run: class -> bytes."""
    fact = f"{spec.model.upper()}_PRUNABLE"
    whole = known and known.parameters or parameters(group.config, spec)
    prunable = known.prunable if known and known.prunable is not None else int(group.config[fact])
    return ledger.predict(spec, group.config, whole, prunable)


def memory_line(group: Group, known: Cost) -> str:
    """What a run's tensors take while it trains: the ledger's prediction, and activations where they were measured."""
    sums = sorted(sum(predicted(group, s, known).values()) for s in group.specs)
    span = mib(sums[0]) if mib(sums[0]) == mib(sums[-1]) else f"{mib(sums[0])} to {mib(sums[-1])}"
    line = f"memory: {span} a run of {group.name}: weights, gradients, state, masks"
    if known.activations:
        return f"{line}\n  and {mib(known.activations)} of activations (measured)"
    if known.problem:
        return f"{line}\n  and activations, which could not be measured"
    return f"{line}\n  and activations, which `make plan PROBE=y` measures"


def basis(group: Group, known: Cost) -> str:
    """What an estimate rests on."""
    if known.source == "recorded":
        return f"from finished runs here, {seconds(known.step_s)} a step of {group.name}"
    if known.source == "guess":
        where = "this GPU" if trains_on_gpu(group.config) else "this CPU"
        how = f"measuring failed ({known.problem})" if known.problem else "`make plan PROBE=y` measures"
        return f"a guess from the arithmetic of {group.name} on {where}: {how}"
    part = "" if known.share == 1.0 else f", from {100 * known.share:.2g}% of a micro-batch"
    again = f"measuring again failed ({known.problem})" if known.problem else "`make plan PROBE=y` measures again"
    busy = f", while the machine was busy with other work: {again}" if known.busy else ""
    return f"measured here: {seconds(known.step_s)} a step of {group.name}{part}{busy}"


def shorter(config: Config, found: list[tuple[Group, Cost]], total: float) -> str:
    """A command that makes the matrix about a day long."""
    by_epochs = config.get("MAX_ITERS", "0") == "0"
    every = [(g, c, lengths(g.config, g.spec)) for g, c in found]
    longest = max(n.evaluations if by_epochs else n.steps for _, _, n in every)
    rest = sum((c.start_s + 2 * c.evaluation_s) * len(g.specs) for g, c, _ in every)
    share = (SHORT_S - rest) / (total - rest)
    count = rounded(longest * share)
    if by_epochs and count < 1:
        by_epochs, count = False, rounded(max(n.steps for _, _, n in every) * share)
    seeds = "" if config.get("SEEDS", "1") in ("1", "0,") else ", fewer SEEDS"
    if count < 1:
        return f"shorter: even a few steps of each run take over a day here: leave runs out{seeds}, or take a GPU"
    name = "EPOCHS" if by_epochs else "MAX_ITERS"
    gpu = ", or take a GPU" if not by_epochs and count < FEW else ""
    return f"shorter: `make {name}={count}` takes about a day; or leave runs out{seeds}{gpu}"


def rounded(value: float) -> int:
    """Down to one digit, and nought; up to nine as it is."""
    whole = max(0, int(value))
    unit = 10 ** (len(str(whole)) - 1)
    return whole // unit * unit


def mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB" if size < 10 * MIB else f"{size / MIB:,.0f} MiB" if size < 1e4 * MIB else gib(size)


def gib(size: float) -> str:
    return f"{size / MIB / 1024:.1f} GiB"


def seconds(value: float) -> str:
    return f"{1000 * value:.2g} ms" if value < 0.1 else f"{value:.2g} s" if value < 100 else duration(value)


def duration(value: float) -> str:
    """Seconds, minutes, hours or days, in the unit that a person would take."""
    if value < 90:
        return f"{max(1, round(value))} s"
    if value < 5400:
        return f"{value / 60:.0f} min"
    if value < LONG_S:
        return f"{value / 3600:.1f} h"
    return f"{value / 86400:,.0f} days" if value > 9.5 * 86400 else f"{value / 86400:.1f} days"
