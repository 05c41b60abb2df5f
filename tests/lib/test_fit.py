"""A GPU that is too small: the message names what would fit. The GPU itself is played: its bytes grow with samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_kit import Like, prepare

from lib import fit
from lib.config import InputError
from lib.fit import SPARE, samples_that_fit
from lib.peak import mfu, peak_flops
from lib.trainer import train


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(0, 10**11))
def test_what_fits_fits(once, each, free):
    found = samples_that_fit(lambda n: once + n * each, free)
    if found > 1:
        assert once + found * each <= free * SPARE + 1
        assert once + (found + 1) * each > free * SPARE - 1
    if found == 0:
        assert once + each > free


def test_not_even_one():
    def peak(n):
        raise torch.OutOfMemoryError("out of memory")

    assert samples_that_fit(peak, 10) == 0


class Small(Like):
    """Memory for so many samples at a time."""

    def __init__(self, samples):
        self.samples = samples

    def loss(self, model, batch, smoothing):
        if len(batch[0]) > self.samples:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.task.loss(model, batch, smoothing)


def test_the_message_names_the_batch_that_would_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "total", lambda device: 4 * 2**30)
    monkeypatch.setattr(fit, "free", lambda device: 1000)
    monkeypatch.setattr(fit, "peak", lambda run, n: 100 + 20 * n)
    d, config, spec = prepare(tmp_path, "adamw", LENET5_BATCH_SIZE="64")
    with pytest.raises(InputError) as e:
        train(Small(40), d, config, spec)
    assert "(4.0 GiB) is too small for 64 samples of lenet5 at a time: about 40 would fit." in str(e.value)
    assert "Set LENET5_MICRO_BATCH=40 and HYPER_PARAM_AUTO=n" in str(e.value)
    again = {"LENET5_BATCH_SIZE": "64", "LENET5_MICRO_BATCH": "40", "HYPER_PARAM_AUTO": "n"}
    d, config, spec = prepare(tmp_path / "again", "adamw", **again)
    assert train(Small(40), d, config, spec) == "done"


def test_a_gpu_on_which_nothing_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "total", lambda device: 2**30)
    monkeypatch.setattr(fit, "free", lambda device: 0)
    monkeypatch.setattr(fit, "peak", lambda run, n: 1)
    d, config, spec = prepare(tmp_path, "adamw")
    with pytest.raises(InputError, match="not even one fits: take a smaller model, or a GPU with more memory"):
        train(Small(0), d, config, spec)


def test_utilisation():
    assert peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == peak_flops("NVIDIA GH200 480GB", "bf16") == 989e12
    assert peak_flops("NVIDIA A10G", "bf16") != peak_flops("NVIDIA A10", "bf16")
    assert peak_flops("NVIDIA H100 PCIe", "fp32") is peak_flops("Intel(R) Xeon(R)", "bf16") is None
    assert peak_flops("NVIDIA L40", "bf16") == 181e12
    assert peak_flops("NVIDIA RTX A1000", "bf16") is peak_flops("NVIDIA GB200", "bf16") is None
    assert mfu(312e12, "NVIDIA A100-SXM4-80GB", "bf16", devices=2) == pytest.approx(50)
    assert mfu(1e12, "a CPU", "bf16") is None
