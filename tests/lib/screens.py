"""Terminals with a program in them, for tests: a bare pseudo-terminal, and tmux, which shows what a person sees."""

import os
import pty
import shutil
import struct
import subprocess
import termios
import time
from fcntl import ioctl

import pytest

needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux here")


class Terminal:
    """A real one: tmux, with a server of its own."""

    def __init__(self, size, command, name):
        self.tmux = ["tmux", "-u", "-L", name, "-f", "/dev/null"]
        width, height = size
        self("new-session", "-d", "-s", "t", "-x", str(width), "-y", str(height), command)

    def __call__(self, *args):
        return subprocess.run([*self.tmux, *args], check=True, capture_output=True, text=True).stdout

    def shows(self, word, seconds=15):
        """The screen, once it has this word."""
        deadline = time.monotonic() + seconds
        while word not in (seen := self("capture-pane", "-t", "t", "-p")):
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)
        return seen

    def hides(self, word, seconds=15):
        deadline = time.monotonic() + seconds
        while word in (seen := self("capture-pane", "-t", "t", "-p")):
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        subprocess.run([*self.tmux, "kill-server"], capture_output=True)


class Screen:
    """A pseudo-terminal with a program in it."""

    def __init__(self, *argv: str, size: tuple[int, int], **env: str):
        self.end, inner = pty.openpty()
        self.resize(*size)
        known = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        known |= {"TERM": "xterm-256color", "COLUMNS": "70"}  # as some shells export it
        self.process = subprocess.Popen(
            argv, stdin=inner, stdout=inner, stderr=inner, env=known | env, start_new_session=True
        )
        os.close(inner)

    def resize(self, columns: int, lines: int) -> None:
        ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, word: str, seconds: float = 60.0) -> str:
        """What it writes, up to a word and the rest of that writing."""
        found, deadline = b"", time.monotonic() + seconds
        while word.encode() not in found:
            assert time.monotonic() < deadline, found
            try:
                found += os.read(self.end, 65536)
            except OSError:  # the program has ended
                break
        return found.decode()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        os.close(self.end)
