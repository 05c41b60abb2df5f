"""What a person watches while a matrix runs: bars at every width, the time that is left, plain lines elsewhere."""

import io
import json
import os
import re
import sys

import pytest
from progress_demo import IDS, rows
from rich.cells import cell_len
from rich.console import Console
from screens import Screen, Terminal, needs_tmux

from lib import overrides
from lib.executor.base import Job, Status
from lib.forecast import Forecast, duration
from lib.ids import fold, shorten, shorten_ids
from lib.matrix import expand
from lib.progress import Bars, Progress
from lib.rundir import ROOT
from lib.runner import relative_costs

DEMO = ROOT / "tests" / "lib" / "progress_demo.py"
DONE, FAILED = Status("done", 0), Status("failed", 1)


class Clock:
    """Seconds, by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def matrix(tmp_path):
    """Four runs at a time of a matrix of eleven, half way through."""
    clock = Clock()
    progress = Progress(11, stream=io.StringIO(), clock=clock)
    jobs = [Job(tmp_path / name, ()) for name in IDS]
    for job in jobs:
        job.run_dir.mkdir()
        progress.poll(job)
    for row in rows()[:6]:
        clock.now += 2.0
        for job in jobs:
            write(job, row)
            progress.poll(job)
    return progress, jobs, clock


def write(job: Job, *lines) -> None:
    with (job.run_dir / "metrics.jsonl").open("a") as f:
        f.write("".join((json.dumps(r) if isinstance(r, dict) else r) + "\n" for r in lines))


def drawn(progress: Progress, width: int, height: int = 24, **options) -> list[str]:
    """The lines of the live view at a size."""
    out = io.StringIO()
    Console(file=out, width=width, height=height, force_terminal=True, **options).print(Bars(progress))
    return plain(out.getvalue()).rstrip("\n").split("\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_bars_fit_every_width(matrix, width):
    lines = drawn(matrix[0], width)
    assert len(lines) == 5
    assert max(map(cell_len, lines)) <= width - len(" ^C")
    for line, name in zip(lines, [*IDS, "matrix"], strict=True):
        assert line.startswith(name[:3])
        assert re.search(r"[━╸╺]{4}", line)
        if width >= 60:
            assert re.search(r"[━╸╺]{8}", line)
            assert " left" in line
            assert ("535/1070" if name != "matrix" else "0/11 runs") in line
        if width >= 80:
            assert name in line or ".." in line
        if width >= 120:
            assert name in line
            assert ("val 93.85% at 35%" in line) == (name != "matrix")


def test_a_low_terminal_names_how_many_runs_are_hidden(matrix):
    lines = drawn(matrix[0], 80, height=5)
    assert len(lines) == 3
    assert lines[1].startswith("and 3 more runs")
    assert lines[2].startswith("matrix")


def test_no_color_is_respected(matrix):
    """No colours, and a bar that can be read without them."""
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True, no_color=True).print(Bars(matrix[0]))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", out.getvalue())
    assert re.search(r"[━╸]{2,4} {3,}", plain(out.getvalue()))


def test_lines_that_a_narrower_window_breaks_are_erased(matrix):
    out = io.StringIO()
    bars = Bars(matrix[0])
    Console(file=out, width=120, force_terminal=True).print(bars)
    wide = list(bars.lines)
    for width in (120, 60):
        out.truncate(0)
        bars.reflow(Console(file=out, width=width, force_terminal=True))
        assert out.getvalue().count("\x1b[1A") == sum(-(-n // width) - 1 for n in wide)


def test_time_left(matrix):
    progress, jobs, clock = matrix
    first = progress.runs[jobs[0]]
    assert first.seconds_left() == pytest.approx(10.0)  # five evaluations of two seconds
    # Seven wait; each takes the 12 s so far and the 10 that are left, four at a time.
    assert progress.forecast.seconds_left() == pytest.approx(10.0 + 7 * 22.0 / 4)
    clock.now += 1.5
    assert first.seconds_left() == pytest.approx(8.5)
    clock.now += 100
    assert first.seconds_left() == 0


def test_the_first_run_waits_for_imports():
    clock = Clock()
    forecast = Forecast(4, {}, clock)
    for seconds, left in ((11.0, 33.0), (2.0, 4.0), (3.0, 2.5)):
        run = forecast.begin("run")
        clock.now += seconds
        forecast.end(run, True)
        assert forecast.seconds_left() == pytest.approx(left)


def test_runs_of_unequal_cost():
    """A large run that waits counts as what it costs, and one that fails at once says nothing about time."""
    clock = Clock()
    forecast = Forecast(3, {"small": 1.0, "broken": 1.0, "large": 100.0}, clock)
    assert forecast.seconds_left() is None
    run = forecast.begin("small")
    clock.now += 5.0
    forecast.end(run, True)
    broken = forecast.begin("broken")
    clock.now += 0.1
    forecast.end(broken, False)
    assert forecast.seconds_left() == pytest.approx(500.0)
    assert forecast.share() == pytest.approx(2 / 102)
    large = forecast.begin("large")
    clock.now += 200.0
    assert forecast.run_left(large) == pytest.approx(300.0)
    assert forecast.seconds_left() == pytest.approx(300.0)
    forecast.end(large, True)
    assert forecast.seconds_left() == 0
    assert forecast.share() == 1


def test_a_matrix_knows_what_its_runs_cost_beside_one_another(lenet5):
    """By steps, batch and arithmetic, whatever the model and the data set."""
    costs = relative_costs(lenet5, expand(lenet5))
    assert set(costs) == {s.id for s in expand(lenet5)}
    assert min(costs.values()) == max(costs.values()) > 0
    twice = overrides.apply(lenet5, {"EPOCHS": "5"})
    shorter = relative_costs(twice, expand(twice))
    assert max(shorter.values()) == pytest.approx(max(costs.values()) / 2)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "1 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (3 * 86400, "3.0 d")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_lines_where_there_is_no_terminal(matrix):
    progress, jobs, clock = matrix
    with progress:
        for job, status in zip(jobs, [DONE, FAILED, DONE, DONE], strict=True):
            progress.ended(job, status)
            clock.now += 1.0
    lines = progress.stream.getvalue().splitlines()
    assert lines[0] == "[1/11] lenet5_adamw_none: val 93.85% at 35% sparsity (12.0 s; 46 s left)"
    assert lines[1].startswith(f"[2/11] lenet5_adamw_magnitude_50: failed; see {jobs[1].run_dir}/output.log (13.0 s")
    assert len(lines) == 4
    assert "\x1b" not in progress.stream.getvalue()


def test_metrics_that_are_damaged_cost_no_matrix(tmp_path):
    job = Job(tmp_path / "run", ())
    progress = Progress(1, stream=io.StringIO())
    progress.poll(job)  # its directory has vanished
    job.run_dir.mkdir()
    progress.poll(job)
    write(job, "[]", "no json", '{"event": "start"}', '{"event": "start", "steps": "x"}')
    write(job, {"event": "epoch", "step": 5}, {"event": "start", "steps": 10}, {"event": "epoch", "step": 5})
    (job.run_dir / "metrics.jsonl").open("ab").write(b'\xff\n{"event": "epoch", "step": 7')
    progress.poll(job)
    assert (progress.runs[job].steps, progress.runs[job].step) == (10, 5)
    progress.ended(job, DONE)
    assert progress.stream.getvalue().startswith("[1/1] run: done (")


def test_a_named_pipe_does_not_hang(tmp_path):
    job = Job(tmp_path, ())
    os.mkfifo(tmp_path / "metrics.jsonl")
    Progress(1, stream=io.StringIO()).poll(job)


def test_ids_in_little_room():
    assert shorten("lenet5_adamw_none", 17) == "lenet5_adamw_none"
    assert shorten("resnet18_adamwprune_bitter7_state_70_s2", 20) == "resnet18..tate_70_s2"
    assert [len(shorten("x" * 30, n)) for n in range(31)] == list(range(31))
    assert shorten_ids(["lenet5_adamw_none", "lenet5_adamw_magnitude_50"], 12) == ["lene..w_none", "lene..ude_50"]
    same = ["lenet5_adamw_magnitude_unstructured_70", "lenet5_adam_magnitude_unstructured_70"]
    assert shorten_ids(same, 20) == [
        "lenet5_adamw_\nmagnitude_\nunstructured_70",
        "lenet5_adam_\nmagnitude_\nunstructured_70",
    ]
    assert fold("a_b_c", 2).replace("\n", "") == "a_b_c"


STEPWISE = """
import os, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from progress_demo import IDS, Job, Progress, rows
from test_progress import write
jobs = [Job(Path(sys.argv[3], name), ()) for name in IDS]
with Progress(len(jobs)) as progress:
    for row in rows()[:6]:
        input()
        progress.drawn = -1.0  # drawn at once, however short ago
        for job in jobs:
            job.run_dir.mkdir(exist_ok=True)
            write(job, row)
            progress.poll(job)
        os.write(1, b"<%d>" % row.get("step", 0))  # after all that was drawn
