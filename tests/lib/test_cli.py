"""The command line of a model's train.py: a flag is an assignment in the same Kconfig, checked in the same way."""

import dataclasses
import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lib import cli, kconfig, main
from lib.config import Config
from lib.hyper import read_recipe
from lib.matrix import expand
from lib.rundir import OWN, ROOT

MODELS = sorted(p.parent.name for p in ROOT.glob("*/train.py"))
RUN_FILES = {"config", "spec.json", "metrics.jsonl", "monitor.jsonl", "checkpoint-last.pt", "checkpoint-best.pt"}
RUN_FILES |= {"summary.json"}


@pytest.fixture(autouse=True)
def signals():
    """main() takes SIGTERM over, which is a worker's own here."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def no_task():
    """The task of a run whose settings are right alone; what is refused is refused before."""
    return SimpleNamespace(name="lenet5")


def config(text: str):
    return cli.parse("lenet5", text.split()).config


def test_flagless_is_adamw_without_pruning_on_the_models_own_data():
    [spec] = expand(config(""))
    assert (spec.id, spec.dataset, spec.seed) == ("lenet5_adamw_none", "mnist", 0)


def test_flags_name_the_run():
    found = config("--optimizer adamwprune --pruning-method state --target-sparsity 0.7 --dataset digits --seed 5")
    [spec] = expand(found)
    assert spec.id == "lenet5_adamwprune_bitter7_state_70"
    assert (spec.dataset, spec.adamwprune_base, spec.seed) == ("digits", "adamw", 5)
    assert read_recipe(found, "lenet5", "digits").batch_size == 64  # digits' own, as in a .config


@pytest.mark.parametrize(
    ("flags", "symbols"),
    [
        ("--epochs 3", {"LENET5_EPOCHS": "3"}),
        ("--adam-lr 0.01 --clip-norm 1", {"LENET5_ADAM_LR": "0.01", "LENET5_CLIP_NORM": "1"}),
        ("--lr-schedule constant", {"LENET5_LR_SCHEDULE_CONSTANT": "y", "LENET5_LR_SCHEDULE_COSINE": "n"}),
        ("--device cpu --num-threads 1", {"DEVICE_CPU": "y", "NUM_THREADS": "1"}),
        ("--optimizer adamwspam --spam-theta 50", {"OPTIMIZER_ADAMWSPAM": "y", "SPAM_THETA": "50"}),
        ("--optimizer sgd --sgd-nesterov y", {"OPTIMIZER_SGD": "y", "SGD_NESTEROV": "y", "OPTIMIZER_ADAMW": "n"}),
        ("--optimizer adamwprune --adamwprune-base adam", {"ADAMWPRUNE_BASE_ADAM": "y"}),
        ("--optimizer adamwprune --adamwprune-amsgrad true", {"ADAMWPRUNE_AMSGRAD": "true"}),
        ("--full-train y --monitor n", {"FULL_TRAIN": "y", "MONITOR": "n"}),
        ("--pruning-method movement --target-sparsity 0.5 --pruning-ramp-end 50%", {"PRUNING_RAMP_END": "50%"}),
        (
            "--optimizer adamwprune --pruning-method state --target-sparsity .9 --adamwprune-variant bitter5_away",
            {"ADAMWPRUNE_VARIANT_BITTER5_AWAY": "y", "TARGET_SPARSITY": ".9"},
        ),
    ],
)
def test_a_flag_is_an_assignment(flags, symbols):
    found = config(flags)
    assert {n: found[n] for n in symbols} == symbols


def test_missing_data_is_said_once_in_the_words_of_flags(capfd, monkeypatch, tmp_path):
    """By a run, and by the process that tries to download; through a proxy that nobody answers at."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    given = ["--data-dir", str(tmp_path / "nothing"), "--results", str(tmp_path / "results")]
    assert main.main("lenet5", no_task, given) == 2
    said = capfd.readouterr().err
    assert "MNIST could not be downloaded (" in said
    assert said.count("not found in") == 1
    assert said.split("error: ")[-1].startswith("MNIST: train-images-idx3-ubyte")
    assert "With a network it is downloaded; without a network put the files into" in said
    assert "(--data-dir names another place)" in said
    assert "needs no files (--dataset digits)" in said
    assert not (tmp_path / "results").exists()


