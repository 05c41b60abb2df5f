"""gputop: the live view with its keys, in a real terminal too; its one-off forms; recorded files; bad input."""

import asyncio
import html
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from gputop_demo import A100, HOST, lived, people, watch
from screens import Terminal, needs_tmux

from lib.gputop import show
from lib.gputop.graph import picture
from lib.gputop.processes import arrange, matching
from lib.gputop.recorded import Record, compare, statistics, summary
from lib.gputop.tui import SPANS, Gputop
from lib.gputop.watch import TOGETHER, merged, together
from lib.monitor import stats
from lib.monitor.base import Process, Sample
from lib.monitor.client import Monitor, MonitorOptions
from lib.monitor.users import User, described, started_runs
from lib.rundir import ROOT

SCRIPT = str(ROOT / "scripts" / "gputop.py")
DEMO = str(ROOT / "tests" / "lib" / "gputop_demo.py")


def gputop(*args, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, timeout=60, **more)


def text(app) -> str:
    """What is on the screen."""
    lines = (app.screen._compositor.render_strips()[y].text for y in range(app.size.height))
    return "\n".join(line.rstrip() for line in lines)


def view(check, machine="two", size=(100, 30), seconds=60, **options):
    """Run `check(app, pilot)` on the live view of a machine."""

    async def go():
        app = Gputop(lived(machine, seconds), **options)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await check(app, pilot)

    asyncio.run(go())


def test_the_view_shows_devices_graphs_details_and_users():
    async def check(app, pilot):
        await pilot.press("down")
        await pilot.pause()
        seen = text(app)
        for word in ("all GPUs", "nvidia 0", "nvidia 1", "cpu 0", "31.", "/80.0 GiB", "177/400 W", "4242", "21.5 GiB"):
            assert word in seen, word
        for word in ("utilization: 97 %", "temperature: ", "power: 177 W", "PCIe 4 x16 out 112 MiB/s", "12 NVLinks"):
            assert word in seen, word
        assert re.search(r"[\u2801-\u28ff]{10}", seen)  # a line of dots

    view(check)


def test_what_is_not_reported_has_a_dash_and_no_empty_graph():
    async def check(app, pilot):
        await pilot.press(*["down"] * 3)
        await pilot.pause()
        assert app.chosen == HOST
        seen = text(app)
        assert re.search(r"cpu 0 .* -  .*2450 MHz  -", seen)
        assert "power:" not in seen
        assert "clock: 2450 MHz" in seen

    view(check)


def test_keys():
    async def check(app, pilot):
        assert app.chosen is TOGETHER
        await pilot.press("down")
        assert app.chosen.index == 0
        await pilot.press("p")
        before = text(app)
        assert "PAUSED" in before
        kept = len(app.watch.history[A100])
        app.watch.clock.now += 20
        app.tick()
        assert len(app.watch.history[A100]) == kept + 1  # it goes on reading
        await pilot.pause()
        assert text(app) == before
        await pilot.press("p", "plus")
        assert app.every == 0.5
        await pilot.press("minus", "minus")
        assert "every 2 s" in text(app)
        await pilot.press("t")
        assert app.span == SPANS[1]
        await pilot.press("question_mark")
        assert "this page" in text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "this page" not in text(app)
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running

    view(check)


@pytest.mark.parametrize("size", [(80, 24), (200, 50), (60, 16), (40, 10), (20, 5)])
def test_every_size_holds_the_devices(size):
    async def check(app, pilot):
        seen = text(app)
        assert "nvidia 0" in seen or size[1] < 10
        assert max(map(len, seen.splitlines())) <= size[0]
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        await pilot.pause()
        assert "utilization: 97 %" in text(app)

    view(check, "mixed", size)


def test_a_machine_without_any_device():
    async def check(app, pilot):
        assert "no device answers" in text(app)

    view(check, "none")


def test_a_device_that_goes_and_one_that_comes():
    async def check(app, pilot):
        backend = app.watch.readings.backends[0]
        assert backend.vendor == "nvidia"
        last, backend.there = backend.there, backend.there[:1]
        app.tick()
        await pilot.pause()
        assert re.search(r"nvidia 1 .* -     -  .*-", text(app))
        backend.there = last
        app.tick()
        await pilot.pause()
        assert re.search(r"nvidia 1 .* 97%", text(app))

    view(check)


def shown_pids(app) -> list[str]:
    """The processes on the screen, from above."""
    return re.findall(r"^ ?(10\d\d) ", text(app), re.MULTILINE)


