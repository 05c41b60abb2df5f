"""CONFIG_HYPER_PARAM_AUTO: the batch of the recipe, on any device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.batching import cut, image, language


@pytest.mark.parametrize(
    ("gib", "devices", "samples", "goes"),
    [
        (179.0, 1, 128, 8),
        (179.0, 4, 128, 2),
        (47.9, 1, 32, 32),
        (22.0, 1, 8, 128),
        (139.0, 1, 64, 16),
        (7.5, 1, 1, 1024),
    ],
)
def test_the_published_rows(gib, devices, samples, goes):
    """B200 (192 GB), W7900 (48 GB) and A10G (24 GB), in the GiB that they report."""
    found = language("124m", 1024, 1024, gib, devices=devices)
    assert (found.samples, found.goes, found.left) == (samples, goes, 0)
    assert f"{gib:.0f} GiB" in found.why


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 16))
def test_nothing_is_lost(batch, fits, devices):
    if batch < devices:
        with pytest.raises(ValueError, match=f"a batch of {batch} is too small for {devices} devices"):
            cut(batch, fits, devices, "")
        return
    found = cut(batch, fits, devices, "")
    assert found.samples * found.goes * found.devices + found.left == batch
    assert 1 <= found.samples <= fits
    assert 0 <= found.left < devices * found.samples + devices


@given(
    st.sampled_from(["tiny", "124m", "350m", "774m", "1558m"]),
    st.sampled_from([128, 256, 1024, 2048]),
    st.floats(1, 300),
    st.floats(1, 300),
)
def test_more_memory_never_means_fewer_samples(size, block, a, b):
    small, large = sorted((a, b))
    assert language(size, block, 1024, small).samples <= language(size, block, 1024, large).samples


def test_larger_models_take_fewer_samples():
    sizes = [language(s, 1024, 1024, 79.0).samples for s in ("124m", "350m", "774m", "1558m")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= 1


def test_a_cpu_takes_what_the_recipe_says():
    assert language("124m", 1024, 1024, None, micro=16).samples == 16
    assert language("tiny", 256, 16, None).samples == 16
    assert image("resnet18", 32, 128, None).samples == 128
    assert image("resnet18", 32, 128, None, micro=32).goes == 4


@pytest.mark.parametrize(("model", "side", "gib"), [("lenet5", 32, 4.0), ("resnet18", 32, 8.0), ("resnet50", 32, 22.0)])
def test_image_models_take_a_batch_whole_where_it_fits(model, side, gib):
    batch = 512 if model == "lenet5" else 128
    assert image(model, side, batch, gib).goes == 1


def test_a_gpu_too_small_for_the_batch_takes_it_in_goes():
    found = image("resnet50", 224, 128, 11.0)
    assert (found.samples, found.goes, found.left) == (32, 4, 0)


def test_a_prime_batch_says_what_is_left():
    found = cut(1021, 64, 1, "")
    assert (found.samples, found.goes, found.left) == (64, 15, 61)