def test_values_are_text():
    found = cli.parse("lenet5", ["--data-dir", "$(shell touch x) `touch x` \"'", "--results", "a b"]).config
    assert (found["DATA_DIR"], found["RESULTS"]) == ("$(shell touch x) `touch x` \"'", "a b")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--optimizer adamv", "--optimizer: unknown optimizer 'adamv'; did you mean adam or adamw"),
        ("--optimizer AdamW", "unknown optimizer 'AdamW'; did you mean adam or adamw"),
        ("--pruning-method mangitude", "--pruning-method: unknown pruning method 'mangitude'; did you mean magnitude"),
        ("--dataset cifar", "--dataset: unknown dataset 'cifar'. Known: mnist, digits"),
        ("--adamwprune-variant bitter77", "unknown adamwprune variant 'bitter77'; did you mean bitter7"),
        ("--device gpu", "--device: unknown device 'gpu'"),
        ("--lr-schedule cosin", "--lr-schedule: unknown lr schedule 'cosin'; did you mean cosine"),
        ("--epochs 0", "--epochs 0: CONFIG_LENET5_EPOCHS=0 is refused: give a whole number from 1 to"),
        ("--epochs three", "--epochs three: CONFIG_LENET5_EPOCHS=three: give a whole number"),
        ("--adam-lr -1", "CONFIG_LENET5_ADAM_LR='-1': give a finite number > 0"),
        ("--monitor maybe", "--monitor maybe: CONFIG_MONITOR=maybe: give y or n"),
        ("--seed -1", "--seed -1: give a whole number, 0 or more"),
        ("--seed 1,2", "--seed 1,2: give a whole number, 0 or more"),
        ("--spam-theta 50", "--spam-theta 50: CONFIG_SPAM_THETA=50 is dropped: it depends on OPTIMIZER_ADAMWSPAM"),
        ("--adamwprune-base adam", "is dropped: it depends on OPTIMIZER_ADAMWPRUNE"),
        ("--pruning-method state --target-sparsity 0.7", "state pairs only with adamwprune"),
        ("--optimizer adamwprune --pruning-method movement --target-sparsity 0.7", "adamwprune x movement"),
        ("--pruning-method movement", "TARGET_SPARSITY is empty, and movement needs it"),
        ("--target-sparsity 0.7", "ends in no run: the only method is none"),
        ("--pruning-method movement --target-sparsity 70", "'70' is no sparsity"),
        ("--pruning-method movement --target-sparsity 0.5,0.7", "trains one lenet5 run, and this is a matrix of 2"),
        ("--run somewhere --epochs 3", "--run says everything about a run: --epochs cannot be given beside it"),
        ("--run somewhere --config x", "--run says everything about a run: --config cannot be given beside it"),
        ("--config x --seed 3 --optimizer sgd", "--config says everything about a run: --optimizer, --seed cannot"),
        ("--config nowhere", "cannot read nowhere: No such file"),
        ("--run nowhere", "nowhere/config: No such file"),
    ],
)
def test_what_is_refused(capsys, monkeypatch, tmp_path, flags, says):
    monkeypatch.chdir(tmp_path)
    # Should it not be refused, the results at least go nowhere near the checkout.
    elsewhere = [] if "--run" in flags or "--config" in flags else ["--results", str(tmp_path / "results")]
    assert main.main("lenet5", no_task, [*flags.split(), *elsewhere]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--epoch 3", "unknown flag --epoch; did you mean --epochs"),  # an abbreviation could change its meaning
        ("--optim=sgd", "unknown flag --optim; did you mean --optimizer"),
        ("--lr 0.1", "unknown flag --lr; did you mean --sgd-lr or --adam-lr"),
        ("--learning-rate 0.1", "unknown flag --learning-rate; did you mean --sgd-lr or --adam-lr or "),
        ("--zzzz", "unknown flag --zzzz"),
        ("--foo", "unknown flag --foo\n"),
        ("--seed 3 extra", "'extra' is no flag: every setting is given as --name value"),
        ("--epochs", "argument --epochs: expected one argument"),
    ],
)
def test_flags_that_are_none(capsys, flags, says):
    """Near names first, in two lines: the usage of 90 flags would hide them."""
    assert main.main("lenet5", no_task, flags.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert (lines[0] + "\n").startswith(f"error: {says}")
    assert lines[1] == "`python lenet5/train.py --help` lists every flag with its default"


def test_a_config_of_another_model_or_of_several_runs(capsys, tmp_path, quickstart):
    quickstart.write(tmp_path / "config")
    for model, says in [("lenet5", "a matrix of 11"), ("resnet18", "trains one resnet18 run")]:
        task = SimpleNamespace(name=model)
        assert main.main(model, lambda task=task: task, ["--config", str(tmp_path / "config")]) == 2
        assert says in capsys.readouterr().err


def test_help_lists_every_setting():
    text = cli.parser("lenet5").format_help()
    for name, (cls, prefix) in cli.settings("lenet5").items():
        assert f"{cli.flag(name)} " in text
        prompt = kconfig.prompt((prefix + name).upper())
        field = next(f for f in dataclasses.fields(cls) if f.name == name)
        if not field.metadata.get("choice"):
            assert prompt, name
            assert " ".join(prompt.split()) in " ".join(text.split())
    for axis in cli.AXES:
        head = "LENET5_DATASET" if axis == "dataset" else axis.upper()
        assert cli.flag(axis) in text
        assert cli.members(head)
        assert " | ".join(cli.members(head)) in " ".join(text.split())


def test_every_flag_has_one_meaning():
    """A setting of a recipe and one of an optimizer may not share a name: the flag would set either."""
    names = [f.name for _, (cls, _) in cli.settings("lenet5").items() for f in dataclasses.fields(cls)]
    owners = {
        n: {c for c, _ in cli.settings("lenet5").values() if n in {f.name for f in dataclasses.fields(c)}}
        for n in names
    }
    assert {n for n, classes in owners.items() if len(classes) > 1} == set()


def test_train_py_as_a_user_gives_it(repo):
    """From its own folder; results stand at the root, and are what the same run of a matrix writes."""
    graphs = repo.path / "lib" / "figure" / "Kconfig"
    graphs.write_text(graphs.read_text().replace("default y", "default n"))  # drawing takes longer than the runs
    flags = "--optimizer adamwprune --pruning-method state --target-sparsity 0.7 --dataset digits --max-iters 3"
    more = ["--num-threads", "1", "--data-dir", "$(touch x) `touch x`"]
    done = repo.script("train.py", *flags.split(), *more, cwd="lenet5")
    assert done.returncode == 0, done.stderr
    [alone] = repo.path.glob("test_matrix_results_*")
    assert f"results: {alone}" in done.stdout
    run = alone / "lenet5_adamwprune_bitter7_state_70"
    assert {p.name for p in run.iterdir()} >= RUN_FILES
    assert json.loads((run / "summary.json").read_text())["steps"] == 3

    axes = "MODEL_LENET5 LENET5_DATASET_DIGITS OPTIMIZER_ADAMWPRUNE PRUNING_METHOD_STATE"
    repo.config.write_text("".join(f"CONFIG_{n}=y\n" for n in axes.split()) + 'CONFIG_TARGET_SPARSITY="0.7"\n')
    made = repo.make("run", "MAX_ITERS=3", "RESULTS=made", "SET=NUM_THREADS=1 'DATA_DIR=$(touch x) `touch x`'")
    assert made.returncode == 0, made.stderr
    matrix = repo.path / "made"
    assert {p.name for p in (matrix / run.name).iterdir()} - {"output.log"} == {p.name for p in run.iterdir()}
    assert {p.name for p in matrix.iterdir()} == {p.name for p in alone.iterdir()}
    assert {p.name for p in matrix.iterdir() if p.name != run.name} <= set(OWN)
    assert not list(repo.path.rglob("x"))

    again = repo.script("lenet5/train.py", "--config", str(matrix / run.name / "config"))
    assert again.returncode == 0, again.stderr
    third = max(repo.path.glob("test_matrix_results_*"))
    assert third != alone
    summaries = [json.loads((d / run.name / "summary.json").read_text()) for d in (matrix, third)]
    exact = ("final_loss", "final_accuracy", "test_accuracy_last", "achieved_sparsity", "data_hash", "steps")
    assert [summaries[0][k] for k in exact] == [summaries[1][k] for k in exact]


def test_train_py_says_what_is_wrong(repo):
    done = repo.script("train.py", "--optimizer", "adamv", cwd="lenet5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --optimizer: unknown optimizer 'adamv'; did you mean adam or adamw")


def test_train_py_as_a_module(repo):
    done = repo.script("-m", "lenet5.train", "--help")
    assert done.returncode == 0, done.stderr
    assert "--pruning-ramp-end" in done.stdout


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("diverged", 1)])
def test_the_status_of_a_run_is_the_exit_status(monkeypatch, tmp_path, status, code):
    import lib.trainer
    from lib.main import one
    from lib.rundir import RunDir

    monkeypatch.setattr(lib.trainer, "train", lambda *_: status)
    assert one(None, RunDir(tmp_path), Config({}, {}), None) == code


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        ("lenet5", ["--epochs N Epochs [10]", "[512, 64 on digits]", "Learning rate of the Adam family [0.003]"]),
        ("resnet18", ["--epochs N Epochs [100]", "[128, 64 on digits]", "Learning rate of the Adam family [0.001]"]),
        ("resnet50", ["--epochs N Epochs [200]", "own) [128] ", "--eval-batch-size N Batch size for evaluation "]),
        ("gpt2", ["--epochs N Epochs, of EVAL_INTERVAL steps each [40]", "own) [1024] ", "Adam family [0.0006]"]),
    ],
)
def test_help_says_the_models_own_defaults(model, lines):
    text = " ".join(cli.parser(model).format_help().split())
    for line in lines:
        assert line in text
    assert "cubic | linear | cubic_late | one_shot [cubic]" in text