def test_processes_scroll_with_those_of_runs_first(monkeypatch):
    monkeypatch.setattr("lib.gputop.watch.described", people)

    async def check(app, pilot):
        first = shown_pids(app)
        assert first[:4] == ["1007", "1030", "1000", "1001"]
        await pilot.press("pagedown")
        await pilot.pause()
        then = shown_pids(app)
        assert then[0] in first
        assert then[-1] not in first
        app.watch.clock.now += 10  # asked again, they stay where they are
        app.tick()
        await pilot.pause()
        assert shown_pids(app) == then
        await pilot.press("tab")
        await pilot.pause()
        assert len(shown_pids(app)) > len(first)
        await pilot.press("end")
        await pilot.wait_for_scheduled_animations()
        assert shown_pids(app)[-1] == "1039"

    view(check, seconds=2)


def test_processes_are_sorted_by_keys(monkeypatch):
    monkeypatch.setattr("lib.gputop.watch.described", people)

    async def check(app, pilot):
        await pilot.press("s")
        await pilot.pause()
        assert "by busy" in text(app)
        assert shown_pids(app)[:4] == ["1030", "1007", "1017", "1034"]
        await pilot.press("r")
        await pilot.pause()
        assert "by busy backwards" in text(app)
        assert shown_pids(app)[:3] == ["1007", "1030", "1000"]

    view(check, seconds=2)


def test_processes_are_filtered(monkeypatch):
    monkeypatch.setattr("lib.gputop.watch.described", people)

    async def check(app, pilot):
        await pilot.press("slash", "t", "e")
        app.words.value = "bob PROGRAM2"
        await pilot.pause()
        assert set(shown_pids(app)) == {"1002", "1020", "1022", "1024", "1026", "1028"}
        assert app.span == SPANS[0]  # letters are words of the filter, no keys
        await pilot.press("enter", "t")
        await pilot.pause()
        assert "filter: bob PROGRAM2" in text(app)
        assert app.span == SPANS[1]
        await pilot.press("escape")
        await pilot.pause()
        assert shown_pids(app)[:3] == ["1007", "1030", "1000"]
        await pilot.press("slash", "q", "escape", "q")
        await pilot.pause()
        assert not app.is_running

    view(check, seconds=2)


@pytest.mark.parametrize("order", ["memory", "busy", "run", "user", "command", "pid"])
def test_every_order(order):
    """Those of runs first, whatever is not reported."""
    users = [*people([Process(1)]), User(1, None, None, "?", "?", "?", None)]
    for backwards in (False, True):
        found = arrange(users, order, backwards)
        assert sorted(map(id, found)) == sorted(map(id, users))
        assert [u.run is None for u in found] == [False] * 2 + [True] * 39
    assert matching(users, "no such words") == []


def test_a_pause_freezes_all_that_is_shown(monkeypatch):
    """Whatever one looks at then is of that moment, and what is read meanwhile is there when it goes on."""
    seconds = iter(range(1000))
    monkeypatch.setattr("lib.gputop.tui.time.strftime", lambda _: f"12:00:{next(seconds):02}")
    monkeypatch.setattr("lib.gputop.watch.described", people)

    async def check(app, pilot):
        await pilot.press("down", "p")
        await pilot.pause()
        before = text(app)
        app.watch.clock.now += 50
        app.tick()
        monkeypatch.setattr("lib.gputop.watch.described", lambda processes: [])
        await pilot.press("down")
        await pilot.pause()
        assert text(app) != before
        await pilot.press("up", "t", "t", "t")
        await pilot.resize_terminal(90, 24)
        await pilot.pause()
        await pilot.resize_terminal(100, 30)
        await pilot.pause()
        await pilot.pause()
        assert text(app) == before
        await pilot.press("p")
        await pilot.pause()
        assert "PAUSED" not in text(app)
        assert shown_pids(app) == []

    view(check)


def test_several_gpus_as_one():
    one, other = Sample(50, 10, None, 70, 100, energy=5), Sample(100, 30, None, 60, None, energy=6)
    assert together([one, other]) == Sample(75, 40, temperature=70, energy=11)
    assert merged([Process(1, 5.0, 2.0), Process(2, 1.0), Process(1, 6.0, 3.0)]) == [Process(1, 11, 5), Process(2, 1)]
    assert merged([Process(1, 5.0), Process(1, None)]) == [Process(1)]
    assert [d.id for d in watch("two").devices] == ["all 0", "nvidia 0", "nvidia 1", "cpu 0"]
    found = lived("two", 2)
    assert found.total(TOGETHER, "memory_total") == 160 * 1024


