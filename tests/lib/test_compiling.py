"""Whether torch.compile can be had: tried once and remembered; AUTO does without it, a wish by name is an error."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib import compiling, describe, kconfig, overrides, report, results, runner
from lib.compiling import KIND, Trial, facts, known_trials, try_compiling
from lib.config import Config, InputError
from lib.executor.base import Status
from lib.fallback import failure_line
from lib.matrix import plan
from lib.provenance import cores
from lib.resolve import FORMS, check_compiling, pinned
from lib.rundir import ROOT, RunDir, read_origin

REASON = "CppCompileError: C++ compile error: fatal error: Python.h: No such file or directory"


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAMWPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "tried", {})


@pytest.fixture
def answers(monkeypatch):
    """A function: what the process that tries shall say, form -> reason or None; returns the list of what was asked."""
    asked = []

    def give(**reasons):
        def probe(forms, device):
            asked.append((tuple(forms), device))
            return {f: {"reason": reasons[f], "traceback": reasons[f] and f"Traceback\n{reasons[f]}"} for f in forms}

        monkeypatch.setattr(compiling, "_probe", probe)
        return asked

    return give


def config(model="resnet18", **symbols):
    lines = {f"MODEL_{model.upper()}": "y", f"{model.upper()}_DATASET_DIGITS": "y", "DEVICE_CPU": "y"}
    lines |= {
        "OPTIMIZER_SGD": "y",
        "OPTIMIZER_ADAMWPRUNE": "y",
        "PRUNING_METHOD_NONE": "y",
        "MAX_ITERS": "2",
        **symbols,
    }
    return kconfig.apply(None, [(k, v, "test") for k, v in lines.items()])


def notes(given) -> list[str]:
    return [n for n in describe.notes(given, plan(given)) if "_AUTO" in n or "_COMPILED" in n or "_YES" in n]


def forms(root) -> dict[str, str]:
    return {p.parent.name: FORMS["update"].chosen(Config.load(p)) for p in root.glob("*/config")}


def test_what_was_found_is_remembered(answers):
    asked = answers(update=None, model=REASON)
    assert known_trials(["update", "model"], "cpu") == {"update": None, "model": None}
    assert try_compiling(["update"], "cpu") == {"update": Trial()}
    both = try_compiling(["update", "model"], "cpu")
    assert both["update"].works and both["model"].reason == REASON
    assert Path(both["model"].log).read_text() == f"Traceback\n{REASON}"
    assert try_compiling(["update", "model"], "cpu") == known_trials(["update", "model"], "cpu") == both
    assert asked == [(("update",), "cpu"), (("model",), "cpu")]


@pytest.mark.parametrize("folder", ["cache", "nowhere/cache"])
def test_a_process_tries_once_and_the_next_one_anew(answers, monkeypatch, tmp_path, folder):
    """What worked may fail by now without a fact that tells, as on a full disk. Also where no cache can be written."""
    (tmp_path / "nowhere").touch()
    monkeypatch.setenv("ADAMWPRUNE_CACHE", str(tmp_path / folder))
    asked = answers(update=None)
    for _ in range(2):
        assert try_compiling(["update"], "cpu")["update"].works
    assert len(asked) == 1
    compiling.tried.clear()  # another process
    asked = answers(update=REASON)
    assert try_compiling(["update"], "cpu")["update"].reason == REASON
    assert known_trials(["update"], "cpu")["update"].reason == REASON
    assert len(asked) == 2


def test_a_failure_is_unknown_to_a_plan_after_a_day(answers, monkeypatch):
    asked, now = answers(update=None, model=REASON), time.time()
    try_compiling(["update", "model"], "cpu")
    monkeypatch.setattr(time, "time", lambda: now + compiling.FAILED_FOR_S + 60)
    known = known_trials(["update", "model"], "cpu")
    assert known["update"].works and known["model"] is None
    assert len(asked) == 1


@pytest.mark.parametrize("entry", [3, [], {}, {"time": "now"}, {"reason": 3, "time": 1.0}, {"log": [], "time": 1.0}])
def test_a_damaged_entry_is_none(entry):
    compiling.write_cache(KIND, facts("cpu"), {"update": entry})
    assert known_trials(["update"], "cpu") == {"update": None}


def test_another_machine_is_tried_anew(monkeypatch, tmp_path):
    """A compiler that is installed, a folder that is made writable: an old failure says nothing."""
    compiler, folder = tmp_path / "c++", tmp_path / "code"
    seen = [facts("cpu"), facts("cuda")]
    for name, value in (("CXX", compiler), ("CC", compiler), ("TORCHINDUCTOR_CACHE_DIR", folder)):
        monkeypatch.setenv(name, str(value))
        seen.append(facts("cpu"))
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    seen.append(facts("cpu"))
    folder.write_text("a file in its place")
    seen.append(facts("cpu"))
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    folder.unlink()
    before = facts("cpu")
    folder.mkdir()
    assert facts("cpu") == before  # torch makes it: no reason to try again
    assert json.loads(json.dumps(before)) == before


def process(monkeypatch, tmp_path, script: str):
    """Have this shell script in the place of Python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_a_process_that_dies_is_an_answer(monkeypatch, tmp_path):
    line = json.dumps({"form": "update", "reason": None, "traceback": None})
    process(monkeypatch, tmp_path, f"echo noise; echo {shlex.quote(line)}; echo out of luck >&2; kill -SEGV $$")
    found = try_compiling(["update", "model"], "cpu")
    assert found["update"].works
    assert found["model"].reason == "the process that tried it ended with status -11: out of luck"


