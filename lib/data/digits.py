"""scikit-learn's bundled handwritten digits: 1,797 real images of 8x8, scaled up to 32x32. Needs no download."""

from lib.data.base import DATASETS, Dataset, Images, pixels, stratified

SIZES = {"train": 1197, "validation": 300, "test": 300}


def load(data_dir) -> Images:
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    x = x.repeat(4, axis=1).repeat(4, axis=2)[:, None]
    y = bunch.target.astype(np.int64)
    validation, test, train = ((x[i], y[i]) for i in stratified(y, [SIZES["validation"], SIZES["test"]]))
    return Images(train, validation, test, *pixels(train[0], (train, validation, test)))


DATASETS.add("digits", Dataset("digits", "digits", 10, SIZES, load, imports=("sklearn.datasets",)))
