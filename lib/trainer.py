"""The one training loop. It knows no optimizer and no pruning method by name.

data, model, optimizer, pruner <- spec and config
for each epoch: for each batch: learning rate, loss, backward, optimizer.step()
                evaluate on validation, record, checkpoint
test the last and the best weights; summary.json last
"""

import hashlib
import json
import math
import platform
import statistics
import time

import torch

from lib import checkpoint, hyper, provenance
from lib.config import Config, InputError
from lib.data.base import DATASETS
from lib.matrix import distribution
from lib.monitor.client import Monitor, MonitorOptions
from lib.optim.base import OPTIMIZERS, Hyper, decay_groups
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.kernel.audit import audit_event
from lib.prune.kernel.pruner import Plan, prunable
from lib.prune.schedule import Schedule, schedule
from lib.rundir import SCHEMA, RunDir, place, write_json
from lib.spec import RunSpec

NO_PRUNING = Schedule((), 0, 0, 0)
# Taken when the code is imported: a run that is forked later trains with this code, whatever has been edited since.
PROVENANCE = provenance.collect()
DIVERGED_AFTER = 10  # steps in a row with gradients that are not finite


class Diverged(Exception):
    """Training went to infinity; the message says how it was noticed."""


def derive(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that no use of random numbers shifts another."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1


def pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("DEVICE_CUDA is set, but torch finds no GPU: choose DEVICE_AUTO or DEVICE_CPU")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


class Trainer:
    """One run: everything is made in the constructor's order, from the run's own config."""

    def __init__(self, task, spec: RunSpec, config: Config, rundir: RunDir, monitor: Monitor):
        self.step, self.early = 0, []
        self.task, self.spec, self.config, self.rundir, self.monitor = task, spec, config, rundir, monitor
        self.training = config.read(hyper.Training)
        self.recipe = hyper.read_recipe(config, spec.model)
        torch.set_num_threads(self.training.num_threads or provenance.cores())
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.device = pick_device(self.training.device)
        full = self.training.full_train
        self.data = task.load(spec.dataset, place(config["DATA_DIR"]), self.device, full)
        samples = DATASETS[spec.dataset].train_samples(full)
        self.length = hyper.length(self.recipe, self.training.max_iters, samples)
        self.order = torch.Generator()
        self.model = self._model()
        self.weights = prunable(self.model)
        self.optimizer = self._optimizer()
        self.pruner, self.schedule = self._pruner()
        self.epochs, self.best = [], None

    def _model(self):
        torch.manual_seed(derive(self.spec.seed, "init"))
        model = self.task.model(self.spec.dataset).to(self.device)
        torch.manual_seed(derive(self.spec.seed, "dropout"))
        return model

    def _optimizer(self):
        """The optimizer of this run. Its record may replace recipe settings (adamwadv: schedule and clip)."""
        record, r = OPTIMIZERS[self.spec.optimizer], self.recipe
        replaced = record.replaces(self.spec.adamwprune_base)
        self.lr_schedule = replaced.get("lr_schedule", r.lr_schedule)
        clip = replaced.get("clip_norm", r.clip_norm)
        if record.family == "sgd":
            h = Hyper(r.sgd_lr, r.sgd_weight_decay, clip_norm=clip)
        else:
            h = Hyper(r.adam_lr, r.adam_weight_decay, r.adam_beta1, r.adam_beta2, clip)
        self.peak_lr = h.lr
        groups = decay_groups(self.model.named_parameters(), h.weight_decay)
        return record.build(groups, h, self.config.read, self.spec.adamwprune_base)

    def _pruner(self):
        method, optim = PRUNERS[self.spec.pruning_method], OPTIMIZERS[self.spec.optimizer]
        if not method.sparse:
            return None, NO_PRUNING
        options = self.config.read(PruningOptions)
        resets = optim.resets(self.config.read, self.spec.adamwprune_base)
        length = self.length
        when = schedule(options, self.spec.target_sparsity, length.steps, length.scale, resets, method.schedule)
        plan = Plan(
            when,
            distribution(self.spec, options),
            self.spec.adamwprune_variant,
            lambda event: self.early.append(event) if self.early is not None else self._record(event),
            floor=options.pruning_layer_floor,
            pattern=options.pattern(),
            drop=options.pruning_drop_fraction,
            seed=derive(self.spec.seed, "pruning"),
            audit=audit_event if options.pruning_audit else None,
        )
        pruner = method.build(self.weights, plan)
        self.weights = pruner.weights
        pruner.attach(self.optimizer)
        return pruner, when

    def run(self) -> str:
        """Train, evaluate, test, and write it all down; the status, "done" or "diverged"."""
        started = time.perf_counter()
        self._record(self._start())
        for event in self.early:  # an event at step 0 happens when the pruner is attached, before there is a start
            self._record(event)
        self.early = None
        status, why = "done", None
        try:
            self.lr_warmup = hyper.warmup_steps(self.spec.model, self.recipe, self.length)
            while self.step < self.length.steps:
                self._epoch(started)
        except Diverged as e:
            status, why = "diverged", str(e)
        tests = self._test() if status == "done" else {}
        self.monitor.phase("finish")
        elapsed = time.perf_counter() - started
        self._record({"event": "end", "status": status, "step": self.step, "elapsed_s": elapsed})
        self.monitor.stop()
        write_json(self.rundir.summary, finite(self._summary(status, why, elapsed, tests)))
        return status

    def _start(self) -> dict:
        s = self.schedule
        return {
            "event": "start",
            "steps": self.length.steps,
            "steps_per_epoch": self.length.steps_per_epoch,
            "evaluations": self.length.evaluations,
            "scale": self.length.scale,
            "device": str(self.device),
            "prunable": sum(p.numel() for _, p in self.weights),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "pruning": {"warmup": s.warmup, "ramp_end": s.ramp_end, "frequency": s.frequency, "events": len(s.events)},
        }

    def _epoch(self, started: float) -> None:
        epoch = len(self.epochs) + 1
        self.monitor.phase("train")
        begun = time.perf_counter()
        loss = self._train(epoch)
        train_s = time.perf_counter() - begun
        self.monitor.phase("evaluate")
        row = {
            "event": "epoch",
            "epoch": epoch,
            "step": self.step,
            "train_loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "target_sparsity": self.asked(),
            "sparsity": self.sparsity(),
            "skipped": self.optimizer.skipped,
            **self._evaluate(),
            "train_s": train_s,
            "memory": self._memory(),
            "elapsed_s": time.perf_counter() - started,
        }
        self.epochs.append(row)
        self._record(row)
        measured = [row["train_loss"], row.get("validation_loss") or 0.0]
        if not all(map(math.isfinite, measured)):
            raise Diverged(f"the loss is {measured} after epoch {epoch}, step {self.step}")
        self.monitor.phase("checkpoint")
        self._checkpoint(row)

    def _train(self, epoch: int) -> float:
        """One epoch, or what is left of the run; its mean loss, fetched once, at the end. A step whose loss is not
        finite changes nothing and is counted elsewhere, so it is left out of the mean."""
        self.order.manual_seed(derive(self.spec.seed, f"order/{epoch}"))
        total, counted = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for batch in self.task.batches(self.data, self.recipe.batch_size, self.order):
            if self.step == self.length.steps:
                break
            self.step += 1
            factor = hyper.learning_rate(
                self.step, self.length.steps, self.lr_warmup, self.lr_schedule, self.recipe.lr_final
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak_lr * factor
            loss = self.task.loss(self.model, batch, self.recipe.label_smoothing)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            loss = loss.detach()
            total += loss.nan_to_num(0.0, 0.0, 0.0)
            counted += loss.isfinite()
            if self.optimizer.skipped_in_a_row >= DIVERGED_AFTER:
                raise Diverged(
                    f"{DIVERGED_AFTER} steps in a row had gradients that are not finite, to step {self.step}"
                )
        if self.pruner and self.step == self.length.steps:
            self.pruner.finish()
        total, counted = torch.stack([total, counted]).tolist()
        return total / counted if counted else math.nan

    def _evaluate(self) -> dict:
        row = {}
        splits = {"validation": self.data.validation}
        if self.training.test_each_epoch:
            splits["test"] = self.data.test
        for name, split in splits.items():
            scores = self.task.evaluate(self.model, split, self.recipe.eval_batch_size) if split else None
            row[f"{name}_loss"] = scores and scores.loss
            row[f"{name}_accuracy"] = scores and scores.accuracy
        return row

    def _memory(self) -> dict | None:
        if self.device.type != "cuda":
            return None
        mib = 1024 * 1024
        return {
            "allocated": torch.cuda.memory_allocated() / mib,
            "reserved": torch.cuda.memory_reserved() / mib,
            "peak": torch.cuda.max_memory_allocated() / mib,
        }

    def asked(self) -> float:
        """The sparsity that the events so far have asked for."""
        if self.pruner and self.pruner.finished:
            return self.schedule.target
        return self.schedule.asked(self.optimizer.updates)

    def sparsity(self) -> float:
        """Share of the prunable weights that are 0, measured on the weights themselves."""
        zeros = sum(int((p == 0).sum()) for _, p in self.weights)
        return zeros / sum(p.numel() for _, p in self.weights)

    def _checkpoint(self, row: dict) -> None:
        """Last, complete; and best, only among evaluations at the final sparsity, by validation accuracy."""
        final = not self.pruner or self.pruner.finished
        accuracy = row["validation_accuracy"]
        if final and accuracy is not None and (self.best is None or accuracy > self.best["validation_accuracy"]):
            self.best = row
            checkpoint.save(self.rundir.best, {"model": self.model.state_dict(), "epoch": row["epoch"]})
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict() if self.pruner else {},
            "step": self.step,
            "epoch": row["epoch"],
            "best_epoch": self.best and self.best["epoch"],
            "rng": torch.get_rng_state(),
        }
        checkpoint.save(self.rundir.last, state)

    def _test(self) -> dict:
        """Test accuracy of the last and of the best weights: the only use of test data, unless TEST_EACH_EPOCH."""
        self.monitor.phase("test")
        size = self.recipe.eval_batch_size
        last = self.task.evaluate(self.model, self.data.test, size)
        found = {"test_accuracy_last": last.accuracy, "test_loss_last": last.loss}
        found |= {"test_accuracy_best": None, "test_loss_best": None}
        if self.best:
            best = last
            if self.best["step"] != self.step:
                self.model.load_state_dict(checkpoint.load(self.rundir.best, self.device)["model"])
                best = self.task.evaluate(self.model, self.data.test, size)
            found |= {"test_accuracy_best": best.accuracy, "test_loss_best": best.loss}
        return found

    def _summary(self, status: str, why: str | None, elapsed: float, tests: dict) -> dict:
        last = self.epochs[-1] if self.epochs else {}
        curve = [r["validation_accuracy"] for r in self.epochs if r["validation_accuracy"] is not None]
        best = self.best["validation_accuracy"] if self.best else None
        tested = [r["test_accuracy"] for r in self.epochs if r.get("test_accuracy") is not None]
        prunable_ = sum(p.numel() for _, p in self.weights)
        parameters = sum(p.numel() for p in self.model.parameters())
        achieved = last.get("sparsity") if self.pruner else 0.0
        return {
            "schema": SCHEMA,
            "status": status,
            "reason": why,
            **self.spec.dict(),
            "achieved_sparsity": achieved,
            "achieved_sparsity_of_all": None if achieved is None else achieved * prunable_ / parameters,
            "final_accuracy": last.get("validation_accuracy"),
            "final_loss": last.get("validation_loss"),
            "best_accuracy": best,
            "best_epoch": self.best and self.best["epoch"],
            "test_accuracy_last": None,
            "test_accuracy_best": None,
            **tests,
            "test_accuracy_optimistic": max(tested, default=None),
            "std_last10": statistics.stdev(curve[-10:]) if len(curve) > 1 else None,
            "peak_to_final": best - curve[-1] if best is not None and curve else None,
            "steps": self.step,
            "epochs": len(self.epochs),
            "planned_steps": self.length.steps,
            "skipped_steps": self.optimizer.skipped,
            "batch_size": self.recipe.batch_size,
            "model_parameters": parameters,
            "prunable_parameters": prunable_,
            "data_hash": self.data.hash,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "elapsed_s": elapsed,
            "train_s": sum(r["train_s"] for r in self.epochs),
            "provenance": PROVENANCE,
        }

    def _record(self, row: dict) -> None:
        """One line of metrics.jsonl, and of the log where a person reads along."""
        with self.rundir.metrics.open("a") as f:
            f.write(json.dumps(finite(row)) + "\n")
        if row["event"] == "epoch":
            accuracy = row["validation_accuracy"]
            shown = "not held out" if accuracy is None else f"{accuracy:6.2f}%"
            print(
                f"{self.spec.id}  epoch {row['epoch']:3d}  step {row['step']:6d}  train loss {row['train_loss']:.4f}  "
                f"validation {shown}  sparsity {100 * row['sparsity']:6.2f}%  {row['train_s']:.2f} s",
                flush=True,
            )
        for warning in row.get("warnings", ()):
            print(f"{self.spec.id}  warning at step {row['step']}: {warning}", flush=True)


def finite(row: dict) -> dict:
    """JSON has no nan and no infinity: what is not finite is written as null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else provenance.cpu_name() or platform.processor()


def train(task, rundir: RunDir, config: Config, spec: RunSpec) -> str:
    """Train one run in its directory; its status. Raises what went wrong; the caller writes it down."""
    rundir.clear()
    with Monitor(config.read(MonitorOptions), rundir.monitor) as monitor:
        monitor.phase("load")
        return Trainer(task, spec, config, rundir, monitor).run()
