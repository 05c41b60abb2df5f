"""Training images: shifted and mirrored by a table of the epoch, whatever the batches are."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lib.data.base import Images, Share
from lib.data.kernel.loader import PAD, DeviceImages

CPU = torch.device("cpu")
N = 37


def images(channels=3, side=32, augment=True, wanted=3, share=Share()):  # noqa: B008
    r = np.random.RandomState(0)
    split = r.randint(0, 256, (N, channels, side, side)).astype(np.uint8), np.arange(N)
    raw = Images(split, split, split, (0.5,) * channels, (0.25,) * channels, "")
    return DeviceImages(split, raw, CPU, wanted, augment, share)


def epoch(data, batch, seed=0):
    x, y = zip(*data.epoch(batch, torch.Generator().manual_seed(seed)), strict=True)
    return torch.cat(x), torch.cat(y)


def test_each_image_is_a_crop_of_itself_and_its_mirror_image():
    data = images()
    x, y = epoch(data, N)
    seen, mirrored = set(), 0
    for image, label in zip(x, y.tolist(), strict=True):
        whole = F.pad(torch.from_numpy(np.random.RandomState(0).randint(0, 256, (N, 3, 32, 32)))[label], [PAD] * 4)
        whole = (whole.float() / 255 - 0.5) / 0.25
        found = [
            (down, right, flip)
            for down in range(2 * PAD + 1)
            for right in range(2 * PAD + 1)
            for flip in (False, True)
            if torch.allclose(
                image.flip(2) if flip else image, whole[:, down : down + 32, right : right + 32], atol=1e-5
            )
        ]
        assert len(found) == 1
        seen.add(found[0][:2])
        mirrored += found[0][2]
    assert len(seen) > 20
    assert 8 < mirrored < 29
    assert sorted(y.tolist()) == list(range(N))


def test_it_does_not_depend_on_the_batch_size():
    by_label = [dict(zip(y.tolist(), x, strict=True)) for x, y in (epoch(images(), b) for b in (N, 5))]
    assert all(torch.equal(by_label[0][k], v) for k, v in by_label[1].items())


def test_it_differs_from_epoch_to_epoch_and_not_from_run_to_run():
    (a, _), (b, _), (c, _) = (epoch(images(), N, seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("augment", [False, True])
def test_evaluation_takes_images_as_they_are(augment):
    x, y = next(iter(images(augment=augment).in_order(N)))
    want = (torch.from_numpy(np.random.RandomState(0).randint(0, 256, (N, 3, 32, 32))).float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(x, want, atol=1e-5, rtol=0)
    assert torch.equal(y, torch.arange(N))


def test_grey_images_are_repeated_where_three_channels_are_wanted():
    x, _ = next(iter(images(channels=1, augment=False).in_order(4)))
    assert x.shape == (4, 3, 32, 32)
    assert torch.equal(x[:, 0], x[:, 2])


def test_colour_is_channels_last_and_grey_is_not():
    x, _ = next(iter(images().epoch(8, torch.Generator())))
    assert x.is_contiguous(memory_format=torch.channels_last)
    x, _ = next(iter(images(channels=1, augment=False, wanted=1).epoch(8, torch.Generator())))
    assert x.is_contiguous()


def test_shares_of_processes_are_the_whole_batch():
    """Augmented as in one process; and in an evaluation each image is counted once."""

    def drawn(share):
        return list(images(share=share).epoch(12, torch.Generator().manual_seed(1)))

    whole, parts = drawn(Share()), [drawn(Share(rank, 3)) for rank in range(3)]
    for i, (x, y) in enumerate(whole):
        assert torch.equal(x, torch.cat([p[i][0] for p in parts]))
        assert torch.equal(y, torch.cat([p[i][1] for p in parts]))
    seen = [list(images(share=Share(rank, 3)).in_order(10)) for rank in range(3)]
    assert {len(s) for s in seen} == {2}
    assert sorted(i for s in seen for _, y in s for i in y.tolist()) == list(range(N))
    assert all(len(x) for s in seen for x, _ in s)