@pytest.mark.parametrize("model", MODELS)
def test_every_default_in_the_help_is_what_holds_without_flags(model):
    """And y and n stand for bools alone: 0 == False."""
    actions = {a.option_strings[-1]: a for a in cli.parser(model)._actions}
    flagless = cli.parse(model, []).config
    for name, (cls, prefix) in cli.settings(model).items():
        action, symbol = actions[cli.flag(name)], (prefix + name).upper()
        field = next(f for f in dataclasses.fields(cls) if f.name == name)
        if symbol in flagless and name != "batch_size":
            value = flagless[symbol]
            assert action.help.replace("%%", "%").endswith(f" [{value}]" if value else kconfig.prompt(symbol))
        assert (action.metavar == "y|n") == (field.type in (bool, bool | None))
        if action.help.endswith((" [y]", " [n]")):
            assert field.type is bool


HELP = """
import io, runpy, sys, time
from contextlib import redirect_stdout

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "numpy", "matplotlib", "scipy"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Block())
for model in sys.argv[1:]:
    sys.argv, text = [f"{model}/train.py", "--help"], io.StringIO()
    try:
        with redirect_stdout(text):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as e:
        assert not e.code, e.code
    assert f"recipe of {model}" in text.getvalue()
    print(model, f"{time.process_time():.2f} s")
"""


def test_help_needs_no_torch_and_less_than_a_second():
    """Of the processor, in one process for all models: what another process does must not count."""
    done = subprocess.run([sys.executable, "-c", HELP, *MODELS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == MODELS
    assert float(done.stdout.split()[1]) < 1, done.stdout
