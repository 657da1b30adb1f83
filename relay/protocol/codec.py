"""Reads frames from clients and writes frames to them, as bytes and text.

What a client sends is never quoted back: messages name the field and what is expected there.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec
from pydantic import TypeAdapter, ValidationError

from relay.core.errors import Code, RelayError
from relay.core.events import TEXTUAL, Kind
from relay.core.records import Chunk
from relay.protocol.chat import SEMANTIC, to_request
from relay.protocol.frames import (
    CLIENT_FRAMES,
    AnySent,
    CancelFrame,
    ChatFrame,
    ErrorFrame,
    HelloFrame,
    Id,
    PingFrame,
    PongFrame,
    ResumeFrame,
)
from relay.protocol.plainchat import ReadChat, read_plain_frame

ReadFrame: TypeAlias = ReadChat | HelloFrame | CancelFrame | ResumeFrame | PingFrame | PongFrame
"""What a client's frame is read as: a `chat` as `ReadChat`, any other as its model."""

MAX_DEPTH = 64
"""How deep a client's JSON may be nested."""

MAX_VALUES = 50_000
"""Brackets and commas of a client's JSON, strings left out: about how many values it has.
Text is cheap to read and values are not, so that a frame's size alone bounds no time."""

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


# Reading


class NotAFrame(RelayError):
    """The message is not a frame: not JSON, or not an object with a `type`. `is_json` is False
    where it could not be parsed."""

    def __init__(self, message: str, *, is_json: bool = True) -> None:
        super().__init__(Code.BAD_FRAME, message)
        self.is_json = is_json


class BadFrame(RelayError):
    """A frame, but not one that the protocol allows. `id` and `type` are the frame's, where they
    could be read."""

    def __init__(
        self, message: str, *, code: Code = Code.BAD_FRAME, id: str | None = None, type: str = ""
    ) -> None:
        super().__init__(code, message)
        self.id = id
        self.type = type


def decode_object(data: str | bytes) -> dict[str, Any]:
    """The JSON object that a client sent, within `MAX_DEPTH` and `MAX_VALUES`.

    Raises `NotAFrame`, whose message says what is wrong and quotes nothing.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        openings = text.count("[") + text.count("{")
        if openings + text.count(",") > MAX_VALUES and _too_many(text):
            raise NotAFrame(f"JSON may have {MAX_VALUES:,} values at most")
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise NotAFrame("this is not JSON, or is nested too deep", is_json=False) from None
    if not isinstance(value, dict):
        raise NotAFrame("expected a JSON object")
    if openings > MAX_DEPTH and _too_deep(value):
        raise NotAFrame(f"JSON may be nested {MAX_DEPTH} deep at most")
    return value


def _too_many(text: str) -> bool:
    """Leaves strings out, which only matters where there are many commas and brackets."""
    bare = _STRING.sub("", text)
    return bare.count(",") + bare.count("[") + bare.count("{") > MAX_VALUES


def _too_deep(value: dict[str, Any]) -> bool:
    """Level by level, so that no depth of nesting grows the stack."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def decode_frame(text: str) -> ReadFrame:
    """The frame that a client sent; `ReadChat` for a `chat`. Raises `NotAFrame` or `BadFrame`."""
    return read_plain_frame(text) or read_by_schema(text)


def read_by_schema(text: str) -> ReadFrame:
    """As `decode_frame`, but by the schema for every frame."""
    value = decode_object(text)
    kind = value.get("type")
    if not isinstance(kind, str):
        raise NotAFrame("a frame must have a string field named type")
    model = CLIENT_FRAMES.get(kind)
    if model is None:
        known = ", ".join(CLIENT_FRAMES)
        raise BadFrame(f"type: unknown frame type; known are {known}", id=_id_of(value))
    try:
        frame = model.model_validate(value)
    except ValidationError as error:
        code, message = explain(error)
        if kind != "chat":
            code = Code.BAD_FRAME
        raise BadFrame(message, code=code, id=_id_of(value), type=kind) from None
    if isinstance(frame, ChatFrame):
        return ReadChat(frame.id, to_request(frame, frame.provider or ""))
    return frame


_id_adapter: TypeAdapter[str] = TypeAdapter(Id)


