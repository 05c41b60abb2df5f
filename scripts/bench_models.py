"""Time the models' training against plain loops (scripts/bench_reference.py), and the start of a train.py.

Ratios of seconds, ours to the reference's, of arms that take turns in one process: 25 turns at least, each of a fixed
number of steps where a whole epoch would take over 10 s (the line says extrapolated). The minimum decides, the median
is printed beside it. Ours is the trainer itself, with what AUTO chooses on this machine, on data of the size of MNIST
and CIFAR-10, and on the embedded text. Writes bench_results/models.json; exits with 1 where a reach is missed.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

lib.let_threads_sleep()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from lib import kconfig, provenance  # noqa: E402
from lib.config import Config  # noqa: E402
from lib.data.base import Images  # noqa: E402
from lib.data.kernel.loader import DeviceImages  # noqa: E402
from lib.data.kernel.windows import Windows  # noqa: E402
from lib.files import write_json  # noqa: E402
from lib.hyper import Length  # noqa: E402
from lib.language import VOCABULARY  # noqa: E402
from lib.matrix import plan  # noqa: E402
from lib.resolve import BF16, pinned, resolve, settle_compiling  # noqa: E402
from lib.rundir import ROOT, RunDir  # noqa: E402
from lib.schema import SCHEMA  # noqa: E402
from lib.task import Data  # noqa: E402
from lib.trainer import Trainer  # noqa: E402
from scripts import bench_reference as reference  # noqa: E402
from scripts.bench_core import row, turns  # noqa: E402

NATIVE = bool(BF16 & set(provenance.cpu_units()))
GPU = torch.cuda.is_available()
STARTS = 5
AHEAD = 2 * reference.WORKERS  # batches that a DataLoader holds ready


class Silent:
    """A monitor of nothing: what samples would cost is measured elsewhere."""

    def phase(self, name):
        pass

    def stop(self):
        pass


class Made:
    """A model's task on data that are made here."""

    def __init__(self, task, made):
        self.task, self.made = task, made

    def __getattr__(self, name):
        return getattr(self.task, name)


class MadeImages(Made):
    def load(self, dataset, recipe, data_dir, device, full_train, share):
        raw = self.made
        splits = [DeviceImages(s, raw, device, self.task.channels, recipe.augment) for s in (raw.train, raw.test)]
        return Data(splits[0], None, splits[1], raw.hash)


class MadeText(Made):
    """Drawn tokens, of GPT-2's whole vocabulary: a head and a loss of that size are much of the work."""

    def load(self, dataset, recipe, data_dir, device, full_train, share):
        text = Windows(self.made, recipe.block, device, VOCABULARY["bpe"])
        return Data(text, None, text, "bench")

    def model(self, dataset, recipe):
        return self.task.network(recipe.size, VOCABULARY["bpe"], recipe.block)


def trainer(task, folder: Path, lines: dict) -> Trainer:
    """The loop of one run, as `make` would configure it."""
    lines = {"PRUNING_METHOD_NONE": "y", "MONITOR": "n", **lines}
    config = resolve(kconfig.apply(None, [(k, v, "bench") for k, v in lines.items()]))
    (spec,) = plan(config).specs
    config, _ = settle_compiling(config, [spec])
    d = RunDir(folder / spec.id).create(pinned(config, spec), spec)
    made = Trainer(task, spec, Config.load(d.config), d, Silent())
    made.lr_warmup, made.early = 0, None
    return made


def advance(run: Trainer, steps: int) -> None:
    """So many steps of the trainer's own loop, from the start of an epoch."""
    run.length = Length(run.step + steps, steps)
    run._train(run.step, time.perf_counter())
    if GPU:
        torch.cuda.synchronize()


def pictures(n: int, channels: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(0)
    shape = (n, side, side) if channels == 1 else (n, side, side, channels)
    return drawn.integers(0, 256, shape, dtype=np.uint8), drawn.integers(0, 10, n)


def made(images: np.ndarray, labels: np.ndarray, pad: int) -> Images:
    """The same pictures as our loaders hold them."""
    x = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    x = np.ascontiguousarray(np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)]))
    mean, std = ((0.1307,), (0.3081,)) if x.shape[1] == 1 else ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    few = x[:100], labels[:100]
    return Images((x, labels), few, few, mean, std, "bench")


