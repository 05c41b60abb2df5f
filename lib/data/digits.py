"""scikit-learn's bundled handwritten digits: 1,797 real images of 8x8, scaled up to 32x32. Needs no download."""

import importlib.util
from functools import cache
from pathlib import Path

from lib.data.base import DATASETS, Dataset, Images, pixels, stratified

SIZES = {"train": 1197, "validation": 300, "test": 300}


def source() -> Path:
    """The file itself: to import sklearn.datasets for it takes a second."""
    where = importlib.util.find_spec("sklearn")
    return Path(*where.submodule_search_locations) / "datasets" / "data" / "digits.csv.gz"


@cache
def table():
    """Its rows: 64 values and a class."""
    import numpy as np

    return np.loadtxt(source(), delimiter=",")


def load(data_dir) -> Images:
    import numpy as np

    images, y = np.split(table(), [64], axis=1)
    x = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    x = x.repeat(4, axis=1).repeat(4, axis=2)[:, None]
    y = y[:, 0].astype(np.int64)
    validation, test, train = ((x[i], y[i]) for i in stratified(y, [SIZES["validation"], SIZES["test"]]))
    return Images(train, validation, test, *pixels(train[0], (train, validation, test)))


DATASETS.add("digits", Dataset("digits", "digits", 10, SIZES, load))
