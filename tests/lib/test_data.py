"""Data sets: fixed splits, checksums before use, and messages that say what to do."""

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config import InputError
from lib.data import base, mnist
from lib.data.base import DATASETS, EMBEDDED, MissingData, check_files, stratified
from lib.data.text import TextSet
from lib.data.web import WebSet

ADVICE = ["`make data`", "DATA_DIR=", f"`{EMBEDDED}`"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return DATASETS["digits"].load(tmp_path_factory.mktemp("nothing"))


@pytest.mark.parametrize("name", DATASETS.names())
def test_records(name):
    record = DATASETS[name]
    if isinstance(record, TextSet | WebSet):
        assert record.train_samples(True) == 0
        assert record.embedded == (name == "stdlib")
        return
    assert set(record.sizes) == {"train", "validation", "test"}
    assert min(record.sizes.values()) > 0
    assert record.train_samples(False) == record.sizes["train"]
    assert record.train_samples(True) == record.sizes["train"] + record.sizes["validation"]
    assert record.embedded == (record.download is None)


def test_the_embedded_set_is_embedded(tmp_path):
    assert DATASETS[EMBEDDED].embedded
    DATASETS[EMBEDDED].check(tmp_path)


def test_digits_are_the_sizes_they_claim(digits):
    for split, size in DATASETS["digits"].sizes.items():
        images, labels = getattr(digits, split)
        assert (images.shape, images.dtype) == ((size, 1, 32, 32), np.uint8)
        assert (labels.shape, labels.dtype) == ((size,), np.int64)
        assert set(labels) == set(range(10))


def test_digits_splits_do_not_overlap_and_leave_nothing_out(digits):
    from sklearn.datasets import load_digits

    def keys(images):
        return [i.tobytes() for i in images[:, 0, ::4, ::4]]

    found = [k for s in ("train", "validation", "test") for k in keys(getattr(digits, s)[0])]
    whole = keys(np.rint(load_digits().images * (255 / 16)).astype(np.uint8).repeat(4, 1).repeat(4, 2)[:, None])
    assert sorted(found) == sorted(whole)


def test_digits_are_these(digits):
    """A split that moved would make every recorded accuracy incomparable; the hash is in each result."""
    assert digits.hash == "539353d6fdaa505bf704f17fa0d469442eb6995e3fba642a31ed74aa1e9a2fca"
    pixels = digits.train[0] / 255
    assert (digits.mean, digits.std) == ((pytest.approx(pixels.mean()),), (pytest.approx(pixels.std()),))


def test_digits_validation_is_stratified(digits):
    counts = np.bincount(digits.validation[1])
    assert counts.max() - counts.min() <= 2


def test_loading_twice_gives_the_same(digits, tmp_path):
    assert DATASETS["digits"].load(tmp_path).hash == digits.hash


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    first=st.floats(0, 1),
    second=st.floats(0, 1),
)
def test_stratified_splits(labels, first, second):
    sizes = [int(first * len(labels)), int(second * (len(labels) - int(first * len(labels))))]
    parts = stratified(labels, sizes)
    assert [len(p) for p in parts] == [*sizes, len(labels) - sum(sizes)]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for part in parts:
        assert list(part) == sorted(part)
    for c in set(labels):
        share = labels.count(c) / len(labels)
        # Ranks within classes are interleaved, so that a split is off by less than one sample a class.
        assert abs(sum(labels[i] == c for i in parts[0]) - share * sizes[0]) <= len(set(labels))


def files(folder, **content: bytes) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return {name: hashlib.md5(data).hexdigest() for name, data in content.items()}


def test_files_that_are_whole(tmp_path):
    check_files("Set", tmp_path, files(tmp_path, a=b"1", b=b"2"))


def test_files_that_are_missing(tmp_path):
    md5 = files(tmp_path, a=b"1", b=b"2", c=b"3")
    for name in "ac":
        (tmp_path / name).unlink()
    with pytest.raises(MissingData) as e:
        check_files("Set", tmp_path, md5)
    assert str(e.value).startswith(f"Set: a, c not found in {tmp_path}. ")
    assert [part for part in ADVICE if part not in str(e.value)] == []


