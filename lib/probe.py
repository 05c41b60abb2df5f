"""A few measured steps of a run on this device: what a plan's estimate rests on.

In a process of its own (`train.py --run DIR --probe`), for a few seconds, on made-up data of the run's shapes, so that
nothing has to be downloaded first. A model that is too large to finish its batch in that time is measured on a part of
it, which is said, and scaled.
"""

import dataclasses
import math
import time
from collections.abc import Callable

import torch

from lib import build, provenance
from lib.config import Config, InputError
from lib.data.base import DATASETS, Dataset, Images
from lib.data.text import Text, Tokenizer
from lib.footprint import sizes
from lib.hyper import Training, read_recipe
from lib.prune.kernel.pruner import prunable
from lib.rundir import place
from lib.spec import RunSpec
from lib.world import World

STEP_S = 0.5  # that a measured part should take, and
LEAST = 3, 1.0  # how often it is measured at least, and for how many seconds
BUSY = 0.5  # of the time of all threads, below which others had the cores
BUDGET_S = 4.0  # for the model and all that is timed: from then on each is timed once, unprepared
FIRST = 2  # samples of the very first part, or
SHORTEST = 64  # tokens, of a language model
TOKENS = 65_536  # of a whole split, whose size is not known before it is read
RANDOM = 1 << 20  # made-up values that are drawn; more of them are these over again
LOADED = 64  # pixels of side up to which a data set is one that is held in memory, whose loading is timed too


def measure(task, config: Config, spec: RunSpec) -> dict:
    """Seconds of a step, of an evaluation and of loading the data, bytes of activations, and how much was measured.

    step_s: the gradients of a whole batch and the update. evaluation_s: one validation. load_s: reading the data set,
    None where it is not here or is read while training. activations: bytes that a backward pass of one micro-batch
    needs. share: the part of a micro-batch that was measured. busy: whether other work had the processor's cores.
    parameters, prunable: how many there are.
    """
    begun, training = time.perf_counter(), config.read(Training)
    torch.set_num_threads(training.num_threads or provenance.cores())
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    world = World(build.device(training.device))
    recipe, _ = build.cut(task, spec.dataset, read_recipe(config, spec.model, spec.dataset), training, world)
    run = Steps(task, config, spec, recipe, world.device, training, until=begun + BUDGET_S)
    share, gradients_s = run.gradients()
    step_s = gradients_s * recipe.batch_size / (training.ddp_num_gpus * run.micro) + run.update()
    return {
        "step_s": step_s,
        "evaluation_s": run.evaluation(gradients_s / run.micro),
        "load_s": load_seconds(spec.dataset, config),
        "activations": round(run.activations),
        "share": share,
        "busy": run.busy,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "prunable": sum(p.numel() for _, p in prunable(run.model)),
        "took_s": time.perf_counter() - begun,
    }


