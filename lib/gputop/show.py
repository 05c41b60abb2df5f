"""Readings as text: cells that the live view and `gputop --once` share, and the tables of recorded files."""

from collections.abc import Iterator

from lib.gputop.watch import TOGETHER, View, Watch, head
from lib.monitor.base import Device, Sample
from lib.monitor.users import User

NONE = "-"
GIB = 1024
WIDE = 80  # letters of a command
OTHERS = 10  # processes that are of no run


def cells(device: Device, sample: Sample, memory: float | None, limit: float | None) -> list[str]:
    """What a line says of a device: name, utilization, memory, temperature, power, clock, fan."""
    return [
        label(device),
        (device.name or "?").removeprefix("NVIDIA ").removeprefix("AMD ").removeprefix("Intel "),
        percent(sample.utilization),
        of(size(sample.memory_used, memory), memory and size(memory, memory)),
        NONE if sample.temperature is None else f"{sample.temperature:z.0f} C",
        of(watts(sample.power), limit and f"{limit:z.0f} W"),
        NONE if sample.clock is None else f"{sample.clock:z.0f} MHz",
        percent(sample.fan),
    ]


def label(device: Device) -> str:
    return "all" if device is TOGETHER else device.id


HEADS = ("device", "name", "busy", "memory", "temp", "power", "clock", "fan")


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:z.0f}%"


def watts(value: float | None) -> str:
    return NONE if value is None else f"{value:z.0f}"


def of(value: str, most: str | None) -> str:
    return value if not most or value == NONE else f"{value.split()[0]}/{most}"


def size(mib: float | None, like: float | None = None) -> str:
    """In GiB from 10 GiB on, or where `like` is."""
    if mib is None:
        return NONE
    return f"{mib / GIB:z.1f} GiB" if max(mib, like or 0) >= 10 * GIB else f"{mib:z.0f} MiB"


def rate(mib: float | None) -> str:
    return NONE if mib is None else f"{mib:z.0f} MiB/s" if mib < 10 * GIB else f"{mib / GIB:z.0f} GiB/s"


def details(device: Device, s: Sample) -> Iterator[str]:
    """What else is known of a device."""
    pairs = [
        ("memory clock", s.memory_clock, lambda v: f"{v:z.0f} MHz"),
        ("hot spot", s.hotspot, lambda v: f"{v:z.0f} C"),
        ("memory temp", s.memory_temperature, lambda v: f"{v:z.0f} C"),
        ("energy", s.energy, lambda v: f"{v / 3.6e6:z.2f} kWh" if v >= 3.6e5 else f"{v:z.0f} J"),
    ]
    yield from (f"{name} {form(value)}" for name, value, form in pairs if value is not None)
    if s.pcie_tx is not None or device.link:
        moved = f" out {rate(s.pcie_tx)} in {rate(s.pcie_rx)}" if s.pcie_tx is not None else ""
        yield f"{device.link or 'PCIe'}{moved}"
    if device.nvlinks:
        moved = f" out {rate(s.nvlink_tx)} in {rate(s.nvlink_rx)}" if s.nvlink_tx is not None else ""
        yield f"{device.nvlinks} NVLinks{moved}"


def user(u: User, command_line: bool = True) -> list[str]:
    """A process as a line: pid, owner, run, memory, utilization, command line or name."""
    command = u.command if command_line else u.name
    return [str(u.pid), u.owner, u.run or NONE, size(u.memory), percent(u.utilization), command]


USER_HEADS = ("pid", "user", "run", "memory", "busy", "command")


def row(watch: View, d: Device) -> list[str]:
    """The line of a device."""
    return cells(d, watch.latest(d), watch.total(d, "memory_total"), watch.total(d, "power_limit"))


def once(watch: Watch, command_lines: bool = False) -> Iterator[str]:
    """Everything as it is now, for a script or a log: of processes those of runs, and the OTHERS that have the most
    memory."""
    rows = [row(watch, d) for d in watch.devices]
    yield from table(HEADS, rows)
    for d in watch.devices:
        found = list(details(d, watch.latest(d)))
        if found:
            yield f"{label(d)}: {'; '.join(found)}"
    for d in watch.readings.devices:
        users = head(watch.users(d), OTHERS)
        if users:
            yield ""
            yield f"on {d.id}, those of runs first, then the most memory:"
            yield from table(USER_HEADS, [[c[:WIDE] for c in user(u, command_lines)] for u in users])
    yield from (f"note: {what}" for what in watch.said)


def table(heads: tuple[str, ...], rows: list[list[str]]) -> Iterator[str]:
    """Columns as wide as what is in them; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    words = {"device", "name", "user", "run", "command", "what", "phase"}

    def line(row):
        return "  ".join(c.ljust(w) if h in words else c.rjust(w) for c, w, h in zip(row, widths, heads, strict=True))

    yield line(heads).rstrip()
    yield from (line(r).rstrip() for r in rows)


def as_json(watch: Watch, command_lines: bool = False) -> dict:
    """The same for programs: null is not reported. MiB, percent, degrees Celsius, watts, MHz, MiB/s, joules. Command
    lines hold what people typed, secrets among it, so they are there on request alone."""

    def process(u: User) -> dict:
        return {k: v for k, v in vars(u).items() if command_lines or k != "command"}

    return {
        "devices": [
            {
                "id": d.id,
                **vars(d),
                **vars(watch.latest(d)),
                "processes": [process(u) for u in head(watch.users(d), OTHERS)],
            }
            for d in watch.readings.devices
        ],
        "notes": watch.said,
    }
