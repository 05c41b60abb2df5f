"""Flat views and pieces: each element once, none that is not the tensor's, and whole tensors off the CPU."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.optim.kernel import flat


@st.composite
def strided(draw):
    """A tensor of distinct numbers, of any number of dimensions, with its dimensions permuted and perhaps gaps."""
    shape = draw(st.lists(st.integers(0, 5), max_size=5))
    gaps = draw(st.lists(st.integers(1, 2), min_size=len(shape), max_size=len(shape)))
    whole = [n * k for n, k in zip(shape, gaps, strict=True)]
    t = torch.arange(torch.Size(whole).numel(), dtype=torch.float32).reshape(whole)
    return t[tuple(slice(None, None, k) for k in gaps)].permute(draw(st.permutations(range(len(shape)))))


@given(strided(), st.integers(1, 40))
def test_pieces_are_the_tensor(t, chunk):
    other = torch.empty_strided(t.shape, t.stride()).copy_(t) if t.numel() else t.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "CHUNK", chunk)
        for parts in (list(flat.pieces(t)), list(flat.pieces(t, other))):
            assert sorted(x for part in parts for x in part[0].flatten().tolist()) == sorted(t.flatten().tolist())
            assert all(torch.equal(part[0], part[-1]) for part in parts)
            dense = flat.alike(t)
            assert not dense or all(part[0].numel() <= chunk for part in parts) or len(parts) == 1 == t.dim() + 1


@given(strided())
def test_what_is_written_to_pieces_is_in_the_tensor(t):
    want = t.clone() + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "CHUNK", 3)
        for (part,) in flat.pieces(t):
            part.add_(1)
    assert torch.equal(t, want)


def test_alike():
    t = torch.empty(4, 6)
    assert flat.alike(t) and flat.alike(t, torch.empty(4, 6)) and flat.alike(t.t(), torch.empty(4, 6).t())
    assert flat.alike(torch.empty(())) and flat.alike(torch.empty(0, 3))
    assert not flat.alike(t, torch.empty(6, 4).t())
    assert not flat.alike(t[:, :3]) and not flat.alike(t[::2], t[::2]) and not flat.alike(t[:, :1].expand(4, 6))


def test_another_device_gets_whole_tensors():
    """A kernel's launch costs more there than memory does. The meta device stands for a GPU."""
    t = torch.empty(4 * flat.CHUNK, device="meta")
    parts = list(flat.pieces(t, torch.empty_like(t)))
    assert len(parts) == 1 and all(x.shape == t.shape for x in parts[0])
    assert len(list(flat.pieces(torch.empty(4 * flat.CHUNK)))) == 4


def test_other_layouts_are_whole():
    t = torch.empty(2 * flat.CHUNK, 2)
    assert len(list(flat.pieces(t, torch.empty(2, 2 * flat.CHUNK).t()))) == 1
    assert len(list(flat.pieces(t[:, 0]))) == 1
    assert len(list(flat.pieces(t, t))) == 4
