"""Train LeNet-5: `python train.py --help` lists every setting; `--run DIR` trains a prepared run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

lib.let_threads_sleep()  # before torch is loaded

try:
    from lib.main import main
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))


def make_task():
    """What this model brings to the training loop. Imports torch, which takes seconds: flags are read before."""
    from lenet5.model import LeNet5
    from lib.task import Classification

    return Classification("lenet5", LeNet5)


if __name__ == "__main__":
    sys.exit(main("lenet5", make_task))
