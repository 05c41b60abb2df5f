"""MNIST in torchvision's layout (DATA_DIR/MNIST/raw, unpacked), padded to 32x32."""

from lib.data.base import DATASETS, Dataset, Images, check_files, pixels, stratified

SIZES = {"train": 55000, "validation": 5000, "test": 10000}
# md5 of the unpacked files; those of the packed ones are torchvision's own.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def folder(data_dir):
    return data_dir / "MNIST" / "raw"


def check(data_dir) -> None:
    check_files("MNIST", folder(data_dir), MD5)


def download(data_dir) -> None:
    from torchvision.datasets import MNIST

    MNIST(str(data_dir), download=True)


def load(data_dir) -> Images:
    import numpy as np

    check(data_dir)

    def images(name):
        raw = np.fromfile(folder(data_dir) / name, np.uint8, offset=16).reshape(-1, 1, 28, 28)
        return np.pad(raw, ((0, 0), (0, 0), (2, 2), (2, 2)))

    def labels(name):
        return np.fromfile(folder(data_dir) / name, np.uint8, offset=8).astype(np.int64)

    x, y = images("train-images-idx3-ubyte"), labels("train-labels-idx1-ubyte")
    validation, train = ((x[i], y[i]) for i in stratified(y, [SIZES["validation"]]))
    test = (images("t10k-images-idx3-ubyte"), labels("t10k-labels-idx1-ubyte"))
    mean, std, digest = pixels(train[0][:, :, 2:-2, 2:-2], (train, validation, test))
    return Images(train, validation, test, mean, std, digest)


DATASETS.add("mnist", Dataset("mnist", "MNIST", 10, SIZES, load, check, download))
