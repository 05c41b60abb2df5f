"""Random scores that are a function of (seed, layer, logical index): nothing to store, the same under any chunking."""

import hashlib

import torch
from torch import Tensor

WORD = 0xFFFFFFFF


def uniform(seed: int, place: int, p: Tensor, rows: slice) -> Tensor:
    """float32 in [0, 1) of the shape of `p[rows]`: MurmurHash3's finalizer (Appleby 2011) of the logical index."""
    shape, per_row = p[rows].shape, p.shape[1:].numel()
    salt = int.from_bytes(hashlib.sha256(f"{seed}/{place}".encode()).digest()[:4], "big")
    first = torch.arange(*rows.indices(p.shape[0]), device=p.device) * per_row
    x = first.unsqueeze(1) + torch.arange(per_row, device=p.device)
    x = (x * 0x9E3779B1 + salt) & WORD
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & WORD
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & WORD
    return ((x ^ (x >> 16)) >> 8).float().mul_(2.0**-24).view(shape)