@pytest.mark.parametrize(
    ("mib", "like", "said"),
    [(None, None, "-"), (12, None, "12 MiB"), (12, 20480, "0.0 GiB"), (20480, None, "20.0 GiB")],
)
def test_sizes(mib, like, said):
    assert show.size(mib, like) == said


def test_a_process_knows_its_run(tmp_path):
    """By the command line of the sampler beside it, so that a run that was forked is found too."""
    run = tmp_path / "lenet5_adamw_none"
    run.mkdir()
    with Monitor(MonitorOptions(), run / "monitor.jsonl") as monitor:
        deadline = time.monotonic() + 10
        while os.getpid() not in started_runs() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert started_runs()[os.getpid()] == "lenet5_adamw_none"
        shown = json.loads(gputop("--json").stdout)
        users = [u for d in shown["devices"] for u in d["processes"]]
        mine = {u["pid"] for u in users if u["run"] == "lenet5_adamw_none"}
        assert {os.getpid(), monitor.process.pid} <= mine


def test_a_process_may_call_itself_anything():
    wild = ["\xff\xfe", "\x1b[2J\x07", "fine\n name", "ünï", "[b]x[/b]"]
    command = [sys.executable, "-c", "input()", *(w.encode("latin-1" if "\xff" in w else "utf-8") for w in wild)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as p:
        [user] = described([Process(p.pid)])
        p.stdin.close()
    assert user.command.endswith("-c input() ?? ?[2J? fine name ünï [b]x[/b]")
    assert (user.owner, user.run) != ("?", "?")
    assert described([Process(2**22 - 3)])[0].command == "?"


def test_the_view_takes_no_name_for_a_style(monkeypatch):
    wild = User(1, 5.0, None, "[red]", "sh", "[/b] [bold", "[x]")
    monkeypatch.setattr("lib.gputop.watch.described", lambda processes: [wild])

    async def check(app, pilot):
        for word in ("[red]", "[/b] [bold", "[x]"):
            assert word in text(app)

    view(check)


def test_once_and_json_and_two_at_once():
    with subprocess.Popen([sys.executable, SCRIPT, "--once", "--json"], stdout=subprocess.PIPE, text=True) as other:
        found = gputop("--once")
        shown = json.loads(other.stdout.read())
    assert found.returncode == 0
    assert re.search(r"^cpu 0 +.+ \d+% +[\d.]+/[\d.]+ GiB", found.stdout, re.MULTILINE)
    host = next(d for d in shown["devices"] if d["vendor"] == "cpu")
    assert host["utilization"] is not None
    assert host["memory_used"] < host["memory_total"]
    others = [u for u in host["processes"] if u["run"] is None]
    assert others[0]["memory"] >= others[-1]["memory"]
    assert len(others) <= 10
    assert not [u for u in others if "command" in u]


def test_whole_command_lines_on_request_alone(monkeypatch):
    """Of those of runs all, and of the others ten: a command line may hold a password."""
    monkeypatch.setattr("lib.gputop.watch.described", lambda found: sorted(people(found), key=lambda u: u.run is None))
    found = lived("two", 2)
    for secret, whole in ((0, False), (10, True)):
        shown = show.as_json(found, whole)["devices"][0]["processes"]
        assert [u["run"] is None for u in shown] == [False] * 2 + [True] * 10
        assert json.dumps(shown).count("secret") == secret
        assert {u["name"] for u in shown[:2]} == {"python"}
        assert "\n".join(show.once(found, whole)).count("secret") == 2 * secret  # the GPU and the host


def test_nothing_rounds_to_minus_zero():
    """A counter or a sensor may be a little below 0."""
    low = Sample(*[-0.004] * len(vars(Sample())))
    said = [*show.cells(A100, low, 10.0, 10.0), *show.details(A100, low), *show.user(User(1, -0.004, -0.004, *"abcd"))]
    assert not [word for word in said if re.search(r"-0(?![.]?[1-9])", word)], said
    drawn = picture([(-1.0, -0.004), (0.0, 0.0)], 1e-9, 60.0, 40, 10, "x")
    assert "-0┤" not in drawn  # and it is drawn at once: plotext takes for ever over what is far outside


def test_a_comparison_has_no_minus_zero(tmp_path):
    for name, power in (("a", 100.0), ("b", 99.999)):
        with stats.Writer(tmp_path / name) as writer:
            writer.header([A100])
            writer.sample(0, "train", [Sample(power=power, temperature=-0.004)])
    told = "\n".join(compare(Record.of(tmp_path / "a"), Record.of(tmp_path / "b")))
    assert "+0.0" in told
    assert "-0.0" not in told
    assert "-0.0" not in "\n".join(summary(Record.of(tmp_path / "a")))


def test_a_record_as_table_and_picture(tmp_path):
    path = tmp_path / "host.jsonl"
    found = gputop("--stats", path, "--interval", "0.1", "--duration", "1")
    assert found.returncode == 0, found.stderr
    header, samples = stats.read(path)
    assert 8 <= len(samples) <= 12
    assert header["interval_s"] == 0.1
    again = gputop("--stats", path, "--duration", "1")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert len(stats.read(path)[1]) == len(samples)
    table = gputop("--summary", path).stdout
    assert re.search(r"memory used \(MiB\) +\d", table)
    path.write_bytes(path.read_bytes()[:-20])
    graph = gputop("--gen-graph", path)
    assert graph.returncode == 0, graph.stderr
    assert "1 lines were not whole" in graph.stdout
    assert (tmp_path / "host_plot.png").read_bytes()[:4] == b"\x89PNG"
    both = gputop("--compare", path, path, "--output", tmp_path / "c.png")
    assert both.returncode == 0
    assert re.search(r"memory used \(MiB\) .* \+0.0", both.stdout)
    assert (tmp_path / "c.png").exists()


def test_recording_ends_at_an_interrupt_with_all_that_was_read(tmp_path):
    path = tmp_path / "m.jsonl"
    with subprocess.Popen([sys.executable, SCRIPT, "--stats", path, "--interval", "0.1"], stdout=subprocess.PIPE) as p:
        deadline = time.monotonic() + 10
        while len(stats.read(path)[1]) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        assert p.wait(10) == 0
    header, samples = stats.read(path)
    assert len(samples) >= 3
    assert header["damaged"] == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--interval", "fast"], "'fast' is no number of seconds"),
        (["--interval", "0"], "give 0.05 to 3600"),
        (["--interval", "2", "--once"], "--interval is of the live view"),
        (["--gen-graph", "x", "--output", "y.jpg"], "ends in .png"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["--summary", "x", "--json"], "does not go with recorded files"),
        (["--summary", "x", "--once"], "not allowed with"),
        (["--command-lines"], "--command-lines goes with --once or --json"),
        (["--stats", "x", "--once"], "--stats records what is seen over time"),
        (["--duration", "3"], "--duration goes with --stats"),
        (["--device", "cpu 0"], "--device goes with"),
        (["--summary", "nowhere"], "nowhere: there is no such file"),
        (["--summary", "README.md"], "README.md is no record of this version of the monitor"),
        (["--gen-graph", "docs"], "docs cannot be read: it is a directory"),
        (["--compare", "README.md", "README.md"], "is no record"),
        (["--compare", "README.md"], "expected 2 arguments"),
        (["--stats", "nowhere/x"], "nowhere/x cannot be written: No such file or directory"),
        ([], "the live view needs a terminal"),
    ],
)
def test_bad_input(args, said):
    found = gputop(*args, cwd=ROOT)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_a_device_that_is_not_in_the_file(tmp_path):
    path = tmp_path / "m"
    with stats.Writer(path) as writer:
        writer.header([A100, HOST])
    assert "holds no sample" in gputop("--summary", path).stderr
    with stats.Writer(path) as writer:
        writer.sample(0, "train", [Sample(), Sample(power=3)])
    assert (
        "has no device 'amd 0': choose one of nvidia 0, cpu 0"
        in gputop("--gen-graph", path, "--device", "amd 0").stderr
    )
    assert Record.of(path).choose() == 1  # the GPU reported nothing


