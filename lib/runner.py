"""A matrix from configuration to report: plan, run, continue. No torch here: runs are jobs of an executor."""

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lib import hyper, provenance, report, results
from lib.config import Config, InputError
from lib.data.base import DATASETS, MissingData
from lib.executor.base import EXECUTORS, ExecutorOptions, Job
from lib.matrix import Plan, check_distribution
from lib.matrix import plan as make_plan
from lib.monitor.client import MonitorOptions
from lib.optim.base import OPTIMIZERS, UpdateOptions
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.schedule import schedule
from lib.resolve import (
    COMPILED_FROM,
    check_compiler,
    check_devices,
    check_sharding,
    lengths,
    parameters,
    pinned,
    resolve,
)
from lib.rundir import ROOT, RunDir, checked, locked, new_root, newest, place
from lib.spec import RunSpec

# What every run imports, and a data set's own; a fork inherits them.
IMPORTS = ("torch", "lib.main", "lib.runner", "lib.trainer", "lib.task")
COMPILER_OF_TORCH = "torch._dynamo"  # over a second to import
GFLOPS = 6.0  # training arithmetic a core does a second on small images: a guess until runs are recorded


class Failures(Exception):
    """Some runs did not finish; the message lists them."""


def check(config: Config) -> Plan:
    """Expand, and make everything that can be wrong with a run wrong now: settings, schedules."""
    plan = make_plan(config)
    check_compiler(config)
    check_devices(config)
    for options in (hyper.Training, MonitorOptions, ExecutorOptions):
        config.read(options)
    for spec in plan.specs:
        hyper.warmup_steps(spec.model, hyper.read_recipe(config, spec.model, spec.dataset), lengths(config, spec))
        for name in filter(None, (spec.optimizer, spec.adamwprune_base)):
            for options in OPTIMIZERS[name].options:
                config.read(options)
        check_distribution(spec, config.read(PruningOptions))
        check_sharding(config, spec)
        pruning_schedule(config, spec)
    return plan


def pruning_schedule(config: Config, spec: RunSpec):
    if not PRUNERS[spec.pruning_method].sparse:
        return None
    resets = OPTIMIZERS[spec.optimizer].resets(config.read, spec.adamwprune_base)
    length = lengths(config, spec)
    own = PRUNERS[spec.pruning_method].schedule
    return schedule(config.read(PruningOptions), spec.target_sparsity, length.steps, length.scale, resets, own)


def describe(config: Config, plan: Plan) -> Iterator[str]:
    """The plan for a person: runs, what was left out and why, defaults taken, notes, and an estimate."""
    yield f"{len(plan.specs)} run{'s' * (len(plan.specs) != 1)}:"
    width = max(len(s.id) for s in plan.specs)
    for spec in plan.specs:
        length = lengths(config, spec)
        yield f"  {spec.id:<{width}}  {length.steps} steps, {length.evaluations} evaluations on {spec.dataset}"
    if plan.left_out:
        yield "left out:"
        yield from (f"  {why}" for why in plan.left_out)
    for note in [*plan.notes, *notes(config, plan)]:
        yield f"note: {note}"
    yield estimate(config, plan)


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


def estimate(config: Config, plan: Plan) -> str:
    """Time for the whole matrix: from runs of the same model, data, batch and threads here, else from arithmetic."""
    known, seconds, guessed = recorded_costs(), 0.0, False
    threads = config.read(hyper.Training).num_threads or provenance.cores()
    for spec in plan.specs:
        length, recipe = lengths(config, spec), hyper.read_recipe(config, spec.model, spec.dataset)
        cost = known.get((spec.model, spec.dataset, recipe.batch_size, threads))
        if cost is None:
            guessed = True
            work = int(config[f"{spec.model.upper()}_MFLOP"]) * 1e6 * recipe.batch_size
            cost = work / (GFLOPS * 1e9 * threads), 0.0
        seconds += length.steps * cost[0] + (length.evaluations + 1) * cost[1]
    how = "a guess from the arithmetic on this CPU; runs here will sharpen it" if guessed else "from runs recorded here"
    return f"estimate: about {duration(seconds)} of running ({how})"


def recorded_costs() -> dict[tuple, tuple[float, float]]:
    """(model, data set, batch, threads) -> seconds a step and seconds an evaluation: medians over the newest results,
    so that one busy hour does not speak for the machine."""
    found: dict = {}
    for root in newest()[:8]:
        with contextlib.suppress(InputError, KeyError):
            for r in checked(root / "all_results.json")["runs"]:
                if r["status"] == "done":
                    key = r["model"], r["dataset"], r["batch_size"], r["threads"]
                    other = (r["elapsed_s"] - r["train_s"]) / (r["epochs"] + 1)
                    found.setdefault(key, []).append((r["train_s"] / r["steps"], other))
    return {k: tuple(map(statistics.median, zip(*v, strict=True))) for k, v in found.items()}


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def prepare(config: Config) -> Path:
    """Check everything, then make the results directory with every run's own directory in it."""
    config = resolve(config)
    plan = check(config)
    require_data(config, plan)
    root = new_root(config["RESULTS"], config)
    for spec in plan.specs:
        RunDir(root / spec.id).create(pinned(config, spec), spec)
    return root