class Steps:
    """The parts of a step, each to be timed: one process, one micro-batch of made-up data."""

    def __init__(self, task, config: Config, spec: RunSpec, recipe, device: torch.device, training: Training, until):
        self.task, self.recipe, self.spec, self.device, self.training = task, recipe, spec, device, training
        self.micro = recipe.micro_batch or max(1, recipe.batch_size // training.ddp_num_gpus)
        self.model = build.model(task, spec, recipe, device)
        self.optimizer, _, _ = build.optimizer(list(self.model.named_parameters()), spec, config, recipe)
        self.text = not isinstance(DATASETS[spec.dataset], Dataset)
        self.wall = self.worked = self.activations = 0.0
        self.until = until

    @property
    def late(self) -> bool:
        return time.perf_counter() > self.until

    def made_up(self, samples: int):
        return made_up(self.task, self.spec.dataset, self.recipe, self.device, samples)

    def draw(self, data, samples: int) -> tuple:
        """A batch as training takes it, with what augmentation costs."""
        recipe = dataclasses.replace(self.recipe, batch_size=samples)
        return next(iter(self.task.batches(data, recipe, torch.Generator().manual_seed(0))))

    def loss(self, part: tuple, smoothing: float = 0.0):
        with torch.autocast(self.device.type, torch.bfloat16, self.training.precision == "bf16"):
            return self.task.loss(self.model, part, smoothing)

    def backward(self, part: tuple) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(part, self.recipe.label_smoothing).backward()

    def gradients(self) -> tuple[float, float]:
        """(the share of a micro-batch that was measured, seconds that all of it takes): of a part that grows until it
        takes long enough to be timed, or is the whole."""
        wanted = 0.0 if self.text else FIRST / self.micro
        while True:
            rows = min(self.micro, max(1 if self.text else FIRST, round(wanted * self.micro)))
            data = self.made_up(rows)
            part, share = cut(self.draw(data, rows), wanted * self.micro / rows, SHORTEST)
            share *= rows / self.micro
            self.activations = self.saved_by_backward(part) / share  # and libraries choose and allocate
            seconds = self.timed(lambda part=part: self.backward(part), (1, 0.0))
            if share == 1.0 or seconds > STEP_S / 2 or self.late:
                break
            wanted = min(1.0, share * STEP_S / seconds)
        if not self.late:
            seconds = self.timed(lambda: (self.draw(data, rows), self.backward(part)), LEAST)
        return share, seconds / share

    def update(self) -> float:
        """Seconds of the optimizer's step; the first makes its state."""
        self.optimizer.step()
        return self.timed(self.optimizer.step, (3, 0.1))

    def evaluation(self, sample_s: float) -> float:
        """Seconds of one validation, from a batch of it or a part of one; sample_s: what a sample's gradients take."""
        samples = evaluated(self.spec.dataset, self.recipe)
        rows = max(1, min(self.recipe.eval_batch_size, samples, round(STEP_S / sample_s)))
        batch = next(iter(self.made_up(rows).test.in_order(rows)))
        part, share = cut(batch, STEP_S / sample_s / rows, SHORTEST)
        self.model.eval()
        with torch.inference_mode():
            if not self.late:
                self.loss(part)
            seconds = self.timed(lambda: self.loss(part), (2, 0.3)) / share
        self.model.train()
        return seconds * samples / len(batch[0])

    def saved_by_backward(self, part: tuple) -> int:
        """Do a backward pass; return the bytes that were saved for it."""
        seen, saved = {p.untyped_storage().data_ptr() for p in self.model.parameters()}, []

        def pack(t):
            saved.extend(sizes([t], seen))
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            self.backward(part)
        return sum(saved)

    def timed(self, call: Callable, least: tuple[int, float]) -> float:
        """The least seconds of a call, over so many calls and seconds at least: what else the machine does adds."""
        found: list[float] = []
        begun, worked = time.perf_counter(), time.process_time()
        while len(found) < least[0] or sum(found) < least[1]:
            before = time.perf_counter()
            call()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - before)
            if self.late:
                break
        self.wall += time.perf_counter() - begun
        self.worked += time.process_time() - worked
        return min(found)

    @property
    def busy(self) -> bool:
        """Whether other work took the CPU's cores away while this was measured: threads that wait for a core use no
        time, and these threads would be at work for most of it."""
        return self.device.type == "cpu" and self.worked < BUSY * self.wall * torch.get_num_threads()


def cut(batch: tuple, share: float, tokens: int) -> tuple[tuple, float]:
    """The first rows of a batch, of images at least two, as BatchNorm needs; of one row of text its first tokens, at
    least so many. And the share of the batch that this is."""
    x, y = batch
    rows = min(len(x), max(1 if x.ndim == 2 else 2, round(len(x) * share)))
    x, y, taken = x[:rows], y[:rows], rows / len(x)
    if x.ndim == 2 and rows == 1 and taken > share:
        length = min(x.shape[1], max(tokens, round(x.shape[1] * share / taken)))
        taken *= length / x.shape[1]
        x, y = x[:, :length], y[:, :length]
    return (x, y), taken


def evaluated(dataset: str, recipe) -> int:
    """Samples of one validation."""
    record = DATASETS[dataset]
    if isinstance(record, Dataset):
        return record.sizes["validation"]
    return -(-(recipe.eval_tokens or TOKENS) // recipe.block)


def made_up(task, dataset: str, recipe, device: torch.device, samples: int):
    """So many samples of the shapes of a data set, random."""
    record = DATASETS[dataset]
    drawn = torch.Generator().manual_seed(0)

    def values(end: int, dtype: torch.dtype, *shape: int):
        count = math.prod(shape)
        some = torch.randint(end, (min(RANDOM, count),), dtype=dtype, generator=drawn)
        return some.repeat(-(-count // len(some)))[:count].reshape(shape).numpy()

    if isinstance(record, Dataset):
        images = values(256, torch.uint8, samples, record.channels, record.side, record.side)
        split = images, values(record.classes, torch.int64, samples)
        flat = (0.5,) * record.channels
        raw = Images(split, split, split, flat, flat, "")
    else:
        name = record.tokenizers[0] if recipe.tokenizer == "auto" else recipe.tokenizer
        end = {"bytes": 256}.get(name, 50256)
        stream = values(end, torch.int32, recipe.block * max(2, samples) + 1)
        lengths = torch.ones(end + 1, dtype=torch.int64).numpy()
        raw = Text(stream, stream, stream, Tokenizer(name, None, None, end, lengths), "")
    return task.splits(raw, dataset, recipe, device, full_train=False)


def load_seconds(dataset: str, config: Config) -> float | None:
    """Seconds to read a data set of images that is here and held in memory; None of any other."""
    record = DATASETS[dataset]
    if not isinstance(record, Dataset) or record.side > LOADED:
        return None
    begun = time.perf_counter()
    try:
        record.load(place(config["DATA_DIR"]))
    except InputError:
        return None
    return time.perf_counter() - begun