def test_files_with_nothing_in_common(tmp_path):
    for name, sample in (("a", Sample(power=3)), ("b", Sample(fan=4))):
        with stats.Writer(tmp_path / name) as writer:
            writer.header([A100])
            writer.sample(0, "train", [sample])
    found = gputop("--compare", tmp_path / "a", tmp_path / "b", cwd=tmp_path)
    assert found.returncode == 2
    assert "have no reading in common" in found.stderr
    assert not (tmp_path / "gputop_compare.png").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_killed_view_leaves_the_terminal_as_it_was(number, tmp_path):
    pid = tmp_path / "pid"
    command = f"sh -c 'echo $$ > {pid}; exec {sys.executable} {DEMO} two'; echo status $?; cat"
    with Terminal((80, 24), command, f"gputop{os.getpid()}-kill{number}") as screen:
        screen.shows("utilization: ")
        os.kill(int(pid.read_text()), number)
        assert "cpu 0" not in screen.shows("status 0")


def test_a_background_job_of_a_shell_can_be_ended(tmp_path):
    """A shell without job control has it ignore SIGINT."""
    path = tmp_path / "m"
    command = f"{sys.executable} {SCRIPT} --stats {path} --interval 0.1 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) as shell:
        pid = int(shell.stdout.readline())
        deadline = time.monotonic() + 10
        while not stats.read(path)[1] and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(pid, signal.SIGTERM)
        assert shell.wait(10) == 0


