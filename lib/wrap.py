"""Lines for a person: wrapped at words on a terminal, whole where something else reads them."""

import contextlib
import os
import sys
import textwrap
from typing import TextIO

HANGING = 2  # letters by which what goes on in the next line is indented


def print_lines(text: str, file: TextIO | None = None) -> None:
    """Print lines, on a terminal to its width, and flush."""
    file = sys.stdout if file is None else file
    width = terminal_width(file)
    print(text if width is None else wrap_lines(text, width), file=file, flush=True)


def terminal_width(file: TextIO) -> int | None:
    """Return the letters in a line of the terminal that a stream writes to; None where it is no terminal."""
    if not file.isatty():
        return None
    with contextlib.suppress(OSError):
        return os.get_terminal_size(file.fileno()).columns or 80
    return 80


def wrap_lines(text: str, width: int) -> str:
    """Break each line of a text between words; a word that is too long, such as a path, stays whole."""
    return "\n".join(wrap_line(line, width) for line in text.split("\n"))


def wrap_line(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + HANGING)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