def classifier(model: str, folder: Path, n: int, steps: int, batch: int, lines: dict, transform) -> dict:
    """Seconds of `steps` steps of ours and of the reference, in turns."""
    task = importlib.import_module(f"{model}.train").make_task()
    side, channels = (28, 1) if task.channels == 1 else (32, 3)
    images, labels = pictures((steps + AHEAD) * batch, channels, side)
    run = trainer(MadeImages(task, made(images, labels, (32 - side) // 2)), folder, lines)
    torch.manual_seed(0)
    plain = task.network(10, "cifar")
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    data = reference.Pictures(images, labels, transform)
    other = reference.Images(data, batch, plain, optimizer, run.device, run.recipe.label_smoothing)

    def theirs():
        other.steps(steps)
        if GPU:
            torch.cuda.synchronize()

    arms = {"ours": lambda: advance(run, steps), "theirs": theirs}
    return turns(arms, n, before=other.begin) | {"precision": run.training.precision}


def lenet5(n: int, folder: Path) -> Iterator[dict]:
    batch, steps, whole = 512, 24, 117
    lines = {"MODEL_LENET5": "y", "LENET5_DATASET_DIGITS": "y", "OPTIMIZER_SGD": "y", "LENET5_BATCH_SIZE": str(batch)}
    times = classifier("lenet5", folder, n, steps, batch, lines, reference.mnist_transform())
    found = row("LeNet-5 epoch, MNIST-sized", "DataLoader, fp32", times, "ours", "theirs", 1 / (3 if NATIVE else 2.2))
    yield whole_epoch(found, steps, whole, times)


def resnet18(n: int, folder: Path) -> Iterator[dict]:
    batch, steps, whole = 128, 40 if GPU else 1, 390
    lines = {"MODEL_RESNET18": "y", "RESNET18_DATASET_CIFAR10": "y", "OPTIMIZER_SGD": "y", "DATA_DIR": str(folder)}
    times = classifier("resnet18", folder, n, steps, batch, lines, reference.cifar_transform())
    reach = 1 / 5 if GPU else 1 / 3 if NATIVE else None
    found = row("ResNet-18 epoch, CIFAR-sized", "DataLoader, fp32, NCHW", times, "ours", "theirs", reach)
    yield whole_epoch(found, steps, whole, times)


def whole_epoch(found: dict, steps: int, whole: int, times: dict) -> dict:
    """The row with seconds of a whole epoch, and how they were found."""
    more = whole / steps
    return found | {
        "measure": f"{found['measure']}, {times['precision']}",
        "reference": f"{found['reference']} (extrapolated from {steps} of {whole} steps)",
        "s": found["s"] * more,
        "reference_s": found["reference_s"] * more,
    }


def gpt2(n: int, folder: Path) -> Iterator[dict]:
    task, sizes = (importlib.import_module(f"gpt2.{m}") for m in ("train", "model"))
    size, steps, batch, micro = ("124m", 4, 64, 16) if GPU else ("tiny", 4, 16, 16)
    lines = {
        "MODEL_GPT2": "y",
        "GPT2_DATASET_STDLIB": "y",
        f"GPT2_SIZE_{size.upper()}": "y",
        "GPT2_TOKENIZER_BYTES": "y",
        "OPTIMIZER_ADAMW": "y",
        "GPT2_BATCH_SIZE": str(batch),
        "GPT2_MICRO_BATCH": str(micro),
        "HYPER_PARAM_AUTO": "n",
        "GPT2_EVAL_INTERVAL": str(steps),
        "MAX_ITERS": "10000",
    }
    drawn = np.random.default_rng(0).integers(0, 50257, 1 << 20, dtype=np.uint16)
    run = trainer(MadeText(task, drawn) if GPU else task, folder, lines)
    shape, vocabulary = sizes.SIZES[size], run.model.transformer["wte"].weight.shape[0]
    plain = reference.GPT(shape.layers, shape.heads, shape.width, vocabulary, run.recipe.block)
    stream = run.data.train.stream.cpu().numpy().astype(np.uint16)
    other = reference.Text(stream, plain, run.recipe.block, batch, micro, run.device)

    def theirs():
        other.steps(steps)
        if GPU:
            torch.cuda.synchronize()

    times = turns({"ours": lambda: advance(run, steps), "theirs": theirs}, n)
    found = row(f"GPT-2 {size}, seconds a token", "nanoGPT-style loop", times, "ours", "theirs", 1.0)
    tokens = steps * batch * run.recipe.block
    yield found | {"tokens_per_s": tokens / found["s"], "reference_tokens_per_s": tokens / found["reference_s"]}


def starts(n: int, folder: Path) -> Iterator[dict]:
    """Seconds from `python train.py` to its first step: its first row of metrics stands just before it."""
    cases = {
        "lenet5": ["--dataset", "digits", "--optimizer", "adamw"],
        "gpt2": ["--dataset", "stdlib", "--size", "tiny", "--optimizer", "adamw"],
    }
    for model, flags in cases.items():
        found = [start(model, flags, folder / f"{model}{i}") for i in range(STARTS + 1)][1:]
        least, middle = min(found), statistics.median(found)
        yield {
            "measure": f"{model}/train.py to its first step, s",
            "reference": "none: reported",
            "value": least,
            "median": middle,
            "n": STARTS,
            "s": least,
            "reach": None,
        }


def start(model: str, flags: list[str], root: Path) -> float:
    command = [sys.executable, "train.py", *flags, "--pruning-method", "none", "--max-iters", "2"]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--results", str(root)], cwd=ROOT / model, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not any(p.stat().st_size for p in root.glob("*/metrics.jsonl")):
        if process.poll():
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        time.sleep(0.002)
    taken = time.perf_counter() - begun
    process.wait()
    return taken


PARTS = {f.__name__: f for f in (lenet5, resnet18, gpt2, starts)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts of the bench")
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if GPU else provenance.cpu_name()
    print(f"{where}, {provenance.cores()} threads, commit {(provenance.collect().commit or '?')[:12]}")
    rows = []
    for name in args.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for r in PARTS[name](args.repetitions, Path(folder)):
                rows.append(r)
                print(line(r), flush=True)
    out = ROOT / "bench_results"
    out.mkdir(exist_ok=True)
    facts = {"provenance": provenance.collect(), "threads": provenance.cores(), "device": where}
    write_json(out / "models.json", {"schema": SCHEMA, **facts, "rows": rows})
    print(f"written: {out / 'models.json'}")
    return int(any(missed(r) for r in rows))


def missed(r: dict) -> bool:
    return r["reach"] is not None and r["value"] > r["reach"]


def line(r: dict) -> str:
    reach = "" if r["reach"] is None else f"<= {r['reach']:.3f}"
    return (
        f"{r['measure']:<44} {r['reference']:<62} {r['value']:7.3f} {r['median']:7.3f} {r['n']:3d} {reach:>9}"
        f"{'  missed' if missed(r) else ''}"
    )


if __name__ == "__main__":
    sys.exit(main())
