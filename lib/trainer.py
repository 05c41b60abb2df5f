"""The one training loop. It knows no optimizer and no pruning method by name, nor how many processes train.

world, data, model, optimizer, pruner <- spec and config
for each epoch: for each batch: learning rate, loss, backward, optimizer.step()
                evaluate on validation, record, checkpoint
test the last and the best weights; summary.json last
"""

import dataclasses
import functools
import math
import platform
import time

import torch

from lib import allocator, build, fit, hyper, ledger, parallel, provenance, record
from lib.build import derive
from lib.checkpoint import Checkpoints
from lib.config import Config, InputError
from lib.data.base import DATASETS
from lib.files import write_record
from lib.footprint import Footprint
from lib.monitor.client import Monitor, MonitorOptions
from lib.prune.base import PRUNERS, NotFinite
from lib.prune.schedule import Schedule
from lib.records import End, Epoch, Memory, Metric
from lib.rundir import RunDir, append_metric, place
from lib.scores import Scores
from lib.spec import RunSpec
from lib.world import join

NO_PRUNING = Schedule((), 0, 0, 0)
# Taken when the code is imported: a run that is forked later trains with this code, whatever has been edited since.
PROVENANCE = provenance.collect()
DIVERGED_AFTER = 10  # steps in a row with gradients that are not finite


class Diverged(Exception):
    """Training went to infinity; the message says how it was noticed."""