"""


def test_in_a_pseudo_terminal_at_four_widths(tmp_path):
    """Drawn anew after each resize, by the width that there is then; no line fills the terminal's, so none wraps."""
    with Screen(sys.executable, "-c", STEPWISE, str(ROOT), str(DEMO.parent), str(tmp_path), size=(80, 24)) as screen:
        screen.until("0/4 runs")
        for step, width in zip((0, 107, 214, 321, 428, 535), (60, 80, 120, 200, 80, 60), strict=True):
            screen.resize(width, 24)
            os.write(screen.end, b"\n")
            last = screen.until(f"<{step}>")
            seen = plain(last).replace(f"<{step}>", "").replace("\r", "\n").split("\n")
            assert [line for line in seen if f"{step}/1070" in line or not step], seen
            assert max(map(cell_len, seen)) < width
        last += screen.until("never")
        assert screen.process.wait(20) == 0
    assert last.rstrip("\r\n").endswith(("\x1b[2K", "\x1b[?25h"))  # the last line was erased, the cursor is there


@needs_tmux
def test_an_interrupt_leaves_a_clean_terminal():
    """With jobs of the real executor."""
    command = f"trap : INT; {sys.executable} {DEMO} one 20; echo status $?; cat"
    with Terminal((80, 12), command, f"progress{os.getpid()}") as screen:
        screen.shows("107/1070", 60)
        screen("resize-window", "-t", "t", "-x", "60", "-y", "12")
        screen.shows("214/1070", 60)
        screen("send-keys", "-t", "t", "C-c")
        seen = screen.shows("status 130", 60)
        assert "1070" not in seen
        assert "matrix" not in seen
        assert screen("display-message", "-p", "-t", "t", "#{cursor_flag}") == "1\n"
