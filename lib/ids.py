"""Run ids where there is little room."""

from collections.abc import Iterable

DOTS = ".."  # a terminal need not know Unicode


def shorten_ids(ids: Iterable[str], width: int) -> list[str]:
    """Return ids of at most `width` letters, dots in the middle of those that are longer; where two would look
    the same, all are broken into lines after an underscore."""
    ids = list(ids)
    short = [shorten(name, width) for name in ids]
    if len(set(short)) == len(set(ids)):
        return short
    return [fold(name, width) for name in ids]


def shorten(name: str, width: int) -> str:
    """Return a name with what is too much cut out of its middle; of the end, where ids differ, more is kept."""
    if len(name) <= width:
        return name
    if width <= len(DOTS) + 1:
        return name[:width]
    tail = (width - len(DOTS)) * 3 // 5
    return name[: width - len(DOTS) - tail] + DOTS + name[len(name) - tail :]


def fold(name: str, width: int) -> str:
    """Return a name in lines of at most `width` letters, broken after underscores where there are any."""
    lines = [""]
    for part in name.replace("_", "_\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
