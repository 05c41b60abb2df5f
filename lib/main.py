"""Where a model's train.py ends up: flags, `--config FILE` or `--run DIR` -> run directory -> Trainer."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable

from lib import allocator, cli, launch, missing, report, results, rundir
from lib.config import Config, InputError
from lib.data.base import MissingData, for_flags
from lib.matrix import expand
from lib.records import Interrupted
from lib.sanitize import printable_text
from lib.spec import RunSpec
from lib.wrap import print_lines


def main(model: str, make_task: Callable, argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the run failed or diverged, 2 bad input, 130 interrupted. The task is made, and torch
    imported, only when the flags are known to be right."""
    launch.listen()
    request = None
    try:
        request = cli.parse(model, sys.argv[1:] if argv is None else argv)
        try:
            task = make_task()
        except ModuleNotFoundError as e:
            return missing(e)
        if request.run:
            run = rundir.RunDir(request.run)
            config = Config.load(run.config)
            code = probe(task, config, run.spec()) if request.probe else one(task, run, config, run.spec())
        else:
            code = alone(task, request.config)
    except InputError as e:
        print_lines(printable_text(f"error: {e}"), sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    if code and request and request.run and launch.started() > 1:
        launch.end_process(code)
    return code


def probe(task, config: Config, spec: RunSpec) -> int:
    """Measure a few steps of a run, and print what they take as a line of JSON."""
    from lib.probe import measure

    print(json.dumps(measure(task, config, spec)))
    return 0


def alone(task, config: Config) -> int:
    """A run from flags: a matrix of one, in a results directory of its own, with its report."""
    from lib.fallback import go_without
    from lib.runner import prepare
    from lib.terminal import show_report

    if launch.started() > 1:
        raise InputError(
            "torchrun starts the processes of a run that has its directory: `-- train.py --run DIR`. With settings "
            "give --ddp-num-gpus N to train.py, which makes the directory and starts them itself"
        )
    specs = expand(config)
    if len(specs) != 1 or specs[0].model != task.name:
        ids = ", ".join(s.id for s in specs[:4])
        raise InputError(
            f"{task.name}/train.py trains one {task.name} run, and this is a matrix of {len(specs)} ({ids})"
        )
    try:
        root = prepare(config)
    except MissingData as e:
        raise InputError(for_flags(str(e))) from None
    run = rundir.RunDir(root / specs[0].id)
    print(f"results: {root}", flush=True)
    code = one(task, run, Config.load(run.config), specs[0])
    if code and go_without(root, run, ()):
        code = one(task, run, Config.load(run.config), specs[0])
    found = results.load(root)
    show_report(found, report.write(found))
    return code


def one(task, run: rundir.RunDir, config: Config, spec: RunSpec) -> int:
    """Train one run; what stops it is written where it is looked for."""
    if count := launch.devices(config):
        return launch.together(run, spec, count)
    allocator.fix_thresholds()
    from lib.fallback import failure_line
    from lib.trainer import train

    try:
        status = train(task, run, config, spec)
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt) or launch.INTERRUPTED.is_set():
            note_interrupt(run)
            raise KeyboardInterrupt from None
        if lost := uncompiled(e, config):
            traceback.print_exception(e)
            if failed(run, f"{traceback.format_exc()}{failure_line(*lost)}\n"):
                print(failure_line(*lost), file=sys.stderr)
            return 1
        if isinstance(e, InputError):
            if e.__cause__:
                traceback.print_exception(e)
            if failed(run, f"{e}\n"):
                raise
            return 2  # another process has said it
        if not run.path.is_dir():
            raise InputError(f"{run.path} has vanished while the run trained: what it wrote is lost") from None
        failed(run, traceback.format_exc())
        traceback.print_exc()
        return 1
    return 0 if status == "done" else 1


def uncompiled(error: BaseException, config: Config) -> tuple[str, str] | None:
    """The form that the error of a run is about, where it compiles that, and why it could not."""
    from lib.optim.kernel.inductor import uncompiled as compiler_says
    from lib.resolve import FORMS

    found = compiler_says(error)
    return found if found and FORMS[found[0]].chosen(config) == FORMS[found[0]].compiled else None


def note_interrupt(run: rundir.RunDir) -> None:
    """Write into a run's metrics that it was interrupted, once, unless its summary is there and vouches for them."""
    if os.environ.get("RANK", "0") == "0" and not run.summary.exists():
        with contextlib.suppress(InputError):
            rundir.append_metric(run.metrics, Interrupted())


def failed(run: rundir.RunDir, why: str) -> bool:
    """Of several processes the first to fail says why; the others lose their connections to it. Whether it was this."""
    try:
        with run.error.open("x") as f:
            f.write(why)
    except FileExistsError:
        return False
    except OSError as e:
        print(f"cannot write {run.error}: {e.strerror}", file=sys.stderr)
    return True