class Trainer:
    """One run: everything is made in the constructor's order, from the run's own config."""

    def __init__(self, task, spec: RunSpec, config: Config, rundir: RunDir, monitor: Monitor, world=None):
        self.step, self.early, self.stopped = 0, [], None
        self.task, self.spec, self.config, self.rundir, self.monitor = task, spec, config, rundir, monitor
        self.training = config.read(hyper.Training)
        self.world = world = world or join(self.training)
        self.recipe = hyper.read_recipe(config, spec.model, spec.dataset)
        torch.set_num_threads(max(1, (self.training.num_threads or provenance.cores()) // world.size))
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.device, self.threads, self.provenance = world.device, torch.get_num_threads(), PROVENANCE
        gpu = self.device.type == "cuda"
        self.device_name = torch.cuda.get_device_name() if gpu else provenance.cpu_name() or platform.processor()
        half = self.training.precision == "bf16"
        self.autocast = functools.partial(torch.autocast, self.device.type, torch.bfloat16, half)
        full = self.training.full_train
        self.recipe, self.batching = build.cut(task, spec.dataset, self.recipe, self.training, world)
        self.data = task.load(spec.dataset, self.recipe, place(config["DATA_DIR"]), self.device, full, world.share)
        allocator.release_freed_memory()  # the loader's peak would stay in every figure of the run
        samples = DATASETS[spec.dataset].train_samples(full)
        self.length = hyper.length(self.recipe, self.training.max_iters, samples)
        self.order = torch.Generator()
        self.model = build.model(task, spec, self.recipe, self.device)
        blocks = task.blocks(self.model) if self.training.sharding == "full" else []
        self.parallel = parallel.make(self.model, world, blocks, self.training.compile == "yes")
        self.loss, self.footprint = self.parallel.compiled(task.loss), Footprint(self)
        if self.parallel.replicated and self.training.compile != "yes":
            self.loss = self.footprint.watching(self.loss)
        named = self.parallel.parameters()
        self.optimizer, self.peak_lr, self.lr_schedule = build.optimizer(named, spec, config, self.recipe)
        self.weights = self.parallel.prunable()
        if not self.parallel.replicated:
            self.optimizer.group = self.parallel.group
        self.checkpoints = Checkpoints(world, self.parallel)
        self.pruner, self.schedule = self._prune()
        self.sparse = self.pruner is not None
        mine = torch.tensor(sum(p.numel() for _, p in self.weights))
        self.prunable = int(self.parallel.group.sum(mine))
        here = sum(p.numel() for _, p in named)
        self.predicted = ledger.compared(spec, config, here, int(mine))
        self.epochs, self.best, self.scores = [], None, Scores(self)
        self.gpus = build.gpus(self.device, world.size)

    def _prune(self):
        """The pruner of this run on its optimizer; None without pruning."""
        plan = build.pruning(self.spec, self.config, self.length)
        if plan is None:
            return None, NO_PRUNING
        plan = dataclasses.replace(plan, begin=self._pruning, record=self._noted, group=self.parallel.group)
        pruner = PRUNERS[self.spec.pruning_method].build(self.weights, plan)
        self.weights = pruner.weights
        pruner.attach(self.optimizer)
        return pruner, plan.schedule

    def _pruning(self) -> None:
        if self.early is None:
            self.enter("prune")

    def _noted(self, event: dict) -> None:
        """An event at step 0 happens when the pruner is attached, before there is a start to write down."""
        row = record.prune(event)
        if self.early is not None:
            self.early.append(row)
        else:
            self._record(row)
            self.enter("train")
            if self.pruner.not_finite:
                raise Diverged(f"{self.pruner.not_finite} weights were not finite at step {event['step']}")

    def enter(self, name: str) -> None:
        """What the run does from now on."""
        self.monitor.phase(name)
        self.footprint.enter(name)

    def run(self) -> str:
        """Train, evaluate, test, and write it all down; the status, "done" or "diverged"."""
        started = time.perf_counter()
        self._record(record.start(self))
        for event in self.early:
            self._record(event)
        self.early = None
        status, why, short = "done", None, False
        try:
            self.lr_warmup = hyper.warmup_steps(self.spec.model, self.recipe, self.length)
            while self.step < self.length.steps and not self.stopped:
                self._epoch(started)
        except (Diverged, NotFinite) as e:
            status, why = "diverged", str(e)
        except torch.OutOfMemoryError:  # what it holds is free only outside of this clause
            short = True
        if short:
            raise InputError(fit.too_small(self))
        self.skipped = self.optimizer.skipped
        tests = {**self.scores.test(), **self.scores.shown()} if status == "done" else {}
        self.enter("finish")
        elapsed = time.perf_counter() - started
        self._record(End(status=status, step=self.step, elapsed_s=elapsed))
        self.monitor.stop()
        if self.world.leader:
            write_record(self.rundir.summary, record.summary(self, status, why, elapsed, tests))
        return status

    def _epoch(self, started: float) -> None:
        epoch = len(self.epochs) + 1
        self.enter("train")
        begun = time.perf_counter()
        loss = self._train(epoch, begun)
        train_s = time.perf_counter() - begun
        self.enter("evaluate")
        row = Epoch(
            epoch=epoch,
            step=self.step,
            train_loss=loss,
            lr=self.optimizer.param_groups[0]["lr"],
            target_sparsity=self.asked(),
            sparsity=self.sparsity(),
            skipped=self.optimizer.skipped,
            **self.scores.validation(),
            train_s=train_s,
            memory=Memory(**self.footprint.phases["train"]),
            elapsed_s=time.perf_counter() - started,
        )
        self.epochs.append(row)
        self._record(row)
        measured = [row.train_loss, row.validation_loss or 0.0]
        if not all(map(math.isfinite, measured)):
            raise Diverged(f"the loss is {measured} after epoch {epoch}, step {self.step}")
        self.enter("checkpoint")
        self._checkpoint(row)
        self._stop(row)

    def _stop(self, row: Epoch) -> None:
        """Whether this evaluation was the last, and why."""
        waited = self.best and row.epoch - self.best.epoch
        if self.training.early_stopping and waited and waited >= self.training.early_stopping_patience:
            self.stopped = f"no improvement in {waited} evaluations"
        if self._late():
            self.stopped = f"MAX_TIME={self.training.max_time}"

    def _late(self, running: float = 0.0) -> bool:
        """Whether MAX_TIME is over, with this epoch running for so many seconds."""
        most = self.training.max_time
        return bool(most) and self.world.leaders(sum(r.train_s for r in self.epochs) + running >= most)

    def _train(self, epoch: int, begun: float) -> float:
        """One epoch, or what is left of the run; its mean loss, fetched once, at the end. A step whose loss is not
        finite changes nothing and is counted elsewhere, so it is left out of the mean."""
        self.order.manual_seed(derive(self.spec.seed, f"order/{epoch}"))
        total, counted = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        before = self.step
        for batch in self.task.batches(self.data, self.recipe, self.order):
            late = self.step > before and self._late(time.perf_counter() - begun)  # an epoch has a step at least
            if self.step == self.length.steps or late:
                break
            self.step += 1
            factor = hyper.learning_rate(
                self.step, self.length.steps, self.lr_warmup, self.lr_schedule, self.recipe.lr_final
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak_lr * factor
            loss = self.gradients(batch)
            self.footprint.stepping()
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
        total, counted = self.world.add(torch.stack([total, counted])).tolist()
        return total / counted if counted else math.nan

    def gradients(self, batch: tuple) -> torch.Tensor:
        """Those of the batch's mean loss, which is returned; in as many goes as MICRO_BATCH asks for."""
        size = len(batch[0])
        parts = list(zip(*(t.split(self.recipe.micro_batch or size) for t in batch), strict=True))
        whole = torch.zeros((), device=self.device)
        for i, part in enumerate(parts):
            with self.parallel.quiet(last=i == len(parts) - 1):
                with self.autocast():
                    loss = self.loss(self.parallel.network, part, self.recipe.label_smoothing)
                    loss = loss * (len(part[0]) / size)
                loss.backward()
            whole += loss.detach()
        self.parallel.collect()
        return whole

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
        return self.parallel.group.sum(torch.tensor(zeros)).item() / self.prunable

    def _checkpoint(self, row: Epoch) -> None:
        """Last, complete; and best, only among evaluations at the final sparsity, by validation."""
        final = not self.pruner or self.pruner.finished
        if final and row.validation_loss is not None and (self.best is None or self.good(row) > self.good(self.best)):
            self.best = row
            self.checkpoints.save_model(self.rundir.best, epoch=row.epoch)
        self.checkpoints.agree(self.step)
        facts = {"step": self.step, "epoch": row.epoch, "best_epoch": self.best and self.best.epoch}
        self.checkpoints.save_all(self.rundir.last, self.optimizer, self.pruner, **facts, rng=torch.get_rng_state())

    def good(self, row: Epoch) -> float:
        """How good an evaluation is: what runs are compared by, higher is better."""
        return row.validation_accuracy if self.task.metric == "accuracy" else -row.validation_loss

    def release(self) -> None:
        """What training needs and inference does not: it has been saved."""
        self.optimizer = self.pruner = self.loss = None
        self.weights = []
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _record(self, row: Metric) -> None:
        """One line of metrics.jsonl, and of the log where a person reads along."""
        if not self.world.leader:
            return
        append_metric(self.rundir.metrics, row)
        for line in record.said(self.spec.id, row):
            print(line, flush=True)


def train(task, rundir: RunDir, config: Config, spec: RunSpec) -> str:
    """Train one run in its directory; its status. Raises what went wrong; the caller writes it down, and ends the
    process where there are several: leaving would wait for the others, which wait for this one."""
    here = join(config.read(hyper.Training))
    if here.leader:
        rundir.clear()
    options, pids = config.read(MonitorOptions), here.pids()
    if not here.leader:
        options = dataclasses.replace(options, monitor=False)
    with Monitor(options, rundir.monitor, pids) as monitor:
        monitor.phase("load")
        status = Trainer(task, spec, config, rundir, monitor, here).run()
    here.leave()
    return status
