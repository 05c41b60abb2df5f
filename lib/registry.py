"""Registries: a folder of modules is the list of what exists.

A module adds its record when it is imported, and `Registry.load` imports every sibling module of a package, so no
list is kept anywhere. Records are names, options and facts; tensor code is imported inside the functions they name,
so that a plan needs no torch.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from lib.config import InputError

T = TypeVar("T")
MOST = 40  # names that a message can list and still be read


def unknown(kind: str, name: str, known: list[str]) -> InputError:
    """The error for a name that is not in `known`: it lists the near names, then all of
    them where they are few."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    listed = f"Known: {', '.join(known) or 'none'}." if len(known) <= MOST else f"{len(known)} are known."
    return InputError(f"unknown {kind} {name!r}{hint} {listed}")


class Registry(Generic[T]):
    """Records of one kind by name. `package` is the package whose modules add them."""

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._records: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str, record: T) -> T:
        if name in self._records:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._records[name] = record
        return record

    def load(self) -> "Registry[T]":
        """Import every module of the package once; names that begin with '_' are left alone."""
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.ispkg and not module.name.startswith("_"):
                    importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True
        return self

    def __getitem__(self, name: str) -> T:
        self.load()
        if name not in self._records:
            raise unknown(self.kind, name, self.names())
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.load()._records

    def names(self) -> list[str]:
        return sorted(self.load()._records)
