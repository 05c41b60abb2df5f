"""Runs without torch.compile: what a results directory says of it, and what becomes of one in which compiling fails
though the trial before its runs went well."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lib.compiling import remember_failure
from lib.config import Config
from lib.executor.base import Job, Status
from lib.files import read_tail
from lib.resolve import FORMS, choose, device_kind, pinned
from lib.rundir import RunDir, amend_origin, read_origin
from lib.sanitize import printable_line
from lib.spec import RunSpec
from lib.wrap import print_lines

LINE = 'torch.compile cannot be used here for the {form}: {reason}; without it: SET="{symbol}=y"'
READ = re.compile(r'torch\.compile cannot be used here for the (\w+): (.*); without it: SET="\w+=y"')


def failure_line(form: str, reason: str) -> str:
    """Return the last line of a run's error.txt, where it could not compile a form."""
    return LINE.format(form=form, reason=reason, symbol=f"{FORMS[form].choice}_{FORMS[form].plain.upper()}")


def read_failure(run: RunDir) -> tuple[str, str] | None:
    """Return the form that a run could not compile, and why; None where it failed of something else or did not."""
    found = READ.fullmatch((read_tail(run.error) or [""])[-1])
    return (found[1], found[2]) if found and found[1] in FORMS else None


def note_uncompiled(root: Path, config: Config, reasons: dict[str, str]) -> None:
    """Write down, and say, why AUTO does without compiling in a results directory, whose config is now this one."""
    if not reasons:
        return
    config.write(root / "config", says(read_origin(root).not_compiled | reasons))
    amend_origin(root, not_compiled=read_origin(root).not_compiled | reasons)
    for line in says(reasons):
        print_lines(line, sys.stderr)


def says(reasons: dict[str, str]) -> list[str]:
    return [
        printable_line(f"{choice}_AUTO does without torch.compile, which cannot be used here: {reason}")
        for choice, reason in reasons.items()
    ]


def make_run(root: Path, config: Config, run: RunDir, spec: RunSpec) -> None:
    """Write the config of one run of a directory, headed by what it does without, and its spec."""
    run.create(pinned(config, spec), spec, says(read_origin(root).not_compiled))


def go_without(root: Path, failed: RunDir, others: Iterable[RunDir]) -> bool:
    """Turn a directory, this run and others that have not begun to what does without the form that the run could not
    compile. Return whether it is to be run again: not where it failed of something else, or where the form is asked
    for by name."""
    found, config = read_failure(failed), Config.load(root / "config")
    if not found:
        return False
    form, known = FORMS[found[0]], read_origin(root).not_compiled
    if form.chosen(config) != "auto" and form.choice not in known:
        return False
    if form.choice not in known:
        trial = remember_failure(found[0], device_kind(config), found[1], "\n".join(read_tail(failed.error)))
        config = choose(config, form.choice, form.plain)
        log = f"; traceback: {trial.log}" if trial.log else ""
        reason = f"{found[1]} (in {failed.path.name}, after a trial that went well{log})"
        note_uncompiled(root, config, {form.choice: reason})
    for run in (failed, *others):
        make_run(root, config, run, run.spec())
    failed.clear()
    return True


def run_jobs(root: Path, executor, jobs: list[Job], restart: Callable[[Job], None]) -> Iterator[tuple[Job, Status]]:
    """Run jobs, and those of them once more that `go_without`, after the others; yield each when it has ended.
    restart(job) is called for one that will be run again."""
    left, again = list(jobs), []
    for job, status in executor.run(jobs):
        left.remove(job)
        # What has begun keeps the config that it was started with.
        waiting = [run for run in (RunDir(j.run_dir) for j in left) if not run.metrics.exists()]
        if status.state == "failed" and root.is_dir() and go_without(root, RunDir(job.run_dir), waiting):
            restart(job)
            again.append(job)
        else:
            yield job, status
    if again:
        yield from executor.run(again)
