"""What the monitor's record of a run comes to: memory over its training, by phase, and energy. No torch."""

import bisect
import math

from lib import ledger
from lib.records import Ledger, Summary

TRAINING, INFERENCE = ("train", "prune"), ("inference",)  # the monitor's phases that memory is measured over
HOST = "host process RSS"
TENSORS = "tensors of training"
MIB = 1024 * 1024
VENDORS = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}


def derived(run: Summary, header: dict, samples: list[dict]) -> dict:
    """Everything here that belongs in a run's record."""
    memory = measured(header, samples)
    by = comparison(run.ledger, memory["train_memory_mean"], memory["memory_source"], run.test_accuracy_last)
    return memory | costs(run, header, samples) | by


def comparison(ledger: Ledger | None, process: float | None, source: str | None, accuracy: float | None) -> dict:
    """The fields of a run's record that it is compared by: memory, what that is, and test accuracy for it."""
    mib, what = compared(ledger, process, source)
    efficiency = 100 * accuracy / mib if accuracy is not None and mib else None
    return {"compared_memory": mib, "compared_source": what, "efficiency_per_100mib": efficiency}


def compared(ledger: Ledger | None, process: float | None, source: str | None) -> tuple[float | None, str | None]:
    """Return the memory that runs are compared by, MiB, and what it is; process, source: that of the run's processes.

    That of the run's processes as a GPU's driver reports it. On a CPU the ledger's tensors between a backward pass and
    its update, without the data set: resident memory compares interpreters and allocators, and only stands beside it.
    A CPU's run without a ledger is compared by nothing.
    """
    if source != HOST:
        return process, source
    tensors = ledger.tensors() if ledger else {}
    mib = sum(size for name, size in tensors.items() if name != "data") / MIB
    return (mib, TENSORS) if tensors else (None, None)


def sources(devices: list[dict], samples: list[dict]) -> list[int]:
    """Which of the monitor's devices memory is taken from: the GPUs of a vendor that report the run's own memory, whose
    readings are added up, else the host."""
    reporting = [
        i for i, d in enumerate(devices) if any("process_memory" in s["devices"][i] for s in samples)
    ]  # fmt: skip
    gpus = [i for i in reporting if devices[i]["vendor"] != "cpu"]
    return [i for i in gpus if devices[i]["vendor"] == devices[gpus[0]]["vendor"]] or reporting[:1]


def process_memory(header: dict, samples: list[dict], of: list[dict] | None = None) -> list[tuple[float, str, float]]:
    """(seconds, phase, MiB of the run's processes) of every sample, or of those in `of`, from their one source."""
    places, rows = sources(header.get("devices", []), samples), []
    for s in samples if of is None else of:
        read = [s["devices"][i]["process_memory"] for i in places if "process_memory" in s["devices"][i]]
        if read:
            rows.append((s["t"], s["phase"], sum(read)))
    return rows


def measured(header: dict, samples: list[dict]) -> dict:
    """Memory over the training phase, mean over its time and peak in MiB, and where it was read. A sample stands for
    the time until the next one: samples are not evenly spaced, for each change of phase takes one."""
    places = sources(header.get("devices", []), samples)
    readings = process_memory(header, samples)
    ends = sorted({t for t, _, _ in readings} | {t for t, _ in header.get("marks", [])}) + [math.inf]
    following = [min(ends[bisect.bisect_right(ends, t)], readings[-1][0]) for t, _, _ in readings]

    def during(phases) -> list[tuple[float, float]]:
        """(MiB, seconds)"""
        spans = zip(readings, following, strict=True)
        return [(mib, max(end - t, 1e-3)) for (t, phase, mib), end in spans if phase in phases]

    training = during(TRAINING)
    if not places or not training:
        none = {"train_memory_mean": None, "train_memory_max": None, "inference_memory_mean": None}
        return {**none, "memory_source": None, "memory_samples": 0}
    vendor = header["devices"][places[0]]["vendor"]
    return {
        "train_memory_mean": mean(training),
        "train_memory_max": max(mib for mib, _ in training),
        "inference_memory_mean": mean(during(INFERENCE)),
        "memory_source": HOST if vendor == "cpu" else f"{VENDORS.get(vendor, vendor)} process memory",
        "memory_samples": len(training),
    }


def mean(spans: list[tuple[float, float]]) -> float | None:
    """Of values over their seconds; None of nothing."""
    return sum(v * s for v, s in spans) / sum(s for _, s in spans) if spans else None


def by_phase(places: list[int], samples: list[dict]) -> dict[str, dict[str, float]]:
    """Phase -> peaks in MiB over these devices: "process", of the run's own; "device", of all that use them. What one
    of them does not report is left out."""
    found: dict[str, dict[str, float]] = {}
    for s in samples:
        peaks = found.setdefault(s["phase"], {})
        for name, field in (("process", "process_memory"), ("device", "memory_used")):
            read = [s["devices"][i].get(field) for i in places]
            known = [v for v in read if v is not None]
            if known and (name == "process" or None not in read):  # a run need not have memory on each
                peaks[name] = max(sum(known), peaks.get(name, 0.0))
    return found


def costs(run: Summary, header: dict, samples: list[dict]) -> dict:
    """Energy, and what the memory ledger comes to; null where a run has not got so far or nothing reports it."""
    mine = trained_on(run, header, samples)
    joules, source = ledger.energy(mine or sources(header.get("devices", []), samples), samples)
    accuracy, predicted = run.test_accuracy_last, run.ledger and run.ledger.predicted
    return {
        "energy_j": joules,
        "energy_source": source,
        "energy_per_accuracy_point": joules / accuracy if joules is not None and accuracy else None,
        "memory_multiple": predicted and predicted.multiple,
        "memory_less_than_movement_pct": predicted and predicted.less_than_movement_pct,
        "memory_phases": by_phase(mine, samples),
        "monitor_problem": problem(run, header, samples),
    }


def problem(run: Summary, header: dict, samples: list[dict]) -> str | None:
    """What is wrong with the record, as far as it can be seen."""
    if "unreadable" in header:
        return header["unreadable"]
    words = {"lost": "samples could not be written", "damaged": "lines were not whole and are left out"}
    found = [f"{header[key]} {what}" for key, what in words.items() if header.get(key)]
    if header and run.status == "done" and (not samples or samples[-1]["phase"] != "end"):
        found.append(f"it ends at {samples[-1]['t'] if samples else 0:.0f} s, before the run did")
    return "; ".join(found) or None


def trained_on(run: Summary, header: dict, samples: list[dict]) -> list[int]:
    """Which of the monitor's devices a run trained on: those that it names, by UUID or slot, if there are such; where
    it names none, those that report its memory."""
    devices, named = header.get("devices", []), run.gpus or []
    uuids = {(g.uuid or "").removeprefix("GPU-").removeprefix("MIG-") for g in named} - {""}
    slots = {g.bus for g in named} - {None}
    mine = [
        i
        for i, d in enumerate(devices)
        if (d.get("uuid") or "").removeprefix("GPU-").removeprefix("MIG-") in uuids or d.get("bus") in slots
    ]
    return mine if named else sources(devices, samples)
