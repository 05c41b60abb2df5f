"""make, as a user gives it, in a copy of the repository. No value may ever run a command, and no mistake is silent."""

import importlib
import re
import shutil
import sys

import pytest
from house import Repo

import lib
from lib import kconfig, overrides, runner
from lib.config import InputError
from lib.rundir import ROOT

# What make, the shell or Python would run if any of them took it for more than text. One trick each: two in one text
# can be a syntax error, and so hide each other.
INJECTIONS = ["$(shell touch x)", "$(touch x)", "`touch x`", "; touch x; ", '"; touch x; "', "'; touch x; '"]
PRESETS = sorted(p.name for p in (ROOT / "defconfigs").iterdir())


def untouched(repo) -> None:
    assert [p for p in repo.path.rglob("*") if p.name == "x" or p.name.startswith("x;")] == []


def test_plan_without_a_config_is_the_quickstart(repo):
    done = repo.make("plan")
    assert done.returncode == 0, done.stderr
    assert "no .config here: taking the preset quickstart" in done.stdout
    assert "11 runs:" in done.stdout
    assert "adamwprune x movement: adamwprune pairs only with none and state" in done.stdout
    assert "estimate: about" in done.stdout
    assert not repo.config.exists()


def test_plan_ids_alone(repo):
    golden = (ROOT / "tests" / "golden" / "quickstart.txt").read_text()
    done = repo.make("plan", "FORMAT=ids")
    assert (done.returncode, done.stdout, done.stderr) == (0, golden, "")


def test_defconfig_then_plan(repo):
    done = repo.make("defconfig-lenet5")
    assert "lenet5 is now .config" in done.stdout
    assert repo.config.read_text().count("=y") > 15
    assert repo.ids() == (ROOT / "tests" / "golden" / "lenet5.txt").read_text().split()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["EPOCHS="], "EPOCHS= is given but empty"),
        (["SET="], "SET= is given but empty"),
        (["RESULTS= "], "RESULTS= is given but empty"),
        (["EPOCHS=0"], "EPOCHS=0: give a whole number of at least 1"),
        (["EPOCHS=-1"], "EPOCHS=-1: give a whole number"),
        (["EPOCHS=abc"], "EPOCHS=abc: give a whole number"),
        (["EPOCHS=3", "MAX_ITERS=5"], "EPOCHS=3 and MAX_ITERS=5: both set the length; give one"),
        (["SEEDS=0"], "error: SEEDS=0: CONFIG_SEEDS='0': give a count from 1"),
        (["EPOCH=3"], "unknown variable EPOCH: known are EPOCHS SEEDS MAX_ITERS"),
        (["V=1"], "unknown variable V:"),
        (["OVERRIDE_EPOCHS=3"], "unknown variable OVERRIDE_EPOCHS"),
        (["SHELL=/bin/false"], "unknown variable SHELL"),
        (["TORCH=2.11.0"], "TORCH changes nothing here: it goes with check-torch"),
        (["FORMAT=bad"], "FORMAT: give text or ids"),
        (["FORMAT="], "FORMAT: give text or ids"),
        (["FORMAT=text ids"], "'text ids'"),
        (["SET=LENET5_EPOCH=3"], "did you mean LENET5_EPOCHS"),
        (["SET=SPAM_THETA=50"], "SPAM_THETA=50 is dropped: it depends on"),
        (["SET=MONITOR_INTERVAL=never"], "CONFIG_MONITOR_INTERVAL='never': give a number"),
        (["SET=TARGET_SPARSITY=half"], "'half' is no sparsity"),
        (["SET=LENET5_ADAM_LR=-1"], "CONFIG_LENET5_ADAM_LR='-1': give a finite number > 0"),
    ],
)
def test_mistakes_are_said(repo, args, says):
    repo.failed(repo.make("plan", *args), says)


