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
from lib.data.base import DATASETS, Folders, Share, check_labels
from lib.data.kernel.folder import FolderImages
from lib.data.kernel.loader import DeviceImages
from lib.data.kernel.windows import Windows
from lib.data.text import Tokenizer
from lib.hyper import Recipe

WHOLE = Share()
SMALL = 64  # pixels of side up to which STEM_AUTO is the stem for small images


@dataclass(frozen=True)
class Scores:
    """What an evaluation gives: mean loss in nats and accuracy in percent (None where there is none)."""

    loss: float
    accuracy: float | None


Add = Callable[[Tensor], Tensor]


def alone(t: Tensor) -> Tensor:
    return t


class Task(Protocol):
    """name: the model's. metric: what its runs are compared by, "accuracy" or "perplexity". A batch is a tuple
    of tensors, a sample a row of each. splits(): what load() makes of a data set's own record. shown(): what else a
    summary says of trained weights. share: what this process takes of the data; add(tensor): the sum of a tensor over
    all processes. blocks(): the modules whose weights are worth bringing together one after the other, where processes
    have parts of them; none where they cannot."""

    name: str
    metric: str

    def load(self, dataset: str, recipe: Recipe, data_dir: Path, device, full_train: bool, share=WHOLE) -> "Data": ...

    def splits(self, raw, dataset: str, recipe: Recipe, device, full_train: bool, share=WHOLE) -> "Data": ...

    def model(self, dataset: str, recipe: Recipe) -> nn.Module: ...

    def batches(self, data: "Data", recipe: Recipe, generator: torch.Generator) -> Iterator[tuple]: ...

    def loss(self, model: nn.Module, batch, label_smoothing: float) -> Tensor: ...

    def evaluate(self, model: nn.Module, split, recipe: Recipe, add: Add = alone) -> Scores: ...

    def shown(self, model: nn.Module, data: "Data", add: Add = alone) -> dict: ...

    def batching(self, dataset: str, recipe: Recipe, gib: float | None, devices: int = 1) -> Batching: ...

    def blocks(self, model: nn.Module) -> list[nn.Module]: ...

    def flops_per_token(self, model: nn.Module) -> float | None: ...


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

    def load(self, dataset, recipe, data_dir, device, full_train, share=WHOLE):
        return self.splits(DATASETS[dataset].load(data_dir), dataset, recipe, device, full_train, share)

    def splits(self, raw, dataset, recipe, device, full_train, share=WHOLE):
        check_labels(DATASETS[dataset], raw)
        augment = recipe.augment and DATASETS[dataset].augment
        train, validation = (raw.trainable(), None) if full_train else (raw.train, raw.validation)

        def split(samples, augment=False):
            if isinstance(raw, Folders):
                return FolderImages(samples, raw, device, augment, share)
            return DeviceImages(samples, raw, device, self.channels, augment, share)

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

    def shown(self, model, data, add=alone):
        """How many files of a data set of files were no images."""
        damaged = sum(len(getattr(split, "damaged", ())) for split in (data.train, data.validation, data.test))
        return {"damaged_images": int(add(torch.tensor(damaged)))}

    def batching(self, dataset, recipe, gib, devices=1):
        return batching.image(self.name, DATASETS[dataset].side, recipe.batch_size, gib, recipe.micro_batch, devices)

    def blocks(self, model):
        return []

    def flops_per_token(self, model):
        return None

    @torch.inference_mode()
    def evaluate(self, model, split, recipe, add=alone):
        """Mean cross-entropy without smoothing, and accuracy, over a whole split; one wait for the device."""
        training = model.training
        model.eval()
        loss, correct, count = 0.0, 0, 0
        for x, y in split.in_order(recipe.eval_batch_size):
            count += len(y)
            logits = model(x)[: len(y)]
            loss = loss + F.cross_entropy(logits, y, reduction="sum")
            correct = correct + (logits.argmax(1) == y).sum()
        model.train(training)
        loss, correct, count = add(torch.tensor([float(loss), int(correct), count], dtype=torch.float64)).tolist()
        return Scores(loss / count, 100 * correct / count)


def with_stem(resnet: nn.Module, stem: str) -> nn.Module:
    """A torchvision ResNet as it is, or with the stem for small images: 3x3, no stride, no pooling."""
    if stem == "cifar":
        resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
        resnet.maxpool = nn.Identity()
    return resnet
