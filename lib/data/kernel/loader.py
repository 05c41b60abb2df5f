"""Device-resident images: the whole set is one uint8 tensor on the device, a batch one gather and one conversion."""

from collections.abc import Iterator

import torch
from torch import Tensor


class DeviceImages:
    """One split, resident on `device`. Batches are (x, y): float32 (B, C, H, W), normalised, and int64 (B,)."""

    def __init__(self, split: tuple, mean: float, std: float, device: torch.device):
        images, labels = split
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self.images[index].float().mul_(self.scale).add_(self.shift), self.labels[index]

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches in an order drawn from `generator` (a CPU one, so that every device sees the same order)."""
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        size = min(batch_size, len(self))
        for i in range(len(self) // size):
            yield self.take(order[i * size : (i + 1) * size])

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(0, len(self), batch_size):
            yield self.take(slice(i, i + batch_size))
