"""A few measured steps: the very model and batch where they are fast, a part of it where not, and what comes out."""

import importlib
import json

import pytest
import torch
from train_kit import prepare

from lib import main, probe

LINES = {
    "lenet5": {"LENET5_DATASET_DIGITS": "y"},
    "resnet18": {
        "MODEL_RESNET18": "y",
        "RESNET18_DATASET_DIGITS": "y",
        "RESNET18_BATCH_SIZE": "2",
        "RESNET18_STEM_IMAGENET": "y",
        "RESNET18_EVAL_BATCH_SIZE": "2",
    },
    "gpt2": {"MODEL_GPT2": "y", "GPT2_DATASET_STDLIB": "y", "GPT2_SIZE_TINY": "y", "GPT2_BATCH_SIZE": "2"},
}


@pytest.fixture(autouse=True)
def fast(monkeypatch, one_thread):
    monkeypatch.setattr(probe, "STEP_S", 0.01)
    monkeypatch.setattr(probe, "LEAST", (1, 0.0))


def run(tmp_path, model: str):
    own = {} if model == "lenet5" else {"MODEL_LENET5": "", "LENET5_DATASET_DIGITS": ""}
    return prepare(tmp_path, "adamw", **own, **LINES[model])


@pytest.mark.parametrize(("model", "parameters"), [("lenet5", 61_750), ("resnet18", 11_181_642), ("gpt2", 867_072)])
def test_what_is_measured(tmp_path, model, parameters):
    _, config, spec = run(tmp_path, model)
    found = probe.measure(importlib.import_module(f"{model}.train").make_task(), config, spec)
    assert found["step_s"] > 0 < found["evaluation_s"]
    assert 0 < found["share"] <= 1
    assert (found["load_s"] is None) == (model == "gpt2")
    assert found["parameters"] == parameters > found["prunable"] > 0.9 * parameters
    assert found["activations"] > 1e5
    assert json.loads(json.dumps(found)) == found


def test_train_py_prints_it(tmp_path, capsys):
    d, _, _ = run(tmp_path, "lenet5")
    before = sorted(p.name for p in d.path.iterdir())
    make_task = importlib.import_module("lenet5.train").make_task
    assert main.main("lenet5", make_task, ["--run", str(d.path), "--probe"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"] == 61_750
    assert sorted(p.name for p in d.path.iterdir()) == before
    assert main.main("lenet5", make_task, ["--probe"]) == 2
    assert "--probe goes with --run DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "share", "tokens", "taken", "left"),
    [
        ((16, 1, 8, 8), 0.5, 64, 0.5, (8, 1, 8, 8)),
        ((16, 1, 8, 8), 9.0, 64, 1.0, (16, 1, 8, 8)),
        ((16, 1, 8, 8), 0.001, 64, 1 / 8, (2, 1, 8, 8)),
        ((16, 256), 0.001, 64, 1 / 64, (1, 64)),
        ((16, 256), 1 / 32, 64, 1 / 32, (1, 128)),
        ((16, 32), 0.0, 64, 1 / 16, (1, 32)),
    ],
)
def test_a_part_of_a_batch(shape, share, tokens, taken, left):
    """And which share of the whole it is."""
    y = torch.zeros(shape if len(shape) == 2 else shape[:1])
    (x, labels), found = probe.cut((torch.zeros(shape), y), share, tokens)
    assert (found, tuple(x.shape), len(labels)) == (taken, left, left[0])
    assert labels.shape[1:] == (left[1:] if len(shape) == 2 else ())


def test_a_whole_batch_is_scaled_from_a_part(tmp_path):
    """A batch of two micro-batches takes twice the gradients of one, and one update."""
    settings = {"LENET5_BATCH_SIZE": "64", "LENET5_MICRO_BATCH": "32", "HYPER_PARAM_AUTO": "n"}
    _, config, spec = prepare(tmp_path, "adamw", LENET5_DATASET_DIGITS="y", **settings)

    class Timed(probe.Steps):
        def gradients(self):
            return 0.5, 3.2

        def update(self):
            return 1.0

        def evaluation(self, sample_s):
            return 20 * sample_s

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "Steps", Timed)
        task = importlib.import_module("lenet5.train").make_task()
        found = probe.measure(task, config, spec)
    assert (found["step_s"], found["evaluation_s"], found["share"]) == (7.4, 2.0, 0.5)


@pytest.mark.parametrize("model", ["lenet5", "gpt2"])
def test_what_takes_too_long_is_done_once_on_the_smallest_part(monkeypatch, tmp_path, model):
    """The gradients twice, for the first time costs more; the rest once. No more is made up than that takes."""
    monkeypatch.setattr(probe, "BUDGET_S", 0.0)
    monkeypatch.setattr(probe, "STEP_S", 1e-6)
    made, done, plain = [], [], probe.made_up
    monkeypatch.setattr(probe, "made_up", lambda *given: made.append(given[-1]) or plain(*given))
    monkeypatch.setattr(probe.Steps, "loss", counted(probe.Steps.loss, done))
    _, config, spec = run(tmp_path, model)
    probe.measure(importlib.import_module(f"{model}.train").make_task(), config, spec)
    first, least = (1, 1) if model == "gpt2" else (2, 1)
    assert made == [first, least]
    assert done == ([(1, 64)] * 3 if model == "gpt2" else [2, 2, least])


def counted(loss, done):
    def counting(self, part, *more):
        done.append(tuple(part[0].shape) if part[0].ndim == 2 else len(part[0]))
        return loss(self, part, *more)

    return counting


def test_a_part_grows_until_it_can_be_timed(monkeypatch, tmp_path):
    """The whole batch where it is fast; and a part saves its share of what a backward pass needs."""
    _, config, spec = run(tmp_path, "lenet5")
    task = importlib.import_module("lenet5.train").make_task()
    found = []
    for step_s in (1e-6, 60.0):
        monkeypatch.setattr(probe, "STEP_S", step_s)
        found.append(probe.measure(task, config, spec))
    assert [f["share"] for f in found] == [2 / 64, 1.0]
    assert found[0]["activations"] == pytest.approx(found[1]["activations"], rel=0.01)
