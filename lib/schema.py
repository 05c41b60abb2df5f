"""Typed records: a frozen dataclass says what a file holds, and its reader, its check and its JSON Schema follow.

A record's fields are the file's fields: all of them, no others, each of its type and within its bounds. pydantic does
the checking; it is imported when the first file is read, so that a plan does without.
"""

import dataclasses
import json
import math
import typing
from functools import cache
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, MaxLen

T = TypeVar("T")

SCHEMA = 3  # of every file of a results directory; another one is refused by its number
CHECKS: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
SHOWN = 40  # characters of a wrong value in a message

Count = Annotated[int, Ge(0), Le(2**53)]
Whole = Annotated[int, Ge(-(2**53)), Le(2**53)]
Share = Annotated[float, Ge(0), Le(1)]
Percent = Annotated[float, Ge(0), Le(100)]
Loss = Annotated[float, Ge(0)]  # nats
Seconds = Annotated[float, Ge(0), Le(1e10)]
Amount = Annotated[float, Ge(0)]  # of MiB, joules, operations, samples a second
Reading = Annotated[float, Ge(-1e15), Le(1e15)]  # of a device: a rack's joules of a year are fewer
Name = Annotated[str, MaxLen(200)]  # of a device, a setting or a file: what stands in a table or a figure
Text = Annotated[str, MaxLen(1 << 16)]  # a reason, a sample of what a model writes


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make a class a record: a frozen dataclass whose values are checked when they are read from a file."""
    cls.__pydantic_config__ = CHECKS  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def field_names(cls: type) -> tuple[str, ...]:
    """The names of a record's fields, in the order of their definition."""
    return tuple(f.name for f in dataclasses.fields(cls))


@cache
def checker(cls: Any):
    """pydantic's checker of a type."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def parse(cls: type[T], data: dict) -> T:
    """The record that `data` holds, every field of it. Raises ValueError "field: what is wrong with it"."""
    for name in field_names(cls):
        if name not in data:
            raise ValueError(f"{name}: the field is missing")
    return parse_sparse(cls, data)


def parse_sparse(cls: type[T], data: dict) -> T:
    """The same of a file that leaves out fields with their default."""
    from pydantic import ValidationError

    try:
        return checker(cls).validate_json(json.dumps(data))
    except ValidationError as e:
        raise ValueError(first_error(e)) from None


def first_error(error) -> str:
    """The first thing that pydantic found wrong, as "field: why, not value"."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    value = first.get("input")
    shown = "" if isinstance(value, dict | list) else f", not {short(value)}"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{place}: there is no such field"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}{shown}"


def short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**SHOWN else "a number of many digits"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def blank(cls: type[T], known: dict) -> T:
    """A record of which only `known` is known: every other field is None, whatever its type says of a whole file."""
    return cls(**{name: known.get(name) for name in field_names(cls)})


def nullable(cls: type, keep: tuple[str, ...]) -> type:
    """The record with every field but `keep` allowed to be null: a row for a run that did not get far enough."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [(n, hints[n] if n in keep else hints[n] | None) for n in field_names(cls)]
    made = dataclasses.make_dataclass(f"{cls.__name__}Row", fields, frozen=True, kw_only=True)
    made.__pydantic_config__ = CHECKS  # type: ignore[attr-defined]
    made.__doc__ = f"{cls.__doc__}\n\nnull: not known, as for a run that did not finish."
    return made


def plain(value: object) -> Any:
    """What a record, or anything made of records, is in JSON, which has no nan and no infinity: those become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_schema(files: dict[str, Any]) -> dict:
    """The JSON Schema of files: name -> what a line or the whole of it holds, under "properties"."""
    from pydantic import TypeAdapter

    inputs = [(name, "validation", checker(cls)) for name, cls in files.items()]
    found, definitions = TypeAdapter.json_schemas(inputs, title=f"Results directory, schema {SCHEMA}")
    return {**definitions, "properties": {name: found[name, "validation"] for name in files}}
