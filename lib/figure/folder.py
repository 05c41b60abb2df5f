"""graphs/ of a results directory: pictures are written whole, and nothing of anyone else's is touched."""

import contextlib
import os
import re
from pathlib import Path

from lib.config import InputError, why
from lib.files import Damaged, FileDigest, file_digest, read_record, write_record
from lib.records import Graphs

DPI = 120
PART = re.compile(r"\.[\w.-]+\.png\.\d+\.part")
PICTURE = re.compile(r"[\w.-]+\.png")


def part_of(path: Path) -> Path:
    """The name that a picture has until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def draw(fig, part: Path) -> None:
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        fig.savefig(file, dpi=DPI, format="png")


def save_picture(fig, path: Path) -> None:
    """Write a picture where the user has named it, whole or not at all. Raises OSError."""
    part = part_of(path)
    try:
        draw(fig, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class GraphFolder:
    """graphs/ of a results directory, which may come from a stranger: never a link, and nothing in it is deleted or
    written over but the pictures that an earlier report is recorded to have written and that are still what they were,
    and what a report that was killed has left of one. Raises InputError where nothing can be written there."""

    def __init__(self, path: Path, keep: bool = False):
        """keep: whether earlier pictures stay."""
        self.path, self.list = path, path / "written.json"
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise InputError(f"{path} is a link or no directory, and nothing is written there: remove it")
        try:
            path.mkdir(exist_ok=True)
            left = [p for p in path.iterdir() if PART.fullmatch(p.name)]
        except OSError as e:
            raise InputError(f"cannot use {path}: {why(e)}") from None
        self.files = self._written()
        for old in [*left, *([] if keep else [path / name for name in self.files])]:
            with contextlib.suppress(OSError):  # saving a picture of its name will say why
                old.unlink()
                self.files.pop(old.name, None)

    def _written(self) -> dict[str, FileDigest]:
        """What an earlier report has written and nobody has changed."""
        try:
            known = read_record(Graphs, self.list).files
        except (FileNotFoundError, Damaged):
            return {}
        return {name: written for name, written in known.items() if PICTURE.fullmatch(name) and self._is(name, written)}

    def _is(self, name: str, written: FileDigest) -> bool:
        try:
            return file_digest(self.path / name) == written
        except Damaged:
            return False

    def save(self, fig, stem: str) -> Path:
        """Write a picture, whole or not at all. Raises InputError where it cannot be written, or where a file of
        another has its name."""
        path = self.path / f"{stem}.png"
        part = part_of(path)
        if path.is_symlink() or (path.exists() and path.name not in self.files):
            raise InputError(f"{path} is not of this program, or was changed: remove it, or move it elsewhere")
        try:
            draw(fig, part)
            # In this order a report that is killed leaves no picture that the next one takes for another's.
            path.unlink(missing_ok=True)
            self.files[path.name] = file_digest(part)
            write_record(self.list, Graphs(files=self.files))
            return part.replace(path)
        except OSError as e:
            raise InputError(f"cannot write {path}: {why(e)}") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
