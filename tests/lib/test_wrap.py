"""Lines on a terminal: none is wider, nothing is lost; what a program reads is as it was."""

import importlib
import io
import sys

import pytest

from lib import wrap
from lib.describe import describe
from lib.runner import check
from lib.wrap import print_lines, wrap_lines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_what_fits(quickstart):
    text = "\n".join(describe(quickstart, check(quickstart)))
    assert max(map(len, text.split("\n"))) > 80
    screen, pipe = Terminal(), io.StringIO()
    print_lines(text, screen)
    print_lines(text, pipe)
    assert max(map(len, screen.getvalue().split("\n"))) <= 80
    assert screen.getvalue().split() == text.split()
    assert pipe.getvalue() == text + "\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("note: one two three", ["note: one", "  two three"]),
        ("  id  3 steps of 64", ["  id  3", "    steps", "    of 64"]),
        ("/a/very-long/path/as/it/is", ["/a/very-long/path/as/it/is"]),
        ("short\n\n  too", ["short", "", "  too"]),
    ],
)
def test_what_goes_on_is_indented(text, lines):
    assert wrap_lines(text, 11).split("\n") == lines


@pytest.mark.parametrize(("width", "below"), [(80, True), (300, False), (None, False)])
def test_a_question_that_has_no_room_stands_below_its_preset(monkeypatch, capsys, width, below):
    script = importlib.import_module("scripts.config")
    for module in (wrap, script):
        monkeypatch.setattr(module, "terminal_width", lambda file: width)
    monkeypatch.setattr(sys, "argv", ["config.py", "list"])
    script.main()
    said, known = capsys.readouterr().out, script.presets()
    assert " ".join(said.split()) == " ".join(f"{name} {question}" for name, question in known.items())
    assert ("\nquickstart\n    " in said) == below
    assert not below or max(map(len, said.split("\n"))) <= width
