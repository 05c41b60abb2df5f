"""Token streams on a device: a batch is a gather of windows out of one memory-mapped stream."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from lib.data.base import Share

WHOLE = Share()
RESIDENT = 1 << 28  # tokens up to which a stream is held on the device, as int32: 1 GiB


def ahead(batches: Iterator) -> Iterator:
    """The same, each made by a thread while the one before it is computed on."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


class Windows:
    """One split, a numpy array of tokens, as windows of `block` tokens and the tokens that follow them: int64
    (B, block), twice. share: what this process takes of it.

    Raises ValueError where the stream is shorter than one window, or holds a token that the vocabulary has not.
    """

    def __init__(self, stream, block: int, device: torch.device, vocabulary: int, name="a split", share=WHOLE):
        if len(stream) <= block:
            raise ValueError(f"{name} has {len(stream)} tokens, and one sample takes {block + 1}")
        self.block, self.device, self.count, self.share = block, device, len(stream), share
        self.stream = stream
        if len(stream) <= RESIDENT:
            self.stream = torch.from_numpy(stream.astype(np.int32)).to(device)
            highest = int(self.stream.max())
            if highest >= vocabulary:
                raise ValueError(f"{name} holds the token {highest}, and the vocabulary has {vocabulary}")
        self.reach = torch.arange(block + 1, device=device)

    def __len__(self) -> int:
        """Windows side by side."""
        return (self.count - 1) // self.block

    def take(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """The windows that begin at `starts`, an int64 tensor: on the device where the stream is."""
        if torch.is_tensor(self.stream):
            found = self.stream[starts[:, None] + self.reach].long()
        else:
            rows = np.stack([self.stream[s : s + self.block + 1] for s in starts.tolist()]).astype(np.int64)
            found = torch.from_numpy(rows)
            if self.device.type == "cuda":
                found = found.pin_memory().to(self.device, non_blocking=True)
        return found[:, :-1], found[:, 1:]

    def epoch(self, batches: int, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of `batches` batches of windows that begin anywhere, drawn from `generator`."""
        starts = torch.randint(self.count - self.block, (batches, batch_size), generator=generator)
        starts = starts.to(self.reach.device) if torch.is_tensor(self.stream) else starts  # once: each copy is a wait
        batches = (self.take(row[self.share.rows(batch_size)]) for row in starts)
        yield from batches if torch.is_tensor(self.stream) else ahead(batches)

    def in_order(self, batch_size: int, most: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows side by side, all of them or the first `most`, over all processes; a batch that another process
        counts has no targets here."""
        n = min(len(self), most or len(self))
        there = self.reach.device if torch.is_tensor(self.stream) else "cpu"
        parts = (torch.arange(n, device=there) * self.block).split(batch_size)
        for i, counts in self.share.turns(len(parts)):
            x, y = self.take(parts[i])
            yield x, y if counts else y[:0]
