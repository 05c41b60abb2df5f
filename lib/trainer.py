"""The one training loop. It knows no optimizer and no pruning method by name.

data, model, optimizer, pruner <- spec and config
for each epoch: for each batch: learning rate, loss, backward, optimizer.step()
                evaluate on validation, record, checkpoint
test the last and the best weights; summary.json last
"""

import dataclasses
import functools
import json
import math
import platform
import time

import torch

from lib import build, checkpoint, hyper, inference, provenance, record
from lib.build import derive
from lib.config import Config
from lib.data.base import DATASETS
from lib.monitor.client import Monitor, MonitorOptions
from lib.prune.base import PRUNERS
from lib.prune.kernel.pruner import prunable
from lib.prune.schedule import Schedule
from lib.rundir import SCHEMA, RunDir, place, write_json
from lib.spec import RunSpec

NO_PRUNING = Schedule((), 0, 0, 0)
# Taken when the code is imported: a run that is forked later trains with this code, whatever has been edited since.
PROVENANCE = provenance.collect()
DIVERGED_AFTER = 10  # steps in a row with gradients that are not finite


class Diverged(Exception):
    """Training went to infinity; the message says how it was noticed."""


class Trainer:
    """One run: everything is made in the constructor's order, from the run's own config."""

    def __init__(self, task, spec: RunSpec, config: Config, rundir: RunDir, monitor: Monitor):
        self.step, self.early, self.stopped = 0, [], None
        self.task, self.spec, self.config, self.rundir, self.monitor = task, spec, config, rundir, monitor
        self.training = config.read(hyper.Training)
        self.recipe = hyper.read_recipe(config, spec.model)
        torch.set_num_threads(self.training.num_threads or provenance.cores())
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.device = build.device(self.training.device)
        half = self.training.precision == "bf16"
        self.autocast = functools.partial(torch.autocast, self.device.type, torch.bfloat16, half)
        full = self.training.full_train
        self.recipe, self.batching = build.cut(task, spec.dataset, self.recipe, self.training, self.device)
        self.data = task.load(spec.dataset, self.recipe, place(config["DATA_DIR"]), self.device, full)
        samples = DATASETS[spec.dataset].train_samples(full)
        self.length = hyper.length(self.recipe, self.training.max_iters, samples)
        self.order = torch.Generator()
        self.model = build.model(task, spec, self.recipe, self.device)
        self.weights = prunable(self.model)
        self.optimizer, self.peak_lr, self.lr_schedule = build.optimizer(self.model, spec, config, self.recipe)
        self.pruner, self.schedule = self._prune()
        self.epochs, self.best = [], None

    def _prune(self):
        """The pruner of this run on its optimizer; None without pruning."""
        plan = build.pruning(self.spec, self.config, self.length)
        if plan is None:
            return None, NO_PRUNING
        plan = dataclasses.replace(plan, record=self._noted)
        pruner = PRUNERS[self.spec.pruning_method].build(self.weights, plan)
        self.weights = pruner.weights
        pruner.attach(self.optimizer)
        return pruner, plan.schedule

    def _noted(self, event: dict) -> None:
        """An event at step 0 happens when the pruner is attached, before there is a start to write down."""
        self.early.append(event) if self.early is not None else self._record(event)

    def run(self) -> str:
        """Train, evaluate, test, and write it all down; the status, "done" or "diverged"."""
        started = time.perf_counter()
        self._record(self._start())
        for event in self.early:
            self._record(event)
        self.early = None
        status, why = "done", None
        try:
            self.lr_warmup = hyper.warmup_steps(self.spec.model, self.recipe, self.length)
            while self.step < self.length.steps and not self.stopped:
                self._epoch(started)
        except Diverged as e:
            status, why = "diverged", str(e)
        tests = {**self._test(), **self._shown()} if status == "done" else {}
        self.monitor.phase("finish")
        elapsed = time.perf_counter() - started
        self._record({"event": "end", "status": status, "step": self.step, "elapsed_s": elapsed})
        self.monitor.stop()
        write_json(self.rundir.summary, record.finite(self._summary(status, why, elapsed, tests)))
        return status

    def _start(self) -> dict:
        s = self.schedule
        return {
            "event": "start",
            "steps": self.length.steps,
            "steps_per_epoch": self.length.steps_per_epoch,
            "evaluations": self.length.evaluations,
            "scale": self.length.scale,
            "batching": self.batching,
            "device": str(self.device),
            "prunable": sum(p.numel() for _, p in self.weights),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "pruning": {"warmup": s.warmup, "ramp_end": s.ramp_end, "frequency": s.frequency, "events": len(s.events)},
        }

    def _epoch(self, started: float) -> None:
        epoch = len(self.epochs) + 1
        self.monitor.phase("train")
        begun = time.perf_counter()
        loss = self._train(epoch, begun)
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
        self._stop(row)

    def _stop(self, row: dict) -> None:
        """Whether this evaluation was the last, and why."""
        waited = self.best and row["epoch"] - self.best["epoch"]
        if self.training.early_stopping and waited and waited >= self.training.early_stopping_patience:
            self.stopped = f"no improvement in {waited} evaluations"
        if self._late():
            self.stopped = f"MAX_TIME={self.training.max_time}"

    def _late(self, running: float = 0.0) -> bool:
        """Whether MAX_TIME is over, with this epoch running for so many seconds."""
        most = self.training.max_time
        return bool(most) and sum(r["train_s"] for r in self.epochs) + running >= most

    def _train(self, epoch: int, begun: float) -> float:
        """One epoch, or what is left of the run; its mean loss, fetched once, at the end. A step whose loss is not
        finite changes nothing and is counted elsewhere, so it is left out of the mean."""
        self.order.manual_seed(derive(self.spec.seed, f"order/{epoch}"))
        total, counted = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for batch in self.task.batches(self.data, self.recipe, self.order):
            if self.step == self.length.steps or self._late(time.perf_counter() - begun):
                break
            self.step += 1
            factor = hyper.learning_rate(
                self.step, self.length.steps, self.lr_warmup, self.lr_schedule, self.recipe.lr_final
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak_lr * factor
            loss = self._gradients(batch)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
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

    def _gradients(self, batch: tuple) -> torch.Tensor:
        """Those of the batch's mean loss, which is returned; in as many goes as MICRO_BATCH asks for."""
        size = len(batch[0])
        parts = zip(*(t.split(self.recipe.micro_batch or size) for t in batch), strict=True)
        whole = torch.zeros((), device=self.device)
        for part in parts:
            with self.autocast():
                loss = self.task.loss(self.model, part, self.recipe.label_smoothing) * (len(part[0]) / size)
            loss.backward()
            whole += loss.detach()
        return whole

    def _evaluate(self) -> dict:
        row = {}
        splits = {"validation": self.data.validation}
        if self.training.test_each_epoch:
            splits["test"] = self.data.test
        for name, split in splits.items():
            scores = self._scores(split) if split else None
            row[f"{name}_loss"] = scores and scores.loss
            row[f"{name}_accuracy"] = scores and scores.accuracy
        return row

    def _scores(self, split):
        with self.autocast():
            return self.task.evaluate(self.model, split, self.recipe)

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
        """Share of the prunable weights that are 0, measured on the weights themselves. What was grown back is live,
        though it stays 0 where no gradient comes."""
        grows = self.pruner is not None and self.pruner.reversible
        zeros = sum(int(((p == 0) & self.pruner.mask.pruned(p) if grows else p == 0).sum()) for _, p in self.weights)
        return zeros / sum(p.numel() for _, p in self.weights)

    def _checkpoint(self, row: dict) -> None:
        """Last, complete; and best, only among evaluations at the final sparsity, by validation."""
        final = not self.pruner or self.pruner.finished
        if (
            final
            and row["validation_loss"] is not None
            and (self.best is None or self.good(row) > self.good(self.best))
        ):
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

    def good(self, row: dict) -> float:
        """How good an evaluation is: what runs are compared by, higher is better."""
        return row["validation_accuracy"] if self.task.metric == "accuracy" else -row["validation_loss"]

    def _test(self) -> dict:
        """Test accuracy of the last and of the best weights: the only use of test data, unless TEST_EACH_EPOCH."""
        self.monitor.phase("test")
        last = self._scores(self.data.test)
        found = {"test_accuracy_last": last.accuracy, "test_loss_last": last.loss}
        if self.best:
            best = last
            if self.best["step"] != self.step:
                self.model.load_state_dict(checkpoint.load(self.rundir.best, self.device)["model"])
                best = self._scores(self.data.test)
            found |= {"test_accuracy_best": best.accuracy, "test_loss_best": best.loss}
        return found

    def _shown(self) -> dict:
        """What else there is to say of the last weights."""
        if self.best and self.best["step"] != self.step:  # the best ones have just been tested
            self.model.load_state_dict(checkpoint.load(self.rundir.last, self.device)["model"])
        with self.autocast():
            found = self.task.shown(self.model, self.data)
            if self.training.inference_test:
                self.monitor.phase("inference")
                found["inference"] = inference.measure(self.model, self.data.example, self.device)
        return found

    def _summary(self, status: str, why: str | None, elapsed: float, tests: dict) -> dict:
        prunable_ = sum(p.numel() for _, p in self.weights)
        parameters = sum(p.numel() for p in self.model.parameters())
        last = self.epochs[-1] if self.epochs else {}
        achieved = last.get("sparsity") if self.pruner else 0.0
        return {
            "schema": SCHEMA,
            "status": status,
            "reason": why,
            **self.spec.dict(),
            "metric": self.task.metric,
            "achieved_sparsity": achieved,
            "achieved_sparsity_of_all": None if achieved is None else achieved * prunable_ / parameters,
            **record.curve(self.epochs, self.best),
            **record.BLANK,
            **tests,
            "stopped": self.stopped,
            "steps": self.step,
            "epochs": len(self.epochs),
            "planned_steps": self.length.steps,
            "skipped_steps": self.optimizer.skipped,
            "batch_size": self.recipe.batch_size,
            "model_parameters": parameters,
            "prunable_parameters": prunable_,
            "precision": "bf16" if self.training.precision == "bf16" else "fp32",
            "data_hash": self.data.hash,
            **self.data.facts,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "elapsed_s": elapsed,
            "train_s": sum(r["train_s"] for r in self.epochs),
            "provenance": PROVENANCE,
        }

    def _record(self, row: dict) -> None:
        """One line of metrics.jsonl, and of the log where a person reads along."""
        with self.rundir.metrics.open("a") as f:
            f.write(json.dumps(record.finite(row)) + "\n")
        for line in record.said(self.spec.id, row):
            print(line, flush=True)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else provenance.cpu_name() or platform.processor()


def train(task, rundir: RunDir, config: Config, spec: RunSpec) -> str:
    """Train one run in its directory; its status. Raises what went wrong; the caller writes it down."""
    rundir.clear()
    with Monitor(config.read(MonitorOptions), rundir.monitor) as monitor:
        monitor.phase("load")
        return Trainer(task, spec, config, rundir, monitor).run()
