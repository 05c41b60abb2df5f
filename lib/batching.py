"""CONFIG_HYPER_PARAM_AUTO: how a batch is cut to fit a device. A pure table; no torch.

The batch of the recipe is kept, always: devices x samples at a time x goes is the batch, and what is left over is said.
"""

from dataclasses import dataclass

from lib.schema import CHECKS

# GiB of a GPU -> samples of 1,024 tokens at a time for GPT-2 124M with bf16 arithmetic. 128 at 192 GB, 32 at 48 GB and
# 8 at 24 GB are the published rows (B200, W7900, A10G, the last with room to spare); between them memory decides.
GPT2_ROWS = ((160, 128), (75, 64), (44, 32), (30, 16), (20, 8), (14, 4), (10, 2), (0, 1))
# GiB of activations that a sample of an image model needs, generously, by model and side of the image.
IMAGE_GIB = {
    ("lenet5", 32): 0.0005,
    ("resnet18", 32): 0.03,
    ("resnet50", 32): 0.13,
    ("resnet18", 224): 0.1,
    ("resnet50", 224): 0.25,
}
MOST_GIB = 0.25  # of an image model that is not in the table
KEPT = 2.0  # GiB that a framework, its libraries and the optimizer's state are left
SHAPES = {"tiny": (4, 128), "124m": (12, 768), "350m": (24, 1024), "774m": (36, 1280), "1558m": (48, 1600)}


@dataclass(frozen=True)
class Batching:
    """samples: at a time on each device. goes: of gradient accumulation. left: of the batch, which no go takes."""

    samples: int
    goes: int
    devices: int
    left: int
    why: str

    __pydantic_config__ = CHECKS


def image(model: str, side: int, batch: int, gib: float | None, micro: int = 0, devices: int = 1) -> Batching:
    """Of an image model: the whole share of a device at a time wherever it fits, for BatchNorm sees a go alone."""
    if gib is None:
        return on_cpu(batch, micro, devices)
    need = IMAGE_GIB.get((model, side), MOST_GIB)
    fits = max(1, int((gib - KEPT) / need))
    return cut(batch, fits, devices, about(gib, f"{need:g} GiB a sample"))


def language(size: str, block: int, batch: int, gib: float | None, micro: int = 0, devices: int = 1) -> Batching:
    """Of GPT-2."""
    if gib is None:
        return on_cpu(batch, micro, devices)
    layers, width = SHAPES[size]
    times = layers * width * block / (12 * 768 * 1024)
    row = next(n for least, n in GPT2_ROWS if gib >= least)
    fits = max(1, int(row / times))
    return cut(batch, 1 << (fits.bit_length() - 1), devices, about(gib, f"{row} samples of 1,024 tokens of the 124M"))


def on_cpu(batch: int, micro: int, devices: int) -> Batching:
    """There is no figure to go by: `micro` samples at a time, or the whole where that is 0."""
    return cut(batch, micro or batch, devices, "a CPU takes MICRO_BATCH")


def about(gib: float, rule: str) -> str:
    return f"{gib:.0f} GiB of GPU memory: {rule}"


def cut(batch: int, fits: int, devices: int, why: str) -> Batching:
    """The largest number of samples at a time that fits and divides each device's share; a share that only ones divide
    is rounded down, and what is left over is said."""
    share = batch // devices
    if share == 0:
        raise ValueError(f"a batch of {batch} is too small for {devices} devices")
    samples = next(n for n in range(min(fits, share), 0, -1) if share % n == 0)
    if samples * 4 < min(fits, share):  # a prime, or nearly: many tiny goes would cost more than a few samples
        samples = min(fits, share)
    goes = share // samples
    return Batching(samples, goes, devices, batch - samples * goes * devices, why)
