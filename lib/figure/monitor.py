"""Recorded files of the monitor as pictures: one over its time, with the run's phases, or two over each other."""

from lib.figure.base import PALETTE
from lib.figure.draw import entry, page
from lib.figure.panel import thinned
from lib.gputop.recorded import UNITS, Record, common

PAIRED = (
    ("memory_used", "process_memory"),
    ("temperature", "hotspot", "memory_temperature"),
    ("clock", "memory_clock"),
    ("pcie_tx", "pcie_rx"),
    ("nvlink_tx", "nvlink_rx"),
)  # one panel each, for they have one axis
PHASES = {
    "train": "#d9e8f5",
    "prune": "#f5c6b8",
    "evaluate": "#e5f2e5",
    "checkpoint": "#f0e6f5",
    "test": "#fdf3d8",
    "inference": "#eeeeee",
}
WORDS = {"utilization": "busy", "memory_used": "device memory", "process_memory": "the run's own memory"}


def groups(names: list[str]) -> list[list[str]]:
    """What is reported, in panels."""
    found, done = [], set()
    for name in names:
        if name not in done:
            together = next((pair for pair in PAIRED if name in pair), (name,))
            found.append([n for n in together if n in names])
            done |= set(together)
    return found


def word(name: str) -> str:
    return WORDS.get(name, name.replace("_", " ").replace("pcie", "PCIe").replace("nvlink", "NVLink"))


def recorded(record: Record, device: int):
    """Everything that one device reported, a panel each; coloured behind it the run's phases."""
    found = groups(record.reported(device))
    seen = {phase for _, phase in record.header["marks"]}
    shaded = [p for p in PHASES if p in seen]
    legends = [("phase", [entry(p, marker="s", markersize=9, color=PHASES[p]) for p in shaded])]
    fig, axes = sheet(found, f"{record.name}: {named(record, device)}", foot(record), legends)
    for ax, names in zip(axes, found, strict=True):
        spans(ax, record)
        for name, hue in zip(names, PALETTE, strict=False):
            line(ax, record, device, name, word(name), hue)
        finish(ax, names, len(names) > 1)
    return fig


def compared(a: Record, b: Record, device: str | None = None):
    """What both reported, one over the other, each from its own start."""
    i, j = a.choose(device), b.choose(device)
    names = common(a, i, b, j)
    labels = [f"A: {a.name}, {named(a, i)}", f"B: {b.name}, {named(b, j)}"]
    legends = [("file", [entry(t, marker="s", color=c) for t, c in zip(labels, PALETTE, strict=False)])]
    fig, axes = sheet([[n] for n in names], "Two records", f"{foot(a)}; {foot(b)}", legends)
    for ax, name in zip(axes, names, strict=True):
        line(ax, a, i, name, "A", PALETTE[0])
        line(ax, b, j, name, "B", PALETTE[1], linestyle=(0, (4, 1.5)))
        finish(ax, [name], False)
        ax.set_title(word(name))
    return fig


def sheet(panels: list, title: str, small: str, legends: list):
    across = 2 if len(panels) > 1 else 1
    down = -(-len(panels) // across)
    fig = page(4.6 * across, 2.0 * down + 0.4, title, small, legends)
    axes = []
    for n in range(len(panels)):
        last = n == len(panels) - 1 and len(panels) % across
        grid = fig.add_gridspec(down, across) if n == 0 else axes[0].get_gridspec()
        axes.append(fig.add_subplot(grid[n // across, :] if last else grid[n // across, n % across]))
    return fig, axes


def named(record: Record, device: int) -> str:
    d = record.devices[device]
    return f"{d.name or '?'} ({d.id})"


def foot(record: Record) -> str:
    return "; ".join(
        [f"{record.path.name} of {record.name}: n = {len(record.samples)} samples over {record.seconds:.1f} s"]
        + [note.split(": ", 1)[1] for note in record.notes()]
    )


def spans(ax, record: Record) -> None:
    """Phases as stretches of time."""
    starts = record.header["marks"]
    ends = [t for t, _ in starts[1:]] + [record.samples[-1]["t"]]
    for (start, phase), end in zip(starts, ends, strict=True):
        if phase in PHASES and end > start:
            ax.axvspan(start, end, color=PHASES[phase], linewidth=0, zorder=0)


def line(ax, record: Record, device: int, name: str, label: str, hue: str, **style) -> None:
    times, values = thinned(record.series(device, name))
    few = {"marker": "o", "markersize": 2.5} if len(times) < 30 else {}
    ax.plot(times, values, color=hue, label=label, linewidth=1.3, **{**few, **style})


def finish(ax, names: list[str], several: bool) -> None:
    unit = {"C": "°C"}.get(UNITS[names[0]], UNITS[names[0]])
    ax.set(xlabel="seconds from the record's start", ylabel=unit, title=", ".join(word(n) for n in names))
    top = ax.get_ylim()[1]
    ax.set_ylim(0, 105 if unit == "%" and top <= 105 else top * 1.05)
    if several:
        ax.legend(fontsize=7, frameon=False, loc="best")
