"""Images as files, on a small set of ImageNet's layout: what is decoded, what is drawn, and what is damaged."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.config import InputError
from lib.data.base import DATASETS, Share
from lib.data.imagenet import MEAN, STD, folders
from lib.data.kernel.folder import SIDE, FolderImages

CPU = torch.device("cpu")
CLASSES = ("n01", "n02", "n03")


@pytest.fixture
def root(tmp_path):
    """Twelve training and two test images a class, of sizes of their own, the class in their colour."""
    r = np.random.RandomState(0)
    for split, count in (("train", 12), ("val", 2)):
        for c, name in enumerate(CLASSES):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = r.randint(0, 90, (230 + 9 * i, 300, 3)).astype(np.uint8)
                pixels[..., c] += 150
                Image.fromarray(pixels).save(folder / f"{i:02d}.JPEG", quality=95)
    return tmp_path


@pytest.fixture
def data(root):
    return folders(root, 6)


def test_splits_are_stratified_and_leave_nothing_out(data):
    assert [len(s) for s in (data.train, data.validation, data.test)] == [30, 6, 6]
    assert [label for _, label in data.validation].count(0) == 2
    assert not {p for p, _ in data.train} & {p for p, _ in data.validation}
    assert len(data.trainable()) == 36


def test_the_hash_is_of_the_names(root, data):
    assert folders(root, 6).hash == data.hash
    (root / "train" / "n01" / "00.JPEG").rename(root / "train" / "n01" / "x.JPEG")
    assert folders(root, 6).hash != data.hash


def epoch(data, batch, seed=0, monkeypatch=None):
    images = FolderImages(data.train, data, CPU, augment=True)
    x, y = zip(*images.epoch(batch, torch.Generator().manual_seed(seed)), strict=True)
    return torch.cat(x), torch.cat(y)


def test_what_an_image_gets_does_not_depend_on_batches(data):
    (a, y), (b, z) = epoch(data, 30), epoch(data, 5)
    assert torch.equal(y, z)
    assert torch.equal(a, b)
    assert a.shape == (30, 3, SIDE, SIDE)
    assert a.is_contiguous(memory_format=torch.channels_last)


def test_epochs_differ_and_repeat(data):
    (a, _), (b, _), (c, _) = (epoch(data, 10, seed) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_order_and_numbers_of_the_run_are_left_alone(data):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    epoch(data, 10)
    assert torch.equal(torch.rand(3), want)


def test_evaluation_takes_the_middle_of_each_image_once(data):
    images = FolderImages(data.test, data, CPU)
    x, y = zip(*images.in_order(4), strict=True)
    x, y = torch.cat(x), torch.cat(y)
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    pixels = x * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert (pixels.mean((2, 3)).argmax(1) == y).all()


def test_a_damaged_file_is_left_out_and_counted(root, capfd):
    (root / "train" / "n02" / "03.JPEG").write_bytes(b"no image")
    whole = (root / "train" / "n02" / "04.JPEG").read_bytes()
    (root / "train" / "n02" / "04.JPEG").write_bytes(whole[: len(whole) // 2])
    data = folders(root, 6)
    images = FolderImages(data.train + data.validation, data, CPU, augment=True)
    for _ in range(2):
        found = list(images.epoch(6, torch.Generator().manual_seed(0)))
        assert sum(len(y) for _, y in found) == 34
        assert all((y >= 0).all() for _, y in found)
    assert len(images.damaged) == 2
    assert capfd.readouterr().out.count("left out, no image") == 2


def test_a_folder_that_is_not_imagenet(root):
    with pytest.raises(InputError, match="imagenet/train holds 0 folders of classes, and there are 1000"):
        DATASETS["imagenet"].check(root)
    with pytest.raises(InputError, match="cannot be downloaded here"):
        DATASETS["imagenet"].download(root)


def test_shares_of_processes_are_the_whole_batch(data):
    def drawn(share):
        made = FolderImages(data.train, data, CPU, augment=True, share=share)
        return list(made.epoch(10, torch.Generator().manual_seed(1)))

    whole, parts = drawn(Share()), [drawn(Share(rank, 2)) for rank in range(2)]
    for i, (x, y) in enumerate(whole):
        assert torch.equal(x, torch.cat([p[i][0] for p in parts]))
        assert torch.equal(y, torch.cat([p[i][1] for p in parts]))
    seen = [list(FolderImages(data.test, data, CPU, share=Share(rank, 2)).in_order(4)) for rank in range(2)]
    assert [[len(y) for _, y in s] for s in seen] == [[4], [2]]


def test_a_batch_of_damaged_files_is_a_step_that_changes_nothing(root):
    """And not one step less: other processes would wait for it."""
    for path in (root / "train").rglob("*.JPEG"):
        path.write_bytes(b"no image")
    data = folders(root, 6)
    for x, y in FolderImages(data.train, data, CPU, augment=True).epoch(10, torch.Generator()):
        assert x.shape == (10, 3, SIDE, SIDE)
        assert torch.nn.functional.cross_entropy(torch.randn(10, 3), y).isnan()


def test_several_processes_keep_batches_of_one_size(root):
    """Or one of them would take fewer goes than the others, and wait for nobody."""
    (root / "train" / "n02" / "03.JPEG").write_bytes(b"no image")
    data = folders(root, 6)
    made = FolderImages(data.train + data.validation, data, CPU, augment=True, share=Share(0, 2))
    other = FolderImages(data.train + data.validation, data, CPU, augment=True, share=Share(1, 2))
    found = [y for m in (made, other) for _, y in m.epoch(12, torch.Generator().manual_seed(0))]
    assert {len(y) for y in found} == {6}
    assert sum(int((y == -100).sum()) for y in found) == len(made.damaged) + len(other.damaged) == 1


def test_an_image_that_unpacks_to_too_much_is_damaged(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = folders(root, 6)
    made = FolderImages(data.test, data, CPU)
    assert sum(len(y) for _, y in made.in_order(3)) == 0
    assert len(made.damaged) == 6
