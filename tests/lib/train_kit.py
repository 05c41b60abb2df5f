"""What tests of training share: a run directory of one cell, a run in it, and what it wrote."""

import json

import torch
from house import shared

from lenet5.train import make_task
from lib import kconfig
from lib.config import Config
from lib.matrix import pin, plan
from lib.rundir import RunDir
from lib.trainer import train

TASK = make_task()
# Quantities that are measured, not computed.
MEASURED = {"elapsed_s", "train_s", "first_epoch_s", "memory", "provenance", "files", "digest"}
BASE = {
    "DATA_DIR": str(shared() / "data"),
    "MODEL_LENET5": "y",
    "LENET5_DATASET_DIGITS": "y",
    "MONITOR": "n",
    "DEVICE_CPU": "y",
    "NUM_THREADS": "1",
    "MAX_ITERS": "40",
}


class Run:
    """A finished run and what it wrote."""

    def __init__(self, path):
        self.dir = RunDir(path)
        self.rows = [json.loads(line) for line in self.dir.metrics.read_text().splitlines()]
        self.summary = json.loads(self.dir.summary.read_text())
        self.ledger = self.dir.read_summary().ledger
        self.epochs = [r for r in self.rows if r["event"] == "epoch"]
        self.prunes = [r for r in self.rows if r["event"] == "prune"]
        self.start = next(r for r in self.rows if r["event"] == "start")

    def exact(self):
        def strip(row):
            return {k: v for k, v in row.items() if k not in MEASURED}

        return [strip(r) for r in [*self.rows, self.summary]]

    def last(self):
        return torch.load(self.dir.last, weights_only=True)


def prepare(path, optimizer, method="none", sparsity="", **settings):
    """The run directory of one cell, as a results directory holds it."""
    lines = {**BASE, f"OPTIMIZER_{optimizer.upper()}": "y", f"PRUNING_METHOD_{method.upper()}": "y"}
    lines |= {"TARGET_SPARSITY": sparsity, **settings}
    config = kconfig.apply(None, [(k, v, "test") for k, v in lines.items() if v != ""])
    (spec,) = plan(config).specs
    d = RunDir(path / spec.id).create(kconfig.normalise(pin(config, spec)), spec)
    return d, Config.load(d.config), d.spec()


def run(path, *args, **settings):
    d, config, spec = prepare(path, *args, **settings)
    train(TASK, d, config, spec)
    return Run(d.path)


class Like:
    """A task that is `task` but for what a subclass says."""

    task = TASK

    def __getattr__(self, name):
        return getattr(self.task, name)
