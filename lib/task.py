"""What a model brings to the training loop: data, network, loss, evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import batching
from lib.batching import Batching
from lib.data.base import DATASETS, Folders
from lib.data.kernel.folder import FolderImages
from lib.data.kernel.loader import DeviceImages
from lib.data.kernel.windows import Windows
from lib.data.text import Tokenizer
from lib.hyper import Recipe

SMALL = 64  # pixels of side up to which STEM_AUTO is the stem for small images


@dataclass(frozen=True)
class Scores:
    """What an evaluation gives: mean loss in nats and accuracy in percent (None where there is none)."""

    loss: float
    accuracy: float | None


class Task(Protocol):
    """name: the model's. metric: what its runs are compared by, "accuracy" or "perplexity". A batch is a tuple
    of tensors, a sample a row of each. shown(): what else a summary says of trained weights."""

    name: str
    metric: str

    def load(self, dataset: str, recipe: Recipe, data_dir: Path, device: torch.device, full_train: bool) -> "Data": ...

    def model(self, dataset: str, recipe: Recipe) -> nn.Module: ...

    def batches(self, data: "Data", recipe: Recipe, generator: torch.Generator) -> Iterator[tuple]: ...

    def loss(self, model: nn.Module, batch, label_smoothing: float) -> Tensor: ...

    def evaluate(self, model: nn.Module, split, recipe: Recipe) -> Scores: ...

    def shown(self, model: nn.Module, data: "Data") -> dict: ...

    def batching(self, dataset: str, recipe: Recipe, gib: float | None) -> Batching: ...


@dataclass(frozen=True)
class Data:
    """Splits on the device; validation is None when everything is trained on. hash: of the data set. facts: what else
    a run's summary says of it."""

    train: DeviceImages | FolderImages | Windows
    validation: DeviceImages | FolderImages | Windows | None
    test: DeviceImages | FolderImages | Windows
    hash: str
    facts: dict = field(default_factory=lambda: {"tokenizer": None, "block": None, "bytes_per_token": None})
    tokenizer: Tokenizer | None = None

    def example(self, n: int) -> Tensor:
        """n inputs of the test split, over again where it has fewer."""
        x, _ = next(iter(self.test.in_order(n)))
        return x.repeat(-(-n // len(x)), *[1] * (x.ndim - 1))[:n]


@dataclass(frozen=True)
class Classification:
    """Images of `channels` in, one class out. `network(classes, stem)` makes the model."""

    name: str
    network: Callable[[int, str], nn.Module]
    channels: int = 1
    metric: str = "accuracy"

    def load(self, dataset, recipe, data_dir, device, full_train):
        raw = DATASETS[dataset].load(data_dir)
        augment = recipe.augment and DATASETS[dataset].augment
        train, validation = (raw.trainable(), None) if full_train else (raw.train, raw.validation)

        def split(samples, augment=False):
            if isinstance(raw, Folders):
                return FolderImages(samples, raw, device, augment)
            return DeviceImages(samples, raw, device, self.channels, augment)

        return Data(split(train, augment), validation and split(validation), split(raw.test), raw.hash)

    def model(self, dataset, recipe):
        stem = recipe.stem if recipe.stem != "auto" else "cifar" if DATASETS[dataset].side <= SMALL else "imagenet"
        made = self.network(DATASETS[dataset].classes, stem)
        return made.to(memory_format=torch.channels_last) if self.channels > 1 else made

    def batches(self, data, recipe, generator):
        return data.train.epoch(recipe.batch_size, generator)

    def loss(self, model, batch, label_smoothing):
        x, y = batch
        return F.cross_entropy(model(x), y, label_smoothing=label_smoothing)

    def shown(self, model, data):
        """How many files of a data set of files were no images."""
        return {"damaged_images": len(getattr(data.train, "damaged", ())) + len(getattr(data.test, "damaged", ()))}

    def batching(self, dataset, recipe, gib):
        return batching.image(self.name, DATASETS[dataset].side, recipe.batch_size, gib)

    @torch.inference_mode()
    def evaluate(self, model, split, recipe):
        """Mean cross-entropy without smoothing, and accuracy, over a whole split; one device sync."""
        training = model.training
        model.eval()
        loss, correct, count = 0.0, 0, 0
        for x, y in split.in_order(recipe.eval_batch_size):
            count += len(y)
            logits = model(x)
            loss = loss + F.cross_entropy(logits, y, reduction="sum")
            correct = correct + (logits.argmax(1) == y).sum()
        model.train(training)
        return Scores(float(loss) / count, 100 * int(correct) / count)


def with_stem(resnet: nn.Module, stem: str) -> nn.Module:
    """A torchvision ResNet as it is, or with the stem for small images: 3x3, no stride, no pooling."""
    if stem == "cifar":
        resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
        resnet.maxpool = nn.Identity()
    return resnet
