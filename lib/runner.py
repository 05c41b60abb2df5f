"""A matrix from configuration to report: plan, run, continue. No torch here: runs are jobs of an executor."""

import contextlib
import subprocess
import sys
from pathlib import Path

from lib import child_environment, hyper, report, results
from lib.config import Config, InputError, write_atomic
from lib.data.base import DATASETS, MissingData
from lib.describe import pruning_schedule
from lib.estimate import PROBE_FROM_S, describe_costs
from lib.executor.base import EXECUTORS, ExecutorOptions, Job
from lib.fallback import make_run, note_uncompiled, run_jobs
from lib.files import read_tail
from lib.matrix import Plan, check_distribution
from lib.matrix import plan as make_plan
from lib.monitor.client import MonitorOptions
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PruningOptions
from lib.resolve import (
    check_devices,
    check_sharding,
    lengths,
    resolve,
    settle_compiling,
)
from lib.rundir import ROOT, RunDir, config_changed, locked, new_root, place, read_origin
from lib.sanitize import printable_text
from lib.spec import RunSpec
from lib.wrap import print_lines

# What every run imports, and a data set's own; a fork inherits them.
IMPORTS = ("torch", "pydantic", "lib.main", "lib.runner", "lib.trainer", "lib.task")
COMPILER_OF_TORCH = "torch._dynamo"  # over a second to import


class Failures(Exception):
    """Some runs did not finish; the message lists them."""


def check(config: Config) -> Plan:
    """Expand, and make everything that can be wrong with a run wrong now: settings, schedules."""
    plan = make_plan(config)
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


def prepare(config: Config) -> Path:
    """Check everything, then make the results directory with every run's own directory in it."""
    config = resolve(config)
    plan = check(config)
    config, reasons = settle_compiling(config, plan.specs)
    require_data(config, plan)
    root = new_root(config["RESULTS"], config)
    note_uncompiled(root, config, reasons)
    for spec in plan.specs:
        make_run(root, config, RunDir(root / spec.id), spec)
    return root


def require_data(config: Config, plan: Plan) -> None:
    """Every data set of the plan is there and whole, or is downloaded now."""
    folder = place(config["DATA_DIR"])
    for name in dict.fromkeys(s.dataset for s in plan.specs):
        try:
            DATASETS[name].check(folder)
        except MissingData as missing:
            print_lines(f"{DATASETS[name].title} is not in {folder}: downloading ...", sys.stderr)
            command = [
                sys.executable,
                str(ROOT / "scripts" / "data.py"),
                "--reason-only",
                "--data-dir",
                str(folder),
                name,
            ]
            if subprocess.run(command, env=child_environment()).returncode:
                raise MissingData(str(missing)) from None


def run(config: Config) -> Path:
    """The whole matrix of a config, in a new results directory."""
    root = prepare(config)
    print(f"results: {root}", flush=True)
    for line in describe_costs(Config.load(root / "config"), check(config), PROBE_FROM_S):
        print_lines(line)
    execute(root)
    return root


def pending(root: Path, failed_only: bool = False) -> list[RunDir]:
    """Runs of a directory that have not finished or are damaged, in order; failed_only: without those that were not
    started or were interrupted."""
    specs = make_plan(Config.load(root / "config")).specs
    found = {s.id: results.read_run(root, s) for s in specs}
    for r in filter(None, found.values()):
        if r.status == "damaged":
            print_lines(f"{r.id}: {r.reason}", sys.stderr)
    again = ("failed", "damaged") if failed_only else ("failed", "damaged", "interrupted")
    todo = [n for n, r in found.items() if (r.status in again if r else not failed_only)]
    return [RunDir(root / n) for n in todo]


def execute(root: Path, failed_only: bool = False) -> None:
    """Run what is pending, write the report whatever happens, and raise Failures where a run did not finish."""
    from lib.terminal import show_report

    with locked(root):
        refuse_changed(root)
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


def refuse_changed(root: Path) -> None:
    """Raise InputError where the matrix of a directory is not the one that it was made for."""
    if problem := config_changed(root, read_origin(root)):
        raise InputError(
            f"{root}/{problem}: its runs would be of two matrices. Put it back as it was, or start another: "
            f"cp {root}/config .config && make"
        )


def require_root(root: Path) -> None:
    if not root.is_dir():
        raise InputError(f"{root} has vanished while its matrix ran, and the runs in it with it: start it again")


def run_pending(root: Path, plan: Plan, failed_only: bool) -> None:
    from lib.progress import Progress

    config = Config.load(root / "config")
    require_data(config, plan)
    todo = pending(root, failed_only)
    config, reasons = settle_compiling(config, [spec_of(plan, d) for d in todo])
    note_uncompiled(root, config, reasons)  # what could be compiled when a continued directory was begun no longer can
    todo = [d for d in todo if made_ready(root, config, d, spec_of(plan, d))]
    work, imports = jobs(root, todo)
    costs = relative_costs(config, [spec_of(plan, d) for d in todo])
    with Progress(len(work), costs) as progress:
        executor = EXECUTORS[config.read(ExecutorOptions).executor](imports=imports, poll=progress.poll)
        try:
            for job, status in run_jobs(root, executor, work, progress.restart):
                require_root(root)
                explain(RunDir(job.run_dir), status)
                progress.ended(job, status)
        except BaseException:
            with contextlib.suppress(InputError):  # which would hide what ended the matrix
                report.write(results.load(root), graphs=False)  # an interrupt should not wait for pictures
            raise


def made_ready(root: Path, config: Config, run: RunDir, spec: RunSpec) -> bool:
    """Whether a run can begin: its directory is there, without an earlier attempt. What stands in its way is said, and
    costs no other run."""
    try:
        make_run(root, config, run, spec)
        run.clear()
    except InputError as e:
        print(printable_text(f"{spec.id} cannot be trained: {e}"), file=sys.stderr, flush=True)
        return False
    return True


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
    if status.state == "done" or d.error.exists() or d.summary.exists():
        return
    tail = read_tail(d.log)[-20:]
    what = (
        "stopped: it took longer than RUN_TIMEOUT" if status.state == "timeout" else f"ended with status {status.code}"
    )
    write_atomic(d.error, "\n".join([*tail, what]) + "\n")
