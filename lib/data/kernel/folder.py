"""Images as files: decoded, cropped and mirrored by worker processes, normalised on the device.

What an image gets in an epoch depends on the epoch's seed and its own number alone: not on workers, batches or order.
A file that is no image is left out of its batch and counted.
"""

import os
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.data.base import Folders, Share

SIDE, LARGER = 224, 256  # of what a network sees; of an image's shorter side where the middle is taken of it
WORKERS = 8  # at most
WHOLE = Share()
NONE = -100  # the label that cross-entropy passes over


class Files(Dataset):
    """(uint8 image (3, SIDE, SIDE), label, index); label -1 for a file that is no image. seed None: as evaluated."""

    def __init__(self, samples: tuple, seed: int | None):
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int):
        from PIL import Image

        path, label = self.samples[i]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what PIL raises of damaged files
            return torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), -1, i
        return self.seen(image, i), label, i

    def seen(self, image, i: int) -> Tensor:
        """A random part of at least 8% and a mirror image or not (Szegedy et al. 2015); else the middle."""
        from torchvision.transforms import RandomResizedCrop
        from torchvision.transforms import functional as F

        if self.seed is None:
            return F.pil_to_tensor(F.center_crop(F.resize(image, LARGER), SIDE))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + i)
            where = RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
            mirrored = bool(torch.rand(()) < 0.5)
        image = F.resized_crop(image, *where, (SIDE, SIDE))
        return F.pil_to_tensor(F.hflip(image) if mirrored else image)


class FolderImages:
    """One split. Batches are (x, y): float32 (B, 3, SIDE, SIDE), normalised, in channels_last, and int64 (B,).

    damaged: the files that were no images so far, of this process's share.
    """

    def __init__(self, samples: tuple, raw: Folders, device: torch.device, augment=False, share=WHOLE):
        self.samples, self.device, self.augment, self.share, self.damaged = samples, device, augment, share, set()
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (raw.mean, raw.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        return len(self.samples)

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of whole batches in an order drawn from `generator`, which also gives the augmentation's
        seed."""
        order = torch.randperm(len(self), generator=generator).tolist()
        seed = int(torch.randint(1 << 48, (), generator=generator)) if self.augment else None
        size, part = min(batch_size, len(self)), self.share.rows(min(batch_size, len(self)))
        parts = [order[i * size : (i + 1) * size][part] for i in range(len(self) // size)]
        # Several processes need batches of one size, or their goes would not be as many.
        for x, y in self.batches(parts, seed, keep=self.share.size > 1):
            # A loss over no label is no number, so that a batch without one image is a step that changes nothing.
            yield x, y if len(y) else torch.full((len(x),), NONE, device=self.device)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, as it is evaluated, over all processes; a batch that another process counts has no labels
        here."""
        every = list(range(len(self)))
        whole = [every[i : i + batch_size] for i in range(0, len(every), batch_size)]
        turns = list(self.share.turns(len(whole)))
        found = self.batches([whole[i] for i, _ in turns], None)
        for (x, y), (_, counts) in zip(found, turns, strict=True):
            yield x, y if counts else y[:0]

    def batches(self, indices: list[list[int]], seed: int | None, keep=False) -> Iterator[tuple[Tensor, Tensor]]:
        """One for each list: its images and their labels. Where all its files are damaged, black ones and no label;
        keep: where some are, black ones with the label NONE."""
        gpu = self.device.type == "cuda"
        workers = min(WORKERS, os.cpu_count() or 1, len(indices))
        files, own = Files(self.samples, seed), torch.Generator()  # or it would draw from the run's random numbers
        loader = DataLoader(files, batch_sampler=indices, num_workers=workers, pin_memory=gpu, generator=own)
        for x, y, index in loader:
            good = y >= 0
            if not bool(good.all()):
                self.note([self.samples[i][0] for i in index[~good].tolist()])
                if keep:
                    y = y.where(good, NONE)
                else:
                    x, y = x[good] if bool(good.any()) else x, y[good]
            x = x.to(self.device, non_blocking=gpu).float().mul_(self.scale).add_(self.shift)
            yield x.contiguous(memory_format=torch.channels_last), y.to(self.device, non_blocking=gpu)

    def note(self, paths: list) -> None:
        for path in paths:
            if path not in self.damaged:
                print(f"left out, no image: {path}", flush=True)
        self.damaged.update(paths)
