"""Runs that end before their time: why, and that nobody takes them for whole ones."""

import shutil

import pytest
import torch
from train_kit import Like, prepare, run

from lib import main, report, results
from lib.config import InputError
from lib.runner import prepare as prepare_matrix
from lib.trainer import train


class Worse(Like):
    """Validation that gets worse from the `best`-th evaluation on."""

    def __init__(self, best):
        self.best, self.count = best, 0

    def evaluate(self, model, split, recipe, add):
        self.count += 1
        found = self.task.evaluate(model, split, recipe, add)
        return type(found)(found.loss, 50.0 - abs(self.count - self.best))


LONG = {"MAX_ITERS": "0", "LENET5_EPOCHS": "20", "LENET5_BATCH_SIZE": "512"}


def stopped(path, best, patience, *args, **settings):
    settings |= LONG | {"EARLY_STOPPING": "y", "EARLY_STOPPING_PATIENCE": str(patience)}
    d, config, spec = prepare(path, *args, **settings)
    train(Worse(best), d, config, spec)
    return results.read_run(path, spec)


def test_patience_counts_evaluations_without_improvement(tmp_path):
    r = stopped(tmp_path, 5, 4, "adamw")
    assert (r.steps, r.planned_steps, r.best_epoch) == (2 * 9, 2 * 20, 5)
    assert r.stopped == "no improvement in 4 evaluations"
    assert r.status == "done"


def test_patience_begins_after_the_last_pruning_event(tmp_path):
    """Which is at step 30 of 40: epoch 15 is the first that can be the best."""
    r = stopped(tmp_path, 2, 3, "adamw", "magnitude", "0.7")
    assert r.best_epoch == 15
    assert r.steps == 2 * 18
    assert r.achieved_sparsity == round(0.7 * 61_470) / 61_470


def test_patience_that_does_not_run_out(tmp_path):
    r = stopped(tmp_path, 18, 4, "adamw")
    assert (r.steps, r.stopped) == (40, None)


def test_nothing_stops_a_run_that_was_not_asked_to(tmp_path):
    assert run(tmp_path, "adamw").summary["stopped"] is None


class Slow(Like):
    def loss(self, *given):
        from lib import trainer

        trainer.time.sleep(0.1)
        return self.task.loss(*given)


def test_time_runs_out(tmp_path):
    d, config, spec = prepare(tmp_path, "adamw", MAX_TIME="1", **LONG)
    train(Slow(), d, config, spec)
    r = results.read_run(tmp_path, spec)
    assert r.stopped == "MAX_TIME=1"
    assert 1 <= r.steps <= 12
    assert r.test_accuracy_last is not None


def test_the_report_says_so(tmp_path):
    d, config, spec = prepare(tmp_path / "made", "adamw", MAX_TIME="1", **LONG)
    root = prepare_matrix(config.replace({"RESULTS": str(tmp_path / "results")}))
    from lib.config import Config
    from lib.rundir import RunDir

    where = RunDir(root / spec.id)
    train(Slow(), where, Config.load(where.config), where.spec())
    text = report.write(results.load(root), graphs=False).text.read_text()
    assert f"{spec.id}: stopped at step " in text
    assert "of 40: MAX_TIME=1" in text


def test_inference_is_measured_where_it_is_asked_for(tmp_path):
    found = run(tmp_path, "adamwprune", "state", "0.7", INFERENCE_TEST="y", MAX_ITERS="10").summary["inference"]
    assert [m["batch"] for m in found] == [1, 4, 16, 64, 256]
    assert all(m["latency_ms"] > 0 and m["memory_mib"] is None for m in found)
    assert found[-1]["samples_per_s"] == pytest.approx(256 / (found[-1]["latency_ms"] / 1e3))
    assert run(tmp_path / "b", "adamw", MAX_ITERS="4").summary["inference"] is None


def test_goes_of_gradients_are_one_batch(tmp_path):
    """With BatchNorm each go has statistics of its own; without it goes differ from the whole by rounding."""
    from torch import nn

    class Plain(Like):
        def model(self, dataset, recipe):
            return nn.Sequential(nn.Flatten(), nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 10))

        def batching(self, dataset, recipe, gib, devices):
            from lib.batching import cut

            return cut(recipe.batch_size, self.fits, 1, "")

    weights = []
    for fits in (64, 16, 7):
        d, config, spec = prepare(tmp_path / str(fits), "adamw", LENET5_CLIP_NORM="1")
        task = Plain()
        task.fits = fits
        train(task, d, config, spec)
        weights.append(torch.load(d.last, weights_only=True)["model"])
    for other in weights[1:]:
        for name, p in weights[0].items():
            torch.testing.assert_close(other[name], p, rtol=1e-3, atol=1e-4)


def test_a_limit_that_is_over_before_an_epoch_begins_is_no_divergence(tmp_path, monkeypatch):
    """As where its data take long to come: the epoch has one step, and not none."""
    from lib.trainer import Trainer

    monkeypatch.setattr(Trainer, "_late", lambda self, running=0.0: running > 0 and len(self.epochs) == 1)
    r = run(tmp_path, "adamw", LENET5_BATCH_SIZE="64")
    assert r.summary["status"] == "done"
    assert [e["step"] for e in r.epochs][:2] == [18, 19]
    assert all(e["train_loss"] is not None for e in r.epochs)


class Gone(Like):
    """Somebody removes the results while a run trains."""

    def __init__(self, root):
        self.root = root

    def evaluate(self, model, split, recipe, add):
        shutil.rmtree(self.root)
        return self.task.evaluate(model, split, recipe, add)


def test_a_directory_that_vanishes_under_its_run(tmp_path, capfd):
    d, config, spec = prepare(tmp_path / "results", "adamw", MAX_ITERS="2")
    with pytest.raises(InputError, match="results/lenet5_adamw_none.* cannot|cannot write .*results/lenet5_adamw_none"):
        main.one(Gone(tmp_path / "results"), d, config, spec)
    assert "Traceback" not in capfd.readouterr().err
