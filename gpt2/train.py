"""Train GPT-2: `python train.py --help` lists every setting; `--run DIR` trains a prepared run."""

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
    from gpt2.model import network
    from lib.language import LanguageModel

    return LanguageModel("gpt2", network)


if __name__ == "__main__":
    sys.exit(main("gpt2", make_task))
