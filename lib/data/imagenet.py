"""ImageNet (Russakovsky et al. 2015, the 1,000 classes of 2012): DATA_DIR/imagenet/{train,val}/<class>/*.JPEG.

Its images may not be passed on, so it has to be fetched by hand. The published validation set is the test set here;
10,000 training images are held out for validation.
"""

import hashlib

from lib.config import InputError
from lib.data.base import DATASETS, Dataset, Folders, MissingData, stratified

CLASSES = 1000
SIZES = {"train": 1_271_167, "validation": 10_000, "test": 50_000}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its pixels / 255, as torchvision's weights have them


def check(data_dir) -> None:
    for split in ("train", "val"):
        folder = data_dir / "imagenet" / split
        classes = sum(p.is_dir() for p in folder.iterdir()) if folder.is_dir() else 0
        if classes != CLASSES:
            raise MissingData(
                f"ImageNet: {folder} holds {classes} folders of classes, and there are {CLASSES}. Fetch it from "
                f"image-net.org and unpack it there, one folder a class (DATA_DIR= names another place), or use the "
                f"embedded `digits`"
            )


def download(data_dir) -> None:
    raise InputError("ImageNet is given out by image-net.org to those who sign for it, and cannot be downloaded here")


def load(data_dir) -> Folders:
    check(data_dir)
    return folders(data_dir / "imagenet", SIZES["validation"])


def folders(root, held_out: int) -> Folders:
    """Every file below train/<class> and val/<class>, classes in the order of their names."""
    train, test = samples(root / "train"), samples(root / "val")
    validation, rest = stratified([label for _, label in train], [held_out])
    digest = hashlib.sha256()
    for path, _ in (*train, *test):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
    return Folders(
        tuple(train[i] for i in rest), tuple(train[i] for i in validation), tuple(test), MEAN, STD, digest.hexdigest()
    )


def samples(folder) -> list:
    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    return [(file, label) for label, name in enumerate(classes) for file in sorted(name.iterdir())]


DATASETS.add(
    "imagenet",
    Dataset("imagenet", "ImageNet", CLASSES, SIZES, load, check, download, channels=3, side=224, augment=True),
)