@pytest.mark.parametrize("damage", [b"", b"12", b"1234", b"124"], ids=["empty", "cut short", "longer", "other"])
def test_files_that_are_damaged(tmp_path, damage):
    """No MissingData: a download would not replace them."""
    md5 = files(tmp_path, a=b"123", b=b"2")
    (tmp_path / "a").write_bytes(damage)
    with pytest.raises(InputError) as e:
        check_files("Set", tmp_path, md5)
    assert not isinstance(e.value, MissingData)
    got = hashlib.md5(damage).hexdigest()
    for part in [f"{tmp_path / 'a'} is damaged or cut short", f"md5 {got}, expected {md5['a']}", "Delete it.", *ADVICE]:
        assert part in str(e.value)


def test_a_folder_in_the_place_of_a_file(tmp_path):
    md5 = files(tmp_path, a=b"1")
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    with pytest.raises(MissingData, match="a not found"):
        check_files("Set", tmp_path, md5)


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    """Files of MNIST's form with a few images, which are random but for their labels' order."""
    rng = np.random.default_rng(0)
    sizes = {"train": 60, "t10k": 20}
    images = {k: rng.integers(0, 256, (n, 28, 28), np.uint8) for k, n in sizes.items()}
    labels = {k: np.arange(n).astype(np.uint8) % 10 for k, n in sizes.items()}
    content = {f"{k}-images-idx3-ubyte": bytes(16) + images[k].tobytes() for k in sizes}
    content |= {f"{k}-labels-idx1-ubyte": bytes(8) + labels[k].tobytes() for k in sizes}
    monkeypatch.setattr(mnist, "MD5", files(mnist.folder(tmp_path), **content))
    monkeypatch.setattr(mnist, "SIZES", {"train": 50, "validation": 10, "test": 20})
    return tmp_path, images, labels


def test_mnist_is_read_and_padded(fake_mnist):
    folder, images, labels = fake_mnist
    found = mnist.load(folder)
    assert [len(s[1]) for s in (found.train, found.validation, found.test)] == [50, 10, 20]
    x, y = found.test
    assert x.shape == (20, 1, 32, 32)
    assert np.array_equal(x[:, 0, 2:-2, 2:-2], images["t10k"])
    assert x.sum() == images["t10k"].sum()  # the padding is 0
    assert np.array_equal(y, labels["t10k"])
    assert sorted(found.validation[1]) == list(range(10))
    for x, y in zip(*found.train, strict=True):
        at = np.flatnonzero((images["train"] == x[0, 2:-2, 2:-2]).all((1, 2)))
        assert labels["train"][at] == [y]
    own = found.train[0][:, :, 2:-2, 2:-2] / 255
    assert (found.mean, found.std) == ((pytest.approx(own.mean()),), (pytest.approx(own.std()),))


def test_mnist_hash_covers_every_split(fake_mnist):
    folder, *_ = fake_mnist
    before = mnist.load(folder).hash
    path = mnist.folder(folder) / "t10k-labels-idx1-ubyte"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    mnist.MD5[path.name] = hashlib.md5(data).hexdigest()
    assert mnist.load(folder).hash != before


@pytest.mark.parametrize("name", [n for n in DATASETS.names() if not DATASETS[n].embedded])
def test_downloaded_sets_check_before_they_load(name, tmp_path):
    for attempt in (DATASETS[name].check, DATASETS[name].load):
        with pytest.raises(MissingData) as e:
            attempt(tmp_path)
        assert str(tmp_path) in str(e.value)
        text = isinstance(DATASETS[name], TextSet | WebSet)
        wanted = ["DATA_DIR=", "`stdlib`" if text else "`digits`", *(["`make data`"] if name != "imagenet" else [])]
        assert [part for part in wanted if part not in str(e.value)] == []


def test_a_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DATASETS["digits"].name = "other"
    assert base.EMBEDDED in DATASETS


@pytest.mark.parametrize(("split", "label"), [("train", 10), ("test", -1)])
def test_a_label_that_is_no_class(split, label, monkeypatch, tmp_path):
    import torch

    from lenet5.train import make_task
    from lib.hyper import Recipe

    record = DATASETS["digits"]
    whole = record.load(tmp_path)
    x, y = getattr(whole, split)
    bad = dataclasses.replace(whole, **{split: (x, np.concatenate([y[:-1], [label]]))})
    monkeypatch.setitem(DATASETS._records, "digits", dataclasses.replace(record, load=lambda folder: bad))
    message = f"digits, {split}: the label {label} is out of range, for there are 10 classes .0 to 9."
    with pytest.raises(InputError, match=message):
        make_task().load("digits", Recipe(), tmp_path, torch.device("cpu"), False)
