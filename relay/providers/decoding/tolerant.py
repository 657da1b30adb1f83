"""Reads events that do not have their declared shape: the slow path, pure.

The decoders read events strictly, which is fast. What strict decoding refuses comes here: JSON
that only a generous parser takes, and fields of another type than the vendor documents. A field
that carries text of the answer (marked `WORDS` in the `types` modules) is read if any text can be
made of it. If not, it is an error, because text would be lost. Any other field that can't be read
is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

SHOWN = Meta(extra={"halves": True})
"""Marks text that may end in half a character, whose other half comes with the next event."""

WORDS = Meta(extra={"halves": True, "words": True})
"""Marks a field of which no value may be lost: text of the answer, or an object that contains
it."""

MAX_COUNT = 2**53 - 1
"""The largest token count that is accepted: the largest integer that every JSON reader takes
exactly (RFC 8259 §6)."""

Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
"""A token count."""

_Shape = TypeVar("_Shape", bound=Struct)
_UNFINISHED = re.compile(
    "(?:[\ud800-\udbff]|[\udcc2-\udcdf]|[\udce0-\udcef][\udc80-\udcbf]?"
    "|[\udcf0-\udcf4][\udc80-\udcbf]{0,2})$"
)
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_UNFIT: Any = object()
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Unreadable(Exception):
    """A value that may carry text of the answer and can't be converted to text."""


class _Float(float):
    """A JSON number with the digits it was written with: as text, 3.10 is not 3.1."""

    __slots__ = ("written",)
    written: str


def parse(text: bytes) -> Any:
    """The JSON value of `text`. Its strings may hold bare control characters and halves of
    characters: lone surrogates, and for bytes that are not UTF-8 what Python's `surrogateescape`
    makes of them. `characters` and `Joiner` make them whole.

    Raises `Unreadable` for text that is not JSON or is nested too deep.
    """
    try:
        decoded = text.decode(errors="surrogateescape")
        return json.loads(decoded, strict=False, parse_float=_float)
    except (ValueError, RecursionError):
        raise Unreadable from None


def parse_arguments(text: str) -> dict[str, Any] | None:
    """A tool call's arguments from their JSON text, or from JSON text that holds such text; None
    if it is not a JSON object."""
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
    """`value` as a `shape` (a msgspec Struct). Raises `Unreadable` if a field that carries text of
    the answer can't be read."""
    fitted: _Shape = _struct(value, _type_of(shape))
    return fitted


def characters(text: str) -> str:
    """`text` with adjacent halves of a character joined, and every other half replaced by
    U+FFFD."""
    if not _has_halves(text):
        return text
    text = _PAIR.sub(_joined, text)
    return _NO_BYTE.sub("\ufffd", text).encode(errors="surrogateescape").decode(errors="replace")


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
    """Joins text whose pieces were cut inside a character: between its bytes, or between the
    two escapes that JSON may write it with."""

    __slots__ = ("_part",)

    def __init__(self) -> None:
        self._part = ""

    @property
    def waiting(self) -> bool:
        """Whether half a character is held until the next piece comes."""
        return bool(self._part)

    def add(self, piece: str) -> str:
        """The text that can be shown once `piece` has come; may be empty."""
        text = self._part + piece
        cut = _UNFINISHED.search(text)
        self._part = cut.group() if cut else ""
        return characters(text[: len(text) - len(self._part)])

    def end(self) -> str:
        """The text to show for a half whose other half did not come."""
        part, self._part = self._part, ""
        return characters(part)


def _has_halves(text: str) -> bool:
    return not text.isascii() and _HALF.search(text) is not None


def _joined(pair: re.Match[str]) -> str:
    return pair.group().encode("utf-16-le", "surrogatepass").decode("utf-16-le")


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
    """`value` as `kind`; `_UNFIT` if it can't be read and carries no text of the answer."""
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
    """Read an object as a Struct; a list of one object counts as that object."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
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
    """Read a list. A single object in place of a list of objects is taken as its only element, or
    its fields as the elements."""
    if isinstance(value, dict):
        many = all(isinstance(field, dict) for field in value.values())
        value = list(value.values()) if many and not _is_known(value, kind.item_type) else [value]
    if not isinstance(value, list):
        return _UNFIT
    fitted = [_fit(item, kind.item_type) for item in value if not _empty(item)]
    return _UNFIT if any(item is _UNFIT for item in fitted) else fitted


def _is_known(value: dict[str, Any], kind: Any) -> bool:
    """Whether `value` has a field of the Struct that `kind` is."""
    return any(field.encode_name in value for field in getattr(kind, "fields", ()))


def _dict(value: Any, kind: Any) -> Any:
    """Read an object; JSON text of an object is accepted too."""
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