def test_statistics_are_over_time():
    found = statistics([(0.0, 10.0), (1.0, 10.0), (1.5, 100.0), (2.0, 100.0)])
    assert (found.least, found.most) == (10, 100)
    assert found.mean == pytest.approx((10 * 1.5 + 100 * 1.0) / 2.5)
    assert statistics([(3.0, 7.0)]).mean == 7


def test_no_torch_for_gputop():
    code = (
        f"import sys; sys.argv = ['gputop', '--once']; sys.modules['torch'] = None\n"
        f"import runpy; runpy.run_path({SCRIPT!r}, run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@needs_tmux
@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
@pytest.mark.parametrize("setting", ["NO_COLOR=1", "TERM=vt100", "TERM=xterm-256color"])
def test_in_a_real_terminal(size, setting, tmp_path):
    name = f"gputop{os.getpid()}-{size[0]}-{setting[-3:]}"
    with Terminal(size, f"env {setting} {sys.executable} {DEMO} mixed; echo status $?; cat", name) as screen:
        seen = screen.shows("utilization: 97 %")
        assert len(seen.splitlines()) <= size[1]
        for word in ("all GPUs", "nvidia 0", "amd 0", "intel 0", "cpu 0", "power: ", "4242", "q quit"):
            assert word in seen, seen
        screen("send-keys", "-t", "t", "Down")
        screen.shows("12 NVLinks")
        screen("send-keys", "-t", "t", "p")
        screen.shows("PAUSED")
        screen("resize-window", "-t", "t", "-x", "100", "-y", "30")
        screen.shows("q quit")
        screen("send-keys", "-t", "t", "?")
        screen.shows("this page")
        screen("send-keys", "-t", "t", "q")
        screen.hides("this page")
        screen("send-keys", "-t", "t", "C-c" if setting == "NO_COLOR=1" else "q")
        screen.shows("status 0")


@needs_tmux
def test_the_live_view_of_this_machine_records_and_leaves_the_terminal_as_it_was(tmp_path):
    path = tmp_path / "m.jsonl"
    command = f"{sys.executable} {SCRIPT} --stats {path} --interval 0.2; echo status $?; cat"
    with Terminal((80, 24), command, f"gputop{os.getpid()}-live") as screen:
        screen.shows("cpu 0")
        screen.shows("utilization: ")
        time.sleep(1)
        screen("send-keys", "-t", "t", "q")
        seen = screen.shows("status 0")
        assert "recorded:" in seen
        assert "cpu 0" not in seen
    assert len(stats.read(path)[1]) >= 3


PICTURE = ROOT / "docs" / "images" / "gputop.svg"


def words(svg: str) -> str:
    """What a picture of a terminal says; how it is drawn is the library's."""
    found = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    return "\n".join(html.unescape(t).replace("\xa0", " ").rstrip() for t in found)


def test_the_screenshot_of_the_docs(monkeypatch):
    """The picture in docs is what the live view shows. `SCREENSHOT=write` writes it anew."""
    ids = {4242: "gpt2_adamwprune_bitter7_state_50", 4243: "gpt2_adamw_movement_50"}

    def told(processes):
        command = "python gpt2/train.py --run test_matrix_results/"
        return [
            User(p.pid, p.memory, p.utilization, "ada", "python", command + ids[p.pid], ids[p.pid]) for p in processes
        ]  # fmt: skip

    monkeypatch.setattr("lib.gputop.watch.described", told)
    monkeypatch.setattr("lib.gputop.tui.platform.node", lambda: "gpu-server")
    monkeypatch.setattr("lib.gputop.tui.time.strftime", lambda _: "12:00:00")
    shown = []

    async def check(app, pilot):
        await pilot.press("down")
        await pilot.pause()
        shown.append(app.export_screenshot(title="make gputop"))

    view(check, "two", (110, 32))
    if os.environ.get("SCREENSHOT") == "write":
        PICTURE.write_text(shown[0])
    assert words(PICTURE.read_text()) == words(shown[0])
