"""Torch's threads sleep while they wait: the variable is there before torch is loaded, in all that we start."""

import os
import subprocess
import sys

import pytest

import lib
from lib import launch
from lib.executor.base import EXECUTORS, Job
from lib.rundir import ROOT, RunDir

NAME = "OMP_WAIT_POLICY"
FILES = [p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*/train.py"), *sorted(ROOT.glob("scripts/*.py"))]]

# Runs each file as far as its first import of torch, and says what the environment is then.
ORDER = """
import os, runpy, sys

class Torch(BaseException):
    pass

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise Torch

sys.meta_path.insert(0, Watch())
sys.path.insert(0, ".")
import lib
print("library", os.environ.get("OMP_WAIT_POLICY"))
for file in sys.argv[1:]:
    os.environ.pop("OMP_WAIT_POLICY", None)
    try:
        runpy.run_path(file, run_name="not main").get("make_task", lambda: None)()
    except Torch:
        print(file, os.environ.get("OMP_WAIT_POLICY"))
"""


def test_it_is_set_before_torch_is_loaded_and_not_by_the_library():
    env = {k: v for k, v in os.environ.items() if k != NAME}
    done = subprocess.run([sys.executable, "-c", ORDER, *FILES], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *found = (line.split() for line in done.stdout.splitlines())
    assert first == ["library", "None"]
    told = dict(found) | {"scripts/bench_reference.py": "PASSIVE"}  # a library of bench_models, which sets it
    assert set(told.values()) == {"PASSIVE"}
    assert {"lenet5/train.py", "gpt2/train.py", "scripts/bench_core.py", "scripts/bench_models.py"} <= told.keys()


@pytest.mark.parametrize(("given", "want"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_what_we_start_has_it_and_a_users_own_value_stays(given, want, monkeypatch, tmp_path):
    monkeypatch.delenv(NAME, raising=False)
    if given:
        monkeypatch.setenv(NAME, given)
    script = tmp_path / "job.py"
    script.write_text(f"import os\nprint(os.environ[{NAME!r}])")
    [(_, status)] = EXECUTORS["local"]().run([Job(tmp_path, (str(script),))])
    assert status.state == "done" and (tmp_path / "output.log").read_text().split() == [want]
    seen = []

    class Process:
        def __init__(self, command, env, **_):
            seen.append((command[2], env[NAME]))

        def wait(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    launch.together(RunDir(tmp_path), type("Spec", (), {"model": "lenet5"}), 2)
    assert seen == [("torch.distributed.run", want)]
    assert os.environ.get(NAME) == given
    lib.let_threads_sleep()
    assert os.environ[NAME] == want


def test_make_hands_it_on(repo):
    (repo.path / "scripts" / "matrix.py").write_text(f"import os\nprint('has', os.environ.get({NAME!r}))")
    own = {k: v for k, v in os.environ.items() if k != NAME and not k.startswith(("MAKE", "MFLAGS"))}
    for given, want in (({}, "PASSIVE"), ({NAME: "ACTIVE"}, "ACTIVE")):
        command = ["make", "plan", f"PYTHON={sys.executable}"]
        done = subprocess.run(command, cwd=repo.path, env=own | given, capture_output=True, text=True)
        assert done.stdout.split() == ["has", want], done.stderr