def test_a_process_that_hangs_is_ended_with_all_that_it_started(monkeypatch, tmp_path):
    process(monkeypatch, tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    monkeypatch.setattr(compiling, "PATIENCE_S", 2.0)
    assert try_compiling(["update"], "cpu")["update"].reason == "no answer after 2 s"
    state = subprocess.run(["ps", "-o", "stat=", "-p", (tmp_path / "pid").read_text()], capture_output=True, text=True)
    assert state.stdout.strip()[:1] in ("", "Z")


def test_auto_does_without_for_the_whole_directory(answers, tmp_path, capsys):
    asked = answers(update=REASON)
    root = runner.prepare(config(RESULTS=str(tmp_path / "r")))
    assert FORMS["update"].chosen(Config.load(root / "config")) == "eager"
    assert forms(root) == {"resnet18_sgd_none": "eager", "resnet18_adamwprune_none": "eager"}
    assert read_origin(root).not_compiled == {"UPDATE": REASON}
    said = f"UPDATE_AUTO does without torch.compile, which cannot be used here: {REASON}"
    assert said in capsys.readouterr().err
    for path in (root / "config", *root.glob("*/config")):
        assert path.read_text().startswith(f"# {said}\n")
    runner.refuse_changed(root)
    assert REASON in "\n".join(report.body(results.load(root), report.as_text))
    assert notes(config()) == [f"UPDATE_AUTO is eager here, for torch.compile cannot be used: {REASON}"]
    assert asked == [(("update",), "cpu")]


def test_auto_compiles_the_adam_family_where_it_can(answers, tmp_path):
    answers(update=None)
    root = runner.prepare(config(RESULTS=str(tmp_path / "r")))
    assert FORMS["update"].chosen(Config.load(root / "config")) == "auto"
    assert forms(root) == {"resnet18_sgd_none": "eager", "resnet18_adamwprune_none": "compiled"}
    assert read_origin(root).not_compiled == {}
    assert notes(config()) == []


def test_a_directory_that_is_continued_on_a_poorer_machine_goes_on(answers, tmp_path, monkeypatch):
    answers(update=None)
    root = runner.prepare(config(RESULTS=str(tmp_path / "r")))
    monkeypatch.setenv("CXX", "/nonexistent")
    answers(update=REASON)
    monkeypatch.setattr(runner, "jobs", lambda root, todo: ([], ()))
    runner.run_pending(root, plan(Config.load(root / "config")), failed_only=False)
    assert forms(root)["resnet18_adamwprune_none"] == "eager"
    assert FORMS["update"].chosen(Config.load(root / "config")) == "eager"
    assert read_origin(root).not_compiled == {"UPDATE": REASON}


class Failing:
    """An executor whose compiled runs fail of that, and whose eager ones end well; `ran` is what each did."""

    def __init__(self):
        self.ran = []

    def run(self, jobs):
        for job in jobs:
            d = RunDir(job.run_dir)
            form = FORMS["update"].chosen(Config.load(d.config))
            self.ran.append((d.path.name, form))
            if form == "compiled":
                d.error.write_text(f"Traceback\n{failure_line('update', REASON)}\n")
            yield job, Status("failed" if form == "compiled" else "done", int(form == "compiled"))


def run_failing(root, monkeypatch) -> list:
    executor = Failing()
    monkeypatch.setattr(runner, "EXECUTORS", {"local": lambda imports, poll: executor})
    runner.run_pending(root, plan(Config.load(root / "config")), failed_only=False)
    return executor.ran


TWO = {"OPTIMIZER_SGD": "n", "OPTIMIZER_ADAMW": "y"}


def test_compiling_that_fails_in_a_run_costs_no_run(answers, tmp_path, monkeypatch):
    """The trial went well, and the run's own compiling does not: the directory goes on without, and says why."""
    answers(update=None)
    root = runner.prepare(config(RESULTS=str(tmp_path / "r"), **TWO))
    first, second = "resnet18_adamw_none", "resnet18_adamwprune_none"
    assert run_failing(root, monkeypatch) == [(first, "compiled"), (second, "eager"), (first, "eager")]
    assert set(forms(root).values()) == {"eager"}
    assert not (root / first / "error.txt").exists()
    why = read_origin(root).not_compiled["UPDATE"]
    assert why.startswith(f"{REASON} (in {first}, after a trial that went well; traceback: ")
    assert "Traceback" in Path(why.split("traceback: ")[1].rstrip(")")).read_text()
    assert why in "\n".join(report.body(results.load(root), report.as_text))
    assert (root / first / "config").read_text().startswith("# UPDATE_AUTO does without torch.compile")
    runner.refuse_changed(root)
    assert notes(config()) == [f"UPDATE_AUTO is eager here, for torch.compile cannot be used: {REASON}"]


def test_compiling_by_name_that_fails_in_a_run_fails_it(answers, tmp_path, monkeypatch):
    answers(update=None)
    root = runner.prepare(config(RESULTS=str(tmp_path / "r"), UPDATE_COMPILED="y", **TWO))
    assert [form for _, form in run_failing(root, monkeypatch)] == ["compiled"] * 2
    found = results.load(root)
    assert [r.status for r in found] == ["failed"] * 2
    assert all(REASON in r.reason and 'SET="UPDATE_EAGER=y"' in r.reason for r in found)
    assert read_origin(root).not_compiled == {}


@pytest.mark.parametrize(
    ("name", "asked", "plain", "symbols"),
    [
        ("update", "UPDATE_COMPILED", "UPDATE_EAGER", {"UPDATE_COMPILED": "y"}),
        ("model", "COMPILE_YES", "COMPILE_NO", {"COMPILE_YES": "y", "UPDATE_EAGER": "y"}),
    ],
)
def test_a_wish_by_name_is_an_error_that_is_mended_by_its_own_line(answers, tmp_path, name, asked, plain, symbols):
    given = config("lenet5", RESULTS=str(tmp_path / "r"), **symbols)
    assert [n for n in notes(given) if "a guess" in n] != []
    check_compiling(given, plan(given).specs)  # not known yet
    answers(**{name: REASON})
    for attempt in (runner.prepare, lambda c: check_compiling(c, plan(c).specs)):  # the second has it from the cache
        with pytest.raises(InputError) as e:
            attempt(given)
        assert f"{asked} is set, and torch.compile cannot be used here: {REASON} (traceback: " in str(e.value)
    log = str(e.value).split("(traceback: ")[1].split(")")[0]
    assert "Traceback" in Path(log).read_text()
    assert not (tmp_path / "r").exists()
    [line] = [part for part in str(e.value).split("`") if part.startswith("make SET=")]
    assert line == f'make SET="{plain}=y"'
    mended = overrides.apply(given, {"SET": shlex.split(line)[1].removeprefix("SET=")})
    check_compiling(mended, plan(mended).specs)
    assert FORMS[name].chosen(mended) == FORMS[name].plain


def test_nothing_is_tried_where_nothing_would_be_compiled(answers, tmp_path, quickstart):
    asked = answers()
    runner.prepare(overrides.apply(quickstart, {"RESULTS": str(tmp_path / "a")}))
    runner.prepare(config(UPDATE_EAGER="y", RESULTS=str(tmp_path / "b")))
    runner.prepare(config(OPTIMIZER_ADAMWPRUNE="n", RESULTS=str(tmp_path / "c")))
    assert asked == []
    assert notes(quickstart) == []


def test_the_plan_guesses_and_tries_nothing(answers):
    asked = answers()
    runner.check(config())
    [note] = notes(config())
    assert note.startswith("UPDATE_AUTO: compiled for resnet18 is a guess")
    assert asked == []


def test_each_run_says_what_it_does():
    for name, chosen in (("lenet5", "eager"), ("resnet18", "compiled")):
        given = config(name)
        spec = next(s for s in plan(given).specs if s.optimizer == "adamwprune")
        assert FORMS["update"].chosen(pinned(given, spec)) == chosen


# The real thing: each need of compiling taken away, one by one.

WITHOUT_HEADERS = """#!/bin/sh
for a; do shift; case "$a" in */include/python3*) ;; *) set -- "$@" "$a";; esac; done
exec g++ "$@"
"""


FULL_AFTER_THE_TRIAL = """#!/bin/sh
grep -q compile_probe /proc/$PPID/cmdline || { echo "error: No space left on device" >&2; exit 1; }
exec g++ "$@"
"""


def nothing(tmp_path):
    return {}, ()


def no_compiler(tmp_path):
    return {"CXX": "/nonexistent/g++"}, ()


def no_c_compiler(tmp_path):
    """Triton needs it, and code for a CPU does not."""
    return {"CC": "/nonexistent/gcc"}, ()


def no_headers(tmp_path):
    wrapper = tmp_path / "g++"
    wrapper.write_text(WITHOUT_HEADERS)
    wrapper.chmod(0o755)
    return {"CXX": str(wrapper)}, ()


def no_folder(tmp_path):
    (tmp_path / "code").write_text("a file in the folder's place")
    return {}, ()


def no_execution(tmp_path):
    (tmp_path / "code").mkdir()
    mount = f"mount -t tmpfs -o noexec tmpfs {shlex.quote(str(tmp_path / 'code'))}"
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if subprocess.run([*unshare, "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no mount can be made here")
    return {}, (*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (nothing, None),
        (no_c_compiler, None),
        (no_compiler, "No working C++ compiler found"),
        (no_headers, "Python.h: No such file"),
        (no_folder, "File exists"),
        (no_execution, "noexec"),
    ],
)
def test_each_need_of_compiling(missing, says, tmp_path, monkeypatch):
    """By the very process that tries; in a folder of its own, for compiled code that lies there needs no compiler."""
    environment, before = missing(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [*before, sys.executable, "-m", "lib.compile_probe", "cpu", "update"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["form"] == "update"
    if says is None:
        assert answer["reason"] is None, answer
    else:
        assert says in answer["reason"] and "\n" not in answer["reason"]
        assert "Traceback" in answer["traceback"]


@pytest.mark.slow
def test_a_run_from_flags_goes_on_without_a_compiler(repo, tmp_path):
    """And says by name what it lacks, where it is told to compile."""
    flags = ["--dataset", "digits", "--max-iters", "1", "--batch-size", "2", "--eval-batch-size", "150"]
    env = {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "code"), "OMP_NUM_THREADS": str(cores())}
    done = repo.script("resnet18/train.py", *flags, "--results", str(tmp_path / "r"), **env)
    assert done.returncode == 0, done.stderr
    assert "No working C++ compiler" in read_origin(tmp_path / "r").not_compiled["UPDATE"]
    assert "No working C++ compiler" in (tmp_path / "r" / "report.md").read_text()
    done = repo.script("resnet18/train.py", *flags, "--update", "compiled", "--results", str(tmp_path / "s"), **env)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "UPDATE_COMPILED is set" in done.stderr and "No working C++ compiler" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc")
def test_a_run_from_flags_goes_on_where_compiling_fails_after_the_trial(repo, tmp_path):
    wrapper = tmp_path / "g++"
    wrapper.write_text(FULL_AFTER_THE_TRIAL)
    wrapper.chmod(0o755)
    flags = ["--dataset", "digits", "--max-iters", "1", "--batch-size", "2", "--eval-batch-size", "150"]
    env = {"CXX": str(wrapper), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "code"), "OMP_NUM_THREADS": str(cores())}
    done = repo.script("resnet18/train.py", *flags, "--results", str(tmp_path / "r"), **env)
    assert done.returncode == 0, done.stderr
    assert "UPDATE_COMPILED is set" not in done.stderr
    assert "after a trial that went well" in read_origin(tmp_path / "r").not_compiled["UPDATE"]
    assert "after a trial that went well" in (tmp_path / "r" / "report.md").read_text()
    assert set(forms(tmp_path / "r").values()) == {"eager"}
