"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in torchvision's layout: DATA_DIR/cifar-10-batches-py, cifar-100-python."""

from dataclasses import dataclass

from lib.data.base import DATASETS, Dataset, Images, check_files, pixels, stratified

SIZES = {"train": 45000, "validation": 5000, "test": 10000}


@dataclass(frozen=True)
class Layout:
    """Where one of them lies. md5: file -> torchvision's own checksum."""

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: str
    md5: dict[str, str]

    def check(self, data_dir) -> None:
        check_files(self.title, data_dir / self.folder, self.md5)

    def download(self, data_dir) -> None:
        import torchvision.datasets

        getattr(torchvision.datasets, self.title.replace("-", ""))(str(data_dir), download=True)

    def load(self, data_dir) -> Images:
        import numpy as np

        self.check(data_dir)
        x, y = (np.concatenate(parts) for parts in zip(*(self.read(data_dir, n) for n in self.train), strict=True))
        test = self.read(data_dir, self.test)
        validation, train = ((x[i], y[i]) for i in stratified(y, [SIZES["validation"]]))
        return Images(train, validation, test, *pixels(train[0], (train, validation, test)))

    def read(self, data_dir, name: str) -> tuple:
        import pickle

        import numpy as np

        with (data_dir / self.folder / name).open("rb") as f:
            found = pickle.load(f, encoding="latin1")  # its checksum is that of the published file
        return found["data"].reshape(-1, 3, 32, 32), np.asarray(found[self.labels], np.int64)


CIFAR10 = Layout(
    "CIFAR-10",
    "cifar-10-batches-py",
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test_batch",
    "labels",
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
)
CIFAR100 = Layout(
    "CIFAR-100",
    "cifar-100-python",
    ("train",),
    "test",
    "fine_labels",
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)
for name, classes, layout in (("cifar10", 10, CIFAR10), ("cifar100", 100, CIFAR100)):
    facts = {"augment": True, "channels": 3}
    DATASETS.add(name, Dataset(name, layout.title, classes, SIZES, layout.load, layout.check, layout.download, **facts))
