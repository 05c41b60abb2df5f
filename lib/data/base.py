"""Records of data sets, and what every image set shares. numpy only; torch is in lib/data/kernel."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lib.config
from lib.registry import Registry


@dataclass(frozen=True)
class Share:
    """What part of the data one of `size` processes takes: an equal part of every batch it trains on, and in an
    evaluation every size-th batch."""

    rank: int = 0
    size: int = 1

    def rows(self, n: int) -> slice:
        """Of a batch of n; what does not divide is left out."""
        each = n // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def turns(self, n: int) -> Iterator[tuple[int, bool]]:
        """(which of n batches, whether it counts): as many turns for each process, for some models need them all at
        once, so that at the end of the data a batch may be one that another process counts."""
        for first in range(0, n, self.size):
            i = first + self.rank
            yield min(i, n - 1), i < n


@dataclass(frozen=True)
class Splits:
    """What every set of images has: mean and std, one a channel, of pixels / 255; a hash over all splits."""

    train: tuple
    validation: tuple
    test: tuple
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hash: str


@dataclass(frozen=True)
class Images(Splits):
    """Splits of uint8 images (N, C, H, W) and int64 labels (N,), not normalised; mean and std of the training data."""

    def trainable(self) -> tuple:
        """Training and validation data together."""
        import numpy as np

        return tuple(np.concatenate(pair) for pair in zip(self.train, self.validation, strict=True))


@dataclass(frozen=True)
class Folders(Splits):
    """Splits of (path, label), where images are too many to hold. `hash` is of the names."""

    def trainable(self) -> tuple:
        """Training and validation data together."""
        return self.train + self.validation


@dataclass(frozen=True)
class Dataset:
    """One data set.

    load(data_dir) gives its splits, and raises InputError where files are missing or damaged.
    check(data_dir) raises the same, at once and without torch; `download(data_dir)` fetches what is missing.
    sizes: samples in train, validation and test. imports: modules that its load imports, worth importing once.
    channels, side: of an image. augment: whether it still shows the same when it is shifted and mirrored.
    """

    name: str
    title: str
    classes: int
    sizes: dict[str, int]
    load: Callable[[Path], Images]
    check: Callable[[Path], None] = lambda data_dir: None
    download: Callable[[Path], None] | None = None
    imports: tuple[str, ...] = ()
    channels: int = 1
    side: int = 32
    augment: bool = False

    @property
    def embedded(self) -> bool:
        return self.download is None

    def train_samples(self, full: bool) -> int:
        return self.sizes["train"] + (self.sizes["validation"] if full else 0)


def check_labels(record: Dataset, raw: Splits) -> None:
    """Raise InputError naming the first split with a label that is none of the data set's classes."""
    for name in ("train", "validation", "test"):
        split = getattr(raw, name)
        labels = split[1] if isinstance(raw, Images) else [label for _, label in split]
        bad = next((int(i) for i in labels if not 0 <= i < record.classes), None)
        if bad is not None:
            raise lib.config.InputError(
                f"{record.title}, {name}: the label {bad} is out of range, for there are {record.classes} classes "
                f"(0 to {record.classes - 1})"
            )


DATASETS: Registry[Dataset] = Registry("data set", "lib.data")
EMBEDDED = "digits"


class MissingData(lib.config.InputError):
    """Files of a data set are not there; downloading may help."""


def check_files(title: str, folder: Path, sums: dict[str, str], instead: str = EMBEDDED) -> None:
    """Raise MissingData or InputError unless every file is in `folder` with its checksum, an md5 or a sha256. instead:
    the embedded data set of the kind."""
    missing = [name for name in sums if not (folder / name).is_file()]
    if missing:
        raise MissingData(f"{title}: {', '.join(missing)} not found in {folder}. {advice(folder, instead)}")
    for name, want in sums.items():
        kind, got = checksum(folder / name, want)
        if got != want:
            raise lib.config.InputError(
                f"{title}: {folder / name} is damaged or cut short: {kind} {got}, expected {want}. Delete it. "
                f"{advice(folder, instead)}"
            )


def checksum(path: Path, like: str) -> tuple[str, str]:
    """(its name, the file's checksum) of the kind that `like` has by its length."""
    kind = "md5" if len(like) == 32 else "sha256"
    with path.open("rb") as f:
        return kind, hashlib.file_digest(f, kind).hexdigest()


def fetch(url: str, path: Path, want: str) -> None:
    """Download a file unless it is there and whole; what is on its way has another name."""
    import urllib.request

    from tqdm import tqdm

    if path.is_file() and checksum(path, want)[1] == want:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with urllib.request.urlopen(url, timeout=60) as response, part.open("wb") as f:
        size = int(response.headers.get("Content-Length") or 0) or None
        with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
            while block := response.read(1 << 20):
                f.write(block)
                bar.update(len(block))
    kind, got = checksum(part, want)
    if got != want:
        part.unlink()
        raise lib.config.InputError(f"{url} is not the file that is expected: {kind} {got}, expected {want}")
    part.replace(path)


def advice(folder: Path, instead: str = EMBEDDED) -> str:
    return (
        f"`make data` downloads it; without a network put the files into {folder} by hand (DATA_DIR= names another "
        f"place), or use the embedded data set `{instead}`, which needs no files "
        f"(<MODEL>_DATASET_{instead.upper()}=y in the place of this one)"
    )


def for_flags(message: str) -> str:
    """Return a message about missing files in the words of a train.py, which reads no .config and downloads itself."""
    message = re.sub(
        r"[\w<>]+_DATASET_(\w+)=y in the place of this one", lambda m: f"--dataset {m[1].lower()}", message
    )
    message = message.replace("DATA_DIR= names", "--data-dir names")
    return message.replace("`make data` downloads it", "With a network it is downloaded")


def stratified(labels, sizes: list[int]):
    """Disjoint index arrays of the given sizes with every class in proportion, then the rest in order: a fixed
    permutation, the same for every seed (numpy's RandomState, whose stream is frozen)."""
    import numpy as np

    order = np.random.RandomState(20250907).permutation(len(labels))
    labels = np.asarray(labels)[order]
    # Rank each sample within its class; taking by rank / class size takes the classes in proportion.
    rank = np.empty(len(labels))
    for c in np.unique(labels):
        at = np.flatnonzero(labels == c)
        rank[at] = (np.arange(len(at)) + 0.5) / len(at)
    order = order[np.argsort(rank, kind="stable")]
    cuts = np.cumsum(sizes)
    return [np.sort(part) for part in np.split(order, cuts)]


def pixels(x, splits) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Mean and std of the training pixels / 255 by channel, and a hash over all splits."""
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
    channels = [x[:, c] for c in range(x.shape[1])]  # one at a time: numpy's std holds several copies in float64
    mean, std = (tuple(float(getattr(c, f)() / 255) for c in channels) for f in ("mean", "std"))
    return mean, std, digest.hexdigest()
