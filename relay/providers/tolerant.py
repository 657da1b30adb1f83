"""Reads what an upstream sent where it does not have its declared shape: the slow path, pure.

The decoders read events strictly, which is fast. What the strict way refuses comes here: JSON
that only a generous parser takes, and fields of another type than the vendor documents. A
field that carries words (marked `WORDS` in the `*_types` modules) is read if any text can be
made of it, and is else an error, because text would be lost. Any other field that can't be
read is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

SHOWN = Meta(extra={"halves": True})
"""Marks text that may end in half a character, whose other half comes with the next event."""

WORDS = Meta(extra={"halves": True, "words": True})
"""Marks a field of which no value may be lost: such text, or what it lies in."""

MAX_COUNT = 2**53 - 1
"""The largest token count that is believed, the largest whole number that every JSON reader
takes as it is (RFC 8259 §6)."""

COUNT = Meta(ge=0, le=MAX_COUNT)
"""Marks a token count."""

_Shape = TypeVar("_Shape", bound=Struct)
_HIGH = re.compile("[\ud800-\udbff]$")
_HALF = re.compile("[\ud800-\udfff]")
_UNFIT: Any = object()
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Unreadable(Exception):
    """A value that may carry words and that no text can be made of."""


class _Float(float):
    """A JSON number with the digits it was written with: as text, 3.10 is not 3.1."""

    __slots__ = ("written",)
    written: str


def parse(text: bytes | str) -> Any:
    """The JSON value of `text`, lone surrogates and bare control characters in its strings
    included. Raises `Unreadable` for what is no JSON, is no UTF-8, or is nested too deep."""
    try:
        return json.loads(text, strict=False, parse_float=_float)
    except (ValueError, RecursionError):
        raise Unreadable from None


def parse_arguments(text: str) -> dict[str, Any] | None:
    """A tool call's arguments from their JSON text, or from JSON text that holds such text;
    None where it is no JSON object."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        try:
            value = whole(json.loads(text, strict=False, parse_constant=_refuse))
        except (ValueError, RecursionError):
            return None
    if isinstance(value, str) and value != text:
        return parse_arguments(value)
    return value if isinstance(value, dict) else None


def fit(value: dict[str, Any], shape: type[_Shape]) -> _Shape:
    """`value` as a `shape` (a msgspec Struct). Raises `Unreadable` where a field that
    carries words can't be read."""
    fitted: _Shape = _struct(value, _type_of(shape))
    return fitted


def characters(text: str) -> str:
    """`text` with halves of surrogate pairs that stand side by side made one character, and
    every other half made U+FFFD."""
    if not _has_halves(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole(value: Any) -> Any:
    """A JSON value whose strings, names of fields included, hold whole characters only."""
    match value:
        case str():
            return characters(value)
        case list():
            return [whole(item) for item in value]
        case dict():
            return {characters(name): whole(item) for name, item in value.items()}
        case _Float():
            return float(value)
    return value


class Joiner:
    """Joins text whose pieces were cut inside a character that JSON escapes as two."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    @property
    def waiting(self) -> bool:
        """Whether half a character is held until the next piece comes."""
        return bool(self._half)

    def add(self, piece: str) -> str:
        """What can be shown once `piece` has come; perhaps nothing."""
        text = self._half + piece
        self._half = text[-1:] if _HIGH.search(text) else ""
        return characters(text[: len(text) - len(self._half)])

    def end(self) -> str:
        """What is shown for the half whose other half did not come."""
        half, self._half = self._half, ""
        return characters(half)


def _has_halves(text: str) -> bool:
    return not text.isascii() and _HALF.search(text) is not None


def _float(written: str) -> float:
    value = _Float(written)
    value.written = written
    return value


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


@cache
def _type_of(shape: type) -> inspect.Type:
    return inspect.type_info(shape)


def _fit(value: Any, kind: Any, *, halves: bool = False) -> Any:
    """`value` as `kind`, `_UNFIT` where it can't be read and carries no words."""
    if isinstance(kind, inspect.Metadata):
        marks = kind.extra or {}
        fitted = _fit(value, kind.type, halves="halves" in marks)
        if fitted is _UNFIT and "words" in marks and not _empty(value):
            raise Unreadable
        return fitted
    if isinstance(kind, inspect.UnionType):
        fits = (_fit(value, each, halves=halves) for each in kind.types)
        return next((fitted for fitted in fits if fitted is not _UNFIT), _UNFIT)
    if isinstance(kind, inspect.StrType):
        return _string(value, halves)
    reader = _READERS.get(type(kind))
    return reader(value, kind) if reader else _UNFIT


def _struct(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        return _UNFIT
    found: dict[str, Any] = {}
    for field in kind.fields:
        if (given := value.get(field.encode_name)) is not None:
            fitted = _fit(given, field.type)
            if fitted is not _UNFIT:
                found[field.name] = fitted
    return kind.cls(**found)


def _string(value: Any, halves: bool) -> Any:
    if isinstance(value, str):
        return value if halves else characters(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _UNFIT
    return value.written if isinstance(value, _Float) else str(value)


def _integer(value: Any, kind: Any) -> Any:
    if isinstance(value, bool):
        return _UNFIT
    try:
        number = float(value)
        exact = int(number)
    except (TypeError, ValueError, OverflowError):
        return _UNFIT
    return exact if number == exact and 0 <= exact <= MAX_COUNT else _UNFIT


def _boolean(value: Any, kind: Any) -> Any:
    return _BOOLEANS.get(str(value).lower(), _UNFIT)


def _list(value: Any, kind: Any) -> Any:
    """Where an object stands in place of a list of objects, it is the only one."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return _UNFIT
    fitted = [_fit(item, kind.item_type) for item in value if not _empty(item)]
    return _UNFIT if any(item is _UNFIT for item in fitted) else fitted


def _dict(value: Any, kind: Any) -> Any:
    """Where the JSON text of an object stands in place of it, it is read."""
    if isinstance(value, str):
        value = parse_arguments(value)
    return whole(value) if isinstance(value, dict) else _UNFIT


def _any(value: Any, kind: Any) -> Any:
    return whole(value)


_READERS: dict[type, Callable[[Any, Any], Any]] = {
    inspect.StructType: _struct,
    inspect.IntType: _integer,
    inspect.BoolType: _boolean,
    inspect.ListType: _list,
    inspect.DictType: _dict,
    inspect.AnyType: _any,
}