def test_overrides_reach_the_plan_and_not_the_config(repo):
    repo.make("defconfig-quickstart")
    before = repo.config.read_bytes()
    assert "18 steps of 64, 1 evaluations on digits" in repo.make("plan", "EPOCHS=1").stdout
    assert len(repo.ids("SEEDS=3")) == 33
    assert "lenet5_adamw_movement_99.5" in repo.ids("SET=TARGET_SPARSITY=0.995")
    assert repo.config.read_bytes() == before


@pytest.fixture
def dispatched(tmp_path):
    """A function: what the Makefile hands on of a command line, as (exit status, arguments, environment). An
    interpreter that only writes down what it was given stands where Python does."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$@" > arguments\nenv -0 > environment\n')
    python.chmod(0o755)

    def make(*args):
        done = Repo(tmp_path).make(*args, f"PYTHON={python}")
        assert list(tmp_path.glob("x*")) == []
        if not (tmp_path / "arguments").exists():
            return done.returncode, None, None
        arguments, environment = ((tmp_path / n).read_text().split("\0")[:-1] for n in ("arguments", "environment"))
        return done.returncode, arguments, dict(line.split("=", 1) for line in environment)

    return make


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("name", overrides.NAMES)
def test_a_variable_is_text(dispatched, monkeypatch, name, text):
    """It reaches Python as it was given; there a directory may have any name, and nothing else may be a command."""
    code, arguments, given = dispatched("plan", f"{name}={text}")
    assert (code, arguments) == (0, ["scripts/matrix.py", "plan", "--format", "text", "--probe", "n"])
    assert {k: v for k, v in given.items() if k.startswith("OVERRIDE_")} == {f"OVERRIDE_{name}": text}
    taken = overrides.from_environment(given)
    assert taken == {name: text}
    config = kconfig.load(ROOT / "defconfigs" / "quickstart")
    if name in ("RESULTS", "DATA_DIR"):
        assert overrides.apply(config, taken)[name] == text
    else:
        with pytest.raises(InputError):
            runner.check(overrides.apply(config, taken))


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("name", ["FORMAT", "EPOCH", "V"])
def test_a_variable_that_make_refuses_is_text(dispatched, name, text):
    assert dispatched("plan", f"{name}={text}") == (2, None, None)


@pytest.mark.parametrize("name", ["RESULTS", "DATA_DIR", "SET"])
def test_a_variable_is_text_to_the_end(repo, name):
    """What Python makes of it included."""
    done = repo.make("plan", f"{name}={INJECTIONS[0]}")
    assert done.returncode == (0 if name != "SET" else 2)
    untouched(repo)


@pytest.mark.parametrize("text", INJECTIONS)
def test_the_interpreter_is_text(repo, text):
    assert repo.make("plan", f"PYTHON={text}").returncode == 2
    untouched(repo)


@pytest.mark.parametrize("text", INJECTIONS)
def test_the_name_of_a_preset_is_text(dispatched, text):
    code, arguments, given = dispatched(f"defconfig-{text}")
    assert (code, arguments, given["PRESET"]) == (0, ["scripts/config.py", "defconfig", text], text)
    with pytest.raises(InputError, match=re.escape(f"unknown preset {text!r}.")):
        importlib.import_module("scripts.config").preset(text)


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_value_in_the_config_is_text(repo, text):
    """Through every target that reads .config, and through a value that SET gives."""
    shutil.copy(ROOT / "defconfigs" / "quickstart", repo.config)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    lines = [line for line in repo.config.read_text().splitlines() if not line.startswith("CONFIG_DATA_DIR=")]
    repo.config.write_text("\n".join([*lines, f'CONFIG_DATA_DIR="{quoted}"', ""]))
    for target in ("plan", "savedefconfig", "olddefconfig", "data"):
        done = repo.make(target)
        assert done.returncode == 0, done.stderr
    assert kconfig.load(repo.config)["DATA_DIR"] == text
    assert kconfig.load(repo.path / "defconfig")["DATA_DIR"] == text
    untouched(repo)


@pytest.mark.parametrize("text", INJECTIONS)
def test_values_that_make_would_run_are_recorded_as_they_are(repo, tmp_path, text):
    """As far as a results directory, which is refused here only because it has something in it."""
    folder = repo.path / text.replace("/", "")
    folder.mkdir()
    (folder / "precious").write_text("")
    repo.failed(repo.make("run", f"RESULTS={text}"), f"RESULTS={text}: {folder} is not empty")
    untouched(repo)


def test_an_unknown_preset_shows_near_names(repo):
    repo.failed(
        repo.make("defconfig-lenet5-admw"), "unknown preset 'lenet5-admw'; did you mean lenet5-adamw or lenet5-adam"
    )
    assert not repo.config.exists()


@pytest.mark.parametrize("name", ["../Kconfig", "lenet5/", ".."])
def test_a_preset_is_no_path(repo, name):
    assert repo.make(f"defconfig-{name}").returncode == 2
    assert not repo.config.exists()


def test_list_defconfigs(repo):
    done = repo.make("list-defconfigs")
    assert [line.split()[0] for line in done.stdout.splitlines()] == PRESETS
    assert all("?" in line for line in done.stdout.splitlines())


def test_help_names_every_target(repo):
    done = repo.make("help")
    targets = re.findall(r"^([a-z%-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(targets) > 12
    assert [t for t in targets if t not in done.stdout] == []
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    assert done.returncode == 0


def test_savedefconfig_gives_the_preset_back(repo):
    repo.make("defconfig-lenet5-bitter-variants")
    assert "wrote defconfig" in repo.make("savedefconfig").stdout
    preset = (ROOT / "defconfigs" / "lenet5-bitter-variants").read_text()
    assert (repo.path / "defconfig").read_text() == "".join(
        line for line in preset.splitlines(keepends=True) if not line.startswith("# ")
    )


@pytest.mark.parametrize("target", ["savedefconfig", "menuconfig"])
def test_targets_that_cannot(repo, target):
    """savedefconfig needs a .config, menuconfig a terminal."""
    repo.failed(repo.make(target), "No such file" if target == "savedefconfig" else "needs a terminal")


def test_olddefconfig_names_what_it_drops(repo):
    repo.config.write_text("CONFIG_MODEL_LENET5=y\nCONFIG_GONE=1\nCONFIG_SPAM_THETA=50\nCONFIG_LENET5_EPOCHS=7\n")
    repo.failed(repo.make("plan"), ".config:2: CONFIG_GONE: unknown symbol")
    done = repo.make("olddefconfig")
    assert "dropped: " in done.stdout
    assert ".config:2: CONFIG_GONE" in done.stdout
    assert ".config:3: CONFIG_SPAM_THETA=50 is dropped" in done.stdout
    assert "2 lines dropped (kept in .config.old)" in done.stdout
    assert "CONFIG_GONE=1" in (repo.path / ".config.old").read_text()
    assert kconfig.load(repo.config)["LENET5_EPOCHS"] == "7"


def test_olddefconfig_without_a_config(repo):
    assert repo.make("olddefconfig").returncode == 0
    assert len(repo.ids()) == 11


def test_a_config_that_is_no_text_can_be_replaced(repo):
    repo.config.write_bytes(b"CONFIG_A=\xff\n")
    repo.failed(repo.make("plan"), "cannot read", ".config")
    assert repo.make("defconfig-quickstart").returncode == 0
    assert (repo.path / ".config.old").read_bytes() == b"CONFIG_A=\xff\n"


def test_a_line_that_does_not_survive_stops_every_target_that_reads_it(repo):
    repo.make("defconfig-lenet5-sgd")
    with repo.config.open("a") as f:
        f.write("CONFIG_SPAM_THETA=50\n")
    for target in ("plan", "run", "data", "savedefconfig"):
        repo.failed(repo.make(target), "CONFIG_SPAM_THETA=50 is dropped: it depends on OPTIMIZER_ADAMWSPAM")


def test_the_scripts_own_status(repo):
    """2 for bad input; make itself exits with 2 whatever it was."""
    assert repo.script("scripts/matrix.py", "plan", OVERRIDE_EPOCHS="0").returncode == 2
    assert repo.script("scripts/matrix.py", "plan", "--format", "bad").returncode == 2
    assert repo.script("scripts/config.py", "defconfig", "nonesuch").returncode == 2
    assert repo.script("scripts/data.py", "nonesuch").returncode == 2
    assert repo.script("scripts/report.py", "report").returncode == 2


@pytest.mark.parametrize(
    ("end", "code", "says"),
    [
        (None, 0, ""),
        (runner.Failures("1 of 2 runs did not finish"), 1, "1 of 2 runs did not finish"),
        (InputError("what and why"), 2, "error: what and why"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_the_status_of_a_matrix(monkeypatch, capsys, end, code, says):
    script = importlib.import_module("scripts.matrix")
    monkeypatch.setattr(sys, "argv", ["matrix.py", "run"])
    monkeypatch.setattr(script, "configured", lambda: None)

    def run(config):
        if end:
            raise end

    monkeypatch.setattr(script.runner, "run", run)
    with pytest.raises(SystemExit) as exit_:
        lib.call(script.main)
    assert exit_.value.code == code
    assert says in capsys.readouterr().err


def test_scripts_work_from_anywhere(repo):
    done = repo.script("../scripts/matrix.py", "plan", "--format", "ids", cwd="lenet5")
    assert (done.returncode, len(done.stdout.split())) == (0, 11)


def test_a_missing_package_names_make_venv(repo):
    """As a Python that has nothing installed says it."""
    for script in ("scripts/matrix.py", "scripts/config.py", "scripts/report.py", "scripts/data.py", "lenet5/train.py"):
        done = repo.script("-S", "-E", script, "plan")
        assert done.returncode == 2
        assert "is missing in" in done.stderr
        assert "`make venv`" in done.stderr


def test_targets_of_a_plain_clean(repo):
    """clean and mrproper leave results and data."""
    repo.make("defconfig-quickstart")
    for name in ("data/MNIST", "test_matrix_results_20250101_000000", "lib/__pycache__", ".hypothesis"):
        (repo.path / name).mkdir(parents=True, exist_ok=True)
    assert repo.make("clean").returncode == 0
    left = {p.name for p in repo.path.iterdir()} | {p.name for p in (repo.path / "lib").iterdir()}
    assert {"data", "test_matrix_results_20250101_000000", ".config"} <= left
    assert not {"__pycache__", ".hypothesis"} & left
    assert repo.make("mrproper").returncode == 0
    assert not repo.config.exists()
    assert (repo.path / "data" / "MNIST").exists()


def test_make_in_a_folder_with_spaces(repo, tmp_path):
    moved = shutil.move(repo.path, tmp_path / "a folder; touch x")
    done = type(repo)(moved).make("plan", "FORMAT=ids")
    assert (done.returncode, len(done.stdout.split())) == (0, 11)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["olddefconfig", "SET=LENET5_EPOCHS=4"], "SET changes nothing here"),
        (["defconfig-quickstart", "EPOCHS=3"], "EPOCHS changes nothing here"),
        (["list-defconfigs", "FORMAT=ids"], "FORMAT changes nothing here"),
        (["run", "PROBE=y"], "PROBE changes nothing here: it goes with plan"),
        (["plan", "PROBE=yes"], "PROBE: give y or n"),
        (["plan", "PYTHON="], "PYTHON= is given but empty"),
    ],
)
def test_what_would_be_ignored_is_refused(repo, args, says):
    repo.failed(repo.make(*args), says)


def test_a_preset_and_its_matrix_on_one_line(repo):
    done = repo.make("defconfig-lenet5-sgd", "plan", "EPOCHS=2", "FORMAT=ids")
    assert (done.returncode, done.stdout.split()[-1]) == (0, "lenet5_sgd_none")


def test_new_code_counts_as_a_local_change(repo):
    """A file that git does not know yet can change a result as well as an edit can."""
    code = "from lib import provenance; print(provenance.collect().dirty)"
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"]):
        repo.run("git", *command)
    assert repo.script("-c", code).stdout == "None\n"
    (repo.path / "lib" / "optim" / "new.py").write_text("# new\n")
    assert repo.script("-c", code).stdout != "None\n"