def require_data(config: Config, plan: Plan) -> None:
    """Every data set of the plan is there and whole, or is downloaded now."""
    folder = place(config["DATA_DIR"])
    for name in dict.fromkeys(s.dataset for s in plan.specs):
        try:
            DATASETS[name].check(folder)
        except MissingData as missing:
            print(f"{missing}\ndownloading {DATASETS[name].title} ...", file=sys.stderr, flush=True)
            command = [sys.executable, str(ROOT / "scripts" / "data.py"), "--data-dir", str(folder), name]
            if subprocess.run(command).returncode:
                raise InputError(str(missing)) from None


def run(config: Config) -> Path:
    """The whole matrix of a config, in a new results directory."""
    root = prepare(config)
    print(f"results: {root}", flush=True)
    execute(root)
    return root


def pending(root: Path, failed_only: bool = False) -> list[RunDir]:
    """Runs of a directory that have not finished, in order."""
    dirs = [RunDir(root / s.id) for s in make_plan(Config.load(root / "config")).specs]
    return [d for d in dirs if not d.finished and (d.error.exists() or not failed_only)]


def execute(root: Path, failed_only: bool = False) -> None:
    """Run what is pending, write the report whatever happens, and raise Failures where a run did not finish."""
    from lib.terminal import show_report

    with locked(root):
        plan = make_plan(Config.load(root / "config"))
        try:
            run_pending(root, plan, failed_only)
        except KeyboardInterrupt:
            where = root.relative_to(ROOT) if root.is_relative_to(ROOT) else root
            print(f"\nfinished runs are kept: `make continue RESULTS={where}` does the rest", file=sys.stderr)
            raise
        print("writing the report and its graphs ...", file=sys.stderr, flush=True)
        found = results.load(root)
        show_report(found, report.write(found))
    bad = [f"{r.id}: {r.status}{': ' + r.reason if r.reason else ''}" for r in found if r.status != "done"]
    bad += [f"{name}: not run" for name in found.missing]
    if bad:
        raise Failures("\n".join([f"{len(bad)} of {len(plan.specs)} runs did not finish:", *(f"  {b}" for b in bad)]))


def run_pending(root: Path, plan: Plan, failed_only: bool) -> None:
    from lib.progress import Progress

    config = Config.load(root / "config")
    require_data(config, plan)
    todo = pending(root, failed_only)
    for d in todo:
        d.create(pinned(config, spec_of(plan, d)), spec_of(plan, d)).clear()
    work, imports = jobs(root, todo)
    costs = relative_costs(config, [spec_of(plan, d) for d in todo])
    with Progress(len(work), costs) as progress:
        executor = EXECUTORS[config.read(ExecutorOptions).executor](imports=imports, poll=progress.poll)
        try:
            for job, status in executor.run(work):
                explain(RunDir(job.run_dir), status)
                progress.ended(job, status)
        except BaseException:
            report.write(results.load(root), graphs=False)  # an interrupt should not wait for pictures
            raise


def relative_costs(config: Config, specs: list[RunSpec]) -> dict[str, float]:
    """Return the arithmetic of each run by its id, in MFLOP: the time that is left of a matrix is shared out by it."""
    found = {}
    for spec in specs:
        per_step = (
            int(config[f"{spec.model.upper()}_MFLOP"]) * hyper.read_recipe(config, spec.model, spec.dataset).batch_size
        )
        found[spec.id] = float(lengths(config, spec).steps * per_step)
    return found


def jobs(root: Path, todo: list[RunDir]) -> tuple[list[Job], tuple[str, ...]]:
    """The jobs of these runs, and the modules worth importing once for all of them."""
    config = Config.load(root / "config")
    plan, options = make_plan(config), config.read(ExecutorOptions)
    found = [
        Job(d.path, (str(ROOT / spec_of(plan, d).model / "train.py"), "--run", str(d.path)), options.run_timeout)
        for d in todo
    ]
    imports = [*IMPORTS, *(m for s in plan.specs for m in DATASETS[s.dataset].imports)]
    if any(c["UPDATE_COMPILED"] == "y" or c["COMPILE_YES"] == "y" for c in (Config.load(d.config) for d in todo)):
        imports.append(COMPILER_OF_TORCH)
    return found, tuple(dict.fromkeys(imports))


def spec_of(plan: Plan, d: RunDir) -> RunSpec:
    return next(s for s in plan.specs if s.id == d.path.name)


def explain(d: RunDir, status) -> None:
    """A run that could not say itself why it failed (killed, out of memory, timed out) gets its error.txt here."""
    if status.state == "done" or d.error.exists() or d.finished:
        return
    tail = d.log.read_text(errors="replace").splitlines()[-20:] if d.log.exists() else []
    what = (
        "stopped: it took longer than RUN_TIMEOUT" if status.state == "timeout" else f"ended with status {status.code}"
    )
    d.error.write_text("\n".join([*tail, what]) + "\n")