def _id_of(value: dict[str, Any]) -> str | None:
    try:
        return _id_adapter.validate_python(value.get("id"), strict=True)
    except ValidationError:
        return None


MAX_FAULTS_TOLD = 3
"""Faults of one frame that its error message names."""

MAX_PLACE_CHARS = 80
"""Characters of a field's path in an error message."""

_PHRASES = {
    "missing": "is missing",
    "extra_forbidden": "is an unknown field",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "is empty",
    "string_too_long": "is longer than {max_length} characters",
    "too_short": "is empty",
    "too_long": "has more than {max_length} entries",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_or_list": "must be a string or a list",
    "echo_type": "must be a number or a string",
    "part_type": "must be a part of type text or image",
}


def explain(error: ValidationError) -> tuple[Code, str]:
    """What is wrong, in a sentence that names the fields and quotes no value.

    The code is `bad_request` where every field has the right shape but the whole makes no
    sense, else `bad_frame`.
    """
    faults = error.errors(include_url=False, include_input=False)
    told = dict.fromkeys(_fault(fault) for fault in faults)
    text = "; ".join(list(told)[:MAX_FAULTS_TOLD])
    if len(told) > MAX_FAULTS_TOLD:
        text += f"; and {len(told) - MAX_FAULTS_TOLD} more"
    shapely = all(fault["type"] == SEMANTIC for fault in faults)
    return (Code.BAD_REQUEST if shapely else Code.BAD_FRAME), text


def _fault(fault: Any) -> str:
    place = _place(fault["loc"])
    if fault["type"] == SEMANTIC:
        said = fault["msg"]
        return f"{place}: {said}" if place else said
    phrase = _PHRASES.get(fault["type"], "is not valid").format_map(fault.get("ctx") or {})
    return f"{place or 'the frame'}: {phrase}"


def _place(loc: tuple[int | str, ...]) -> str:
    """`("messages", "~list", 2, "role")` as `messages[2].role`."""
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.startswith("~") and step != "[key]":
            path += f".{step}" if path else step
    printable = "".join(char if char.isprintable() else "?" for char in path[:MAX_PLACE_CHARS])
    return printable + ("…" if len(path) > MAX_PLACE_CHARS else "")


# Writing


def encode(frame: AnySent) -> bytes:
    """A frame that is not a record, as JSON. Fields that are None are left out."""
    return frame.model_dump_json(by_alias=True, exclude_none=True).encode()


def error_frame(error: RelayError, id: str | None = None) -> ErrorFrame:
    """A refusal, without `seq`: the id stays free."""
    return ErrorFrame(
        type="error",
        id=id,
        code=error.code.value,
        message=error.message,
        retryable=error.retryable,
        retry_after=error.retry_after,
    )


_TAGS = {kind: kind.value.encode() for kind in Kind}


def encode_id(id: str) -> bytes:
    """An id as `encode_chunk` takes it, quotes included."""
    return msgspec.json.encode(id)


def encode_chunk(id_json: bytes, chunk: Chunk) -> bytes:
    """The frame of a chunk, under an id encoded by `encode_id`.

    The chunk's bytes are JSON already and are only copied, however many readers there are.
    """
    kind, first, last, body = chunk
    if kind not in TEXTUAL:
        return b'{"type":"%b","id":%b,"seq":%d,%b' % (_TAGS[kind], id_json, last, body[1:])
    if first == last:
        return b'{"type":"%b","id":%b,"seq":%d,"text":"%b"}' % (_TAGS[kind], id_json, last, body)
    return b'{"type":"%b","id":%b,"seq":%d,"first":%d,"text":"%b"}' % (
        _TAGS[kind],
        id_json,
        last,
        first,
        body,
    )


class FrameEncoder:
    """A stream's chunks as frames under the `id` by which a connection reads it. It has no state,
    so it may begin at any record."""

    __slots__ = ("_id", "_id_json")

    def __init__(self, id: str) -> None:
        self._id = id
        self._id_json = encode_id(id)

    def encode(self, chunk: Chunk) -> bytes:
        """One frame."""
        return encode_chunk(self._id_json, chunk)

    def fault(self, error: RelayError) -> bytes:
        """An `error` frame without `seq`, because it is not a record."""
        return encode(error_frame(error, self._id))
