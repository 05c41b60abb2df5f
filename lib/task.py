"""What a model brings to the training loop: data, network, loss, evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data.base import DATASETS
from lib.data.kernel.loader import DeviceImages


@dataclass(frozen=True)
class Scores:
    """What an evaluation gives: mean loss in nats and accuracy in percent (None where there is none)."""

    loss: float
    accuracy: float | None


class Task(Protocol):
    """name: the model's. load, model, batches, loss and evaluate are all that the training loop calls."""

    name: str

    def load(self, dataset: str, data_dir: Path, device: torch.device, full_train: bool) -> "Data": ...

    def model(self, dataset: str) -> nn.Module: ...

    def batches(self, data: "Data", batch_size: int, generator: torch.Generator) -> Iterator: ...

    def loss(self, model: nn.Module, batch, label_smoothing: float) -> Tensor: ...

    def evaluate(self, model: nn.Module, split, batch_size: int) -> Scores: ...


@dataclass(frozen=True)
class Data:
    """Splits on the device; validation is None when everything is trained on. `hash` is that of the data set."""

    train: DeviceImages
    validation: DeviceImages | None
    test: DeviceImages
    hash: str


@dataclass(frozen=True)
class Classification:
    """Images in, one class out. `network(classes)` makes the model."""

    name: str
    network: Callable[[int], nn.Module]

    def load(self, dataset, data_dir, device, full_train):
        raw = DATASETS[dataset].load(data_dir)
        train, validation = raw.train, raw.validation
        if full_train:
            import numpy as np

            train, validation = tuple(np.concatenate(pair) for pair in zip(train, validation, strict=True)), None

        def resident(split):
            return DeviceImages(split, raw.mean, raw.std, device)

        return Data(resident(train), validation and resident(validation), resident(raw.test), raw.hash)

    def model(self, dataset):
        return self.network(DATASETS[dataset].classes)

    def batches(self, data, batch_size, generator):
        return data.train.epoch(batch_size, generator)

    def loss(self, model, batch, label_smoothing):
        x, y = batch
        return F.cross_entropy(model(x), y, label_smoothing=label_smoothing)

    @torch.inference_mode()
    def evaluate(self, model, split, batch_size):
        """Mean cross-entropy without smoothing, and accuracy, over a whole split; one device sync."""
        training = model.training
        model.eval()
        loss, correct = 0.0, 0
        for x, y in split.in_order(batch_size):
            logits = model(x)
            loss = loss + F.cross_entropy(logits, y, reduction="sum")
            correct = correct + (logits.argmax(1) == y).sum()
        model.train(training)
        return Scores(float(loss) / len(split), 100 * int(correct) / len(split))
