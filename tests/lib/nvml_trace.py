"""NVML without NVIDIA: calls and answers of a driver, recorded from a machine that has one or composed from nvml.h.

A trace is JSON: {"source": where it comes from, "calls": {"nvmlDeviceGetName gpu0": answer, ...}}. An answer is a
value; an object, whose keys are a struct's members; {"error": n}, an nvmlReturn_t; or {"then": [...]}, one after the
other, of which the last stays. What a trace has not is not supported (error 3), as most of NVML is on most devices.

    python tests/lib/nvml_trace.py > trace.json      record what the monitor asks of this machine's driver
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pynvml

FIXTURES = Path(__file__).parent.parent / "fixtures" / "nvml"
NOT_SUPPORTED = 3
NAMES = {
    getattr(pynvml, n): n for n in dir(pynvml) if n.startswith("NVML_FI_DEV_") and isinstance(getattr(pynvml, n), int)
}


def spelled(arg) -> str:
    """An argument as it stands in a trace; fields by their names."""
    if isinstance(arg, list):
        ids = [f if isinstance(f, tuple) else (f,) for f in arg]
        return ",".join(NAMES[i[0]].removeprefix("NVML_FI_DEV_") + "".join(f"@{s:x}" for s in i[1:]) for i in ids)
    return str(arg)


class Replay:
    """What stands for pynvml in a backend: its constants, and queries that a trace answers."""

    def __init__(self, trace: dict):
        self.calls, self.asked = trace["calls"], {}

    @classmethod
    def of(cls, name: str) -> "Replay":
        return cls(json.loads((FIXTURES / f"{name}.json").read_text()))

    def __getattr__(self, name):
        if not name.startswith("nvmlDevice") and not name.startswith("nvmlInit"):
            return getattr(pynvml, name)
        return lambda *args: self.answer(" ".join([name, *map(spelled, args)]))

    def answer(self, call: str):
        found = self.calls.get(call, {"error": NOT_SUPPORTED})
        if isinstance(found, dict) and "then" in found:
            i = self.asked[call] = self.asked.get(call, -1) + 1
            found = found["then"][min(i, len(found["then"]) - 1)]
        if isinstance(found, dict) and "error" in found:
            raise pynvml.NVMLError(found["error"])
        return shaped(found)


def shaped(found):
    if isinstance(found, dict):
        return SimpleNamespace(**{k: shaped(v) for k, v in found.items()})
    return [shaped(v) for v in found] if isinstance(found, list) else found


class Recorder:
    """Asks the real driver (or whatever `of` is) and keeps what it answers."""

    def __init__(self, of=pynvml):
        self.of, self.calls, self.handles = of, {}, {}

    def __getattr__(self, name):
        real = getattr(self.of, name)
        if not name.startswith("nvmlDevice"):
            return real

        def ask(*args):
            call = " ".join([name, *(spelled(self.handles.get(id(a), a)) for a in args)])
            try:
                found = real(*args)
            except self.of.NVMLError as e:
                self.calls[call] = {"error": e.value}
                raise
            if "Handle" in name:
                self.handles[id(found)] = f"gpu{args[-1]}" if len(args) == 1 else f"mig{args[-1]}"
                self.keep = [*getattr(self, "keep", []), found]  # or another would get its id
            self.calls[call] = plain(found, self.handles)
            return found

        return ask


def plain(found, handles=()):
    """JSON of an answer."""
    if id(found) in handles:
        return handles[id(found)]
    if isinstance(found, bytes):
        return found.decode()
    if isinstance(found, list | tuple):
        return [plain(v) for v in found]
    if hasattr(found, "_fields_"):
        return {k: plain(getattr(found, k)) for k in (f[0] for f in found._fields_)}
    if hasattr(found, "nvmlReturn") or isinstance(found, SimpleNamespace):
        return {k: plain(v) for k, v in vars(found).items()}
    return found


def main() -> None:
    from lib.monitor.nvidia import Nvidia

    backend = Nvidia()
    if not backend.probe():
        sys.exit("no NVIDIA device here")
    backend.nvml = Recorder()
    for device in backend.devices():
        for _ in range(2):
            backend.sample(device, set())
        backend.processes(device)
    name = pynvml.nvmlSystemGetDriverVersion()
    json.dump({"source": f"recorded, driver {name}", "calls": backend.nvml.calls}, sys.stdout, indent=1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    main()
