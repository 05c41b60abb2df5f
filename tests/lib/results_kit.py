"""What tests of results share: a results directory, and what a finished run leaves in it."""

import json
from dataclasses import replace

from lib import kconfig, rundir
from lib.files import file_digest, write_record
from lib.matrix import expand, pin
from lib.monitor.stats import SCHEMA
from lib.provenance import Provenance
from lib.records import End, Epoch, Ledger, Memory, Origin, Predicted, PruningWindow, Start, Summary
from lib.schema import field_names, plain

HEADER = {
    "schema": SCHEMA,
    "fields": ["process_memory"],
    "pid": 1,
    "interval_s": 1.0,
    "started": 0.0,
    "devices": [{"vendor": "cpu", "index": 0}],
}
PROVENANCE = Provenance(
    commit="c0ffee", dirty=None, python="3.11", versions={"torch": "2"}, host="host", system="Linux", cpu="CPU", cores=2
)
TENSORS = {"weights": 3 << 20, "gradients": 1 << 20, "data": 9 << 20}
LEDGER = Ledger(
    phases={"train": Memory(tensors=TENSORS)},
    activations=None,
    predicted=Predicted(classes={}, kept=0, multiple=3.0, less_than_movement_pct=0.0),
)


def sample(t, phase, mib=None):
    return {"t": t, "phase": phase, "devices": [[mib]]}


MONITOR = [
    HEADER,
    sample(0, "load", 900.0),
    sample(1, "train", 100.0),
    sample(2, "train", 300.0),
    sample(4, "end", 50.0),
]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(plain(r)) + "\n" for r in rows))


def make_root(path, config):
    """A results directory with every run of `config` prepared and none started."""
    path.mkdir(exist_ok=True)
    config.write(path / "config")
    write_record(path / "provenance.json", Origin(**vars(PROVENANCE), config=file_digest(path / "config")))
    for spec in expand(config):
        rundir.RunDir(path / spec.id).create(kconfig.normalise(pin(config, spec)), spec)
    return path


def finish(root, name, monitor=MONITOR, events=(), **changes):
    """Write what a finished run leaves; `changes` are fields of its summary."""
    run = rundir.RunDir(root / name)
    spec = run.spec()
    known = {
        **dict.fromkeys(field_names(Summary)),
        **spec.dict(),
        "status": "done",
        "metric": "accuracy",
        "test_accuracy_last": 98.0,
        "test_accuracy_best": 98.0,
        "achieved_sparsity": spec.target_sparsity,
        "achieved_sparsity_of_all": spec.target_sparsity / 2,
        "damaged_images": 0,
        "steps": 360,
        "epochs": 1,
        "planned_steps": 360,
        "skipped_steps": 0,
        "batch_size": 64,
        "model_parameters": 2000,
        "prunable_parameters": 1000,
        "precision": "fp32",
        "compiled": False,
        "data_hash": "d" * 64,
        "ledger": LEDGER,
        "device": "CPU",
        "devices": 1,
        "gpus": [],
        "threads": 2,
        "elapsed_s": 10.0,
        "train_s": 9.0,
        "provenance": PROVENANCE,
        **changes,
    }
    write_lines(
        run.metrics,
        [start(known), *events, epoch(known), End(status=known["status"], step=known["steps"], elapsed_s=1.0)],
    )
    if monitor:
        write_lines(run.monitor, monitor)
    summary = Summary(**known)
    write_record(run.summary, replace(summary, files=run.digests()))
    return run


def start(known):
    window = PruningWindow(warmup=0, ramp_end=0, frequency=1, events=0)
    sizes = {"parameters": known["model_parameters"], "prunable": known["prunable_parameters"], "steps": known["steps"]}
    return Start(**sizes, steps_per_epoch=360, evaluations=1, scale=1.0, batching=None, device="cpu", pruning=window)


def epoch(known):
    times = {"train_s": 0.5, "elapsed_s": 0.6}
    rest = {"target_sparsity": known["target_sparsity"], "sparsity": known["target_sparsity"], "skipped": 0, "lr": 0.1}
    return Epoch(epoch=1, step=known["steps"], train_loss=0.5, memory=Memory(), **times, **rest)
