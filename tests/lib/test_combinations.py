"""Three steps of every model with every optimizer and every pruning method, to its target."""

import importlib

import pytest
import torch
from train_kit import BASE, Like

from lib import checkpoint, kconfig
from lib.config import Config
from lib.matrix import pin, plan
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS
from lib.rundir import RunDir
from lib.task import Scores
from lib.trainer import Trainer

OWN = {
    "lenet5": {"LENET5_DATASET_DIGITS": "y", "LENET5_BATCH_SIZE": "8"},
    "resnet18": {"RESNET18_DATASET_DIGITS": "y", "RESNET18_BATCH_SIZE": "2"},
    "resnet50": {"RESNET50_DATASET_DIGITS": "y", "RESNET50_BATCH_SIZE": "2"},
    "gpt2": {
        "GPT2_DATASET_STDLIB": "y",
        "GPT2_SIZE_TINY": "y",
        "GPT2_BLOCK": "16",
        "GPT2_BATCH_SIZE": "2",
        "GPT2_EVAL_INTERVAL": "3",
    },
}


def matrix(model: str) -> Config:
    """All that can be paired at 70%, three steps each."""
    lines = {f"MODEL_{model.upper()}": "y", **OWN[model], **{k: v for k, v in BASE.items() if "LENET5" not in k}}
    lines |= {f"OPTIMIZER_{o.upper()}": "y" for o in OPTIMIZERS} | {f"PRUNING_METHOD_{m.upper()}": "y" for m in PRUNERS}
    lines |= {"MAX_ITERS": "3", "TARGET_SPARSITY": "0.7", "PRUNING_WARMUP": "0", "PRUNING_FREQUENCY": "1"}
    lines |= {f"{model.upper()}_LR_WARMUP": "0", "SPAM_DELTA_T": "0"}
    return kconfig.apply(None, [(k, v, "test") for k, v in lines.items()])


class Task(Like):
    """Without evaluations, which would take longer than the steps."""

    def __init__(self, model):
        self.task = importlib.import_module(f"{model}.train").make_task()

    def evaluate(self, model, split, recipe, add):
        return Scores(1.0, 50.0 if self.task.metric == "accuracy" else None)

    def shown(self, model, data, add):
        return {}


class Silent:
    def phase(self, name):
        pass

    def stop(self):
        pass


def cells(model: str) -> list:
    slow = [pytest.mark.slow] if model.startswith("resnet") else []
    return [pytest.param(model, s.id, marks=slow, id=s.id) for s in plan(matrix(model)).specs]


@pytest.mark.parametrize(("model", "name"), [c for m in OWN for c in cells(m)])
def test_three_steps(tmp_path, one_thread, monkeypatch, model, name):
    monkeypatch.setattr(checkpoint, "save", lambda path, state: None)  # of hundreds of MiB each
    config = matrix(model)
    spec = next(s for s in plan(config).specs if s.id == name)
    d = RunDir(tmp_path / spec.id).create(kconfig.normalise(pin(config, spec)), spec)
    trainer = Trainer(Task(model), spec, Config.load(d.config), d, Silent())
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    assert trainer.run() == "done"
    assert trainer.optimizer.updates == 3
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert any(not torch.equal(before[n], p) for n, p in trainer.model.named_parameters())
    if trainer.pruner:
        total = sum(p.numel() for _, p in trainer.weights)
        zeros = sum(int((p == 0).sum()) for _, p in trainer.weights)
        assert trainer.pruner.count() == round(0.7 * total)
        assert zeros >= trainer.pruner.count()  # what SET and RigL grow begins at 0
        assert zeros == trainer.pruner.count() or PRUNERS[spec.pruning_method].reversible
