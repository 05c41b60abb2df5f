"""The memory ledger: what every byte of a run is for, predicted from its methods and measured on its tensors.

Predicted: parameters times bytes, by what optimizer and pruning method declare. Measured: lib/footprint.py. The two
are compared class by class; and tensors <= allocated <= reserved <= the process's memory <= the device's, as far as
each is reported. No torch.
"""

from collections.abc import Callable, Iterator, Mapping

from lib.config import Config
from lib.optim.base import OPTIMIZERS, Optim
from lib.prune.base import PRUNERS, Method
from lib.records import Ledger, Predicted
from lib.spec import RunSpec

FLOAT = 4  # bytes of a parameter and of its gradient: float32, under autocast too
MOVEMENT = "movement"  # what state pruning is measured against
UNPREDICTED = ("buffers", "data")  # classes that follow from the model and the data, not from the methods
LADDER = ("tensors", "allocated", "reserved", "process", "device")


def optimizer(spec: RunSpec) -> tuple[Optim, str]:
    return OPTIMIZERS[spec.optimizer], spec.adamwprune_base or ""


def predict(spec: RunSpec, config: Config, parameters: int, prunable: int) -> dict[str, int]:
    """Class -> bytes while a run trains: `parameters` it has, `prunable` that its method can prune."""
    record, base = optimizer(spec)
    method = PRUNERS[spec.pruning_method]
    state = record.state(config.read, base)
    return {
        "weights": FLOAT * parameters,
        "gradients": FLOAT * parameters,
        **{name: size * parameters for name, size in state.items()},
        **overhead(method, record.state_owner(base), prunable),
    }


def overhead(method: Method, record: Optim, prunable: int) -> dict[str, int]:
    """What pruning adds to an optimizer that has its state from `record`."""
    masks = method.mask(record.holds_masks) * prunable
    return ({"masks": masks} if masks else {}) | {name: size * prunable for name, size in method.holds.items()}


def kept(classes: Mapping[str, int]) -> int:
    """Bytes that stay from step to step: weights, the optimizer's state and what pruning keeps. Gradients come and go,
    and are the same for every method; the published figures leave them out too."""
    return sum(size for name, size in classes.items() if name not in ("gradients", *UNPREDICTED))


def compared(spec: RunSpec, config: Config, parameters: int, prunable: int) -> Predicted:
    """The prediction: `classes`; `kept`, as a multiple of the weights' own bytes; and how many percent that is less
    than with movement pruning of the same weights on the same optimizer."""
    classes = predict(spec, config, parameters, prunable)
    record, base = optimizer(spec)
    plain = {k: v for k, v in classes.items() if k == "weights" or k in record.state(config.read, base)}
    rival = kept(plain | overhead(PRUNERS[MOVEMENT], record.state_owner(base), prunable))
    return Predicted(
        classes=classes,
        kept=kept(classes),
        multiple=kept(classes) / classes["weights"],
        less_than_movement_pct=100 * (1 - kept(classes) / rival),
    )


def ladder(
    ledger: Ledger, process: float | None, device: float | None, phase: str = "train"
) -> dict[str, float | None]:
    """MiB of each step of the ladder in a phase; None what is not reported. process and device are the monitor's
    peaks."""
    mib, found = 1024 * 1024, ledger.phases.get(phase)
    tensors = sum(ledger.tensors(phase).values())
    steps = {"tensors": tensors or None, "allocated": found and found.allocated, "reserved": found and found.reserved}
    return {k: v and v / mib for k, v in steps.items()} | {"process": process, "device": device}


def broken(steps: Mapping[str, float | None]) -> Iterator[str]:
    """Where a step of the ladder is less than the one below it."""
    known = [(name, steps[name]) for name in LADDER if steps[name] is not None]
    for (low, a), (high, b) in zip(known, known[1:], strict=False):
        if a > b:
            yield f"{low} {a:.1f} MiB > {high} {b:.1f} MiB"


def unequal(ledger: Ledger) -> Iterator[str]:
    """Where the tensors of training are not what was predicted."""
    predicted, measured = ledger.predicted.classes, ledger.tensors()
    for name in dict.fromkeys([*predicted, *measured]):
        if measured and name not in UNPREDICTED and measured.get(name, 0) != predicted.get(name, 0):
            yield f"{name}: {measured.get(name, 0)} bytes, and {predicted.get(name, 0)} predicted"


def energy(devices: list[int], samples: list[dict]) -> tuple[float | None, str | None]:
    """(joules, how they were come by) that these devices took over a record: what their counters gained; where they
    have none, their power over the time. None where neither is reported, or not by all of them."""
    ways: dict[Callable, str] = {counted: "counted by the device", integrated: "from samples of its power"}
    for way, name in ways.items():
        found = [way(samples, i) for i in devices]
        if found and None not in found:
            return sum(found), name
    return None, None


def counted(samples: list[dict], device: int) -> float | None:
    """A counter that falls has begun anew: what it has by then is all that is known of that stretch."""
    values = [s["devices"][device]["energy"] for s in samples if "energy" in s["devices"][device]]
    if len(values) < 2:
        return None
    return sum(b - a if b >= a else b for a, b in zip(values, values[1:], strict=False))


def integrated(samples: list[dict], device: int) -> float | None:
    """By the trapezoidal rule."""
    points = [(s["t"], s["devices"][device]["power"]) for s in samples if "power" in s["devices"][device]]
    if len(points) < 2:
        return None
    return sum((u - t) * (p + q) / 2 for (t, p), (u, q) in zip(points, points[1:], strict=False))
