"""Device-resident images: the whole set is one uint8 tensor on the device, a batch one gather and one conversion."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.data.base import Images, Share

WHOLE = Share()
PAD = 4  # pixels on each side, for the random crop (He et al. 2015, section 4.2)


class DeviceImages:
    """One split, resident on `device`. Batches are (x, y): float32 (B, channels, H, W), normalised, in channels_last
    where there is more than one channel, and int64 (B,). Grey images are repeated where more channels are asked for.

    augment: each image of an epoch is shifted by up to PAD pixels (what comes in is black) and mirrored or not.
    share: what this process takes of it.
    """

    def __init__(self, split: tuple, raw: Images, device: torch.device, channels: int = 1, augment=False, share=WHOLE):
        images, labels = split
        self.share = share
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.channels, self.augment, self.side = channels, augment, self.images.shape[-1]
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (raw.mean, raw.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std
        if augment:
            self.images = F.pad(self.images, [PAD] * 4)

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, x: Tensor) -> Tensor:
        x = x.float().mul_(self.scale).add_(self.shift)
        if self.channels == 1:
            return x
        return x.expand(-1, self.channels, -1, -1).contiguous(memory_format=torch.channels_last)

    def crops(self, index: Tensor, table: Tensor) -> Tensor:
        """uint8 (B, C, H, W): the images `index` as `table`, of (down, right, mirrored) by image, says."""
        down, right, mirrored = table[index].long().unbind(1)
        windows = self.images.unfold(2, self.side, 1).unfold(3, self.side, 1)  # a view: (N, C, down, right, H, W)
        x = windows[index, :, down, right]
        return torch.where(mirrored.view(-1, 1, 1, 1) == 1, x.flip(3), x)

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of whole batches in an order drawn from `generator` (a CPU one, so that every device
        sees the same order), and augmentation drawn from it next, for every image at once, so that it does not depend
        on the batch size."""
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        if self.augment:
            drawn = [torch.randint(n, (len(self),), dtype=torch.uint8, generator=generator) for n in (9, 9, 2)]
            table = torch.stack(drawn, 1).to(self.labels.device)
        size = min(batch_size, len(self))
        for i in range(len(self) // size):
            index = order[i * size : (i + 1) * size][self.share.rows(size)]
            x = self.crops(index, table) if self.augment else self.images[index]
            yield self.normalised(x), self.labels[index]

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, as it is, over all processes; a batch that another process counts has no labels here."""
        images = self.images[..., PAD:-PAD, PAD:-PAD] if self.augment else self.images
        for i, counts in self.share.turns(-(-len(self) // batch_size)):
            part = slice(i * batch_size, (i + 1) * batch_size)
            yield self.normalised(images[part]), self.labels[part] if counts else self.labels[:0]
