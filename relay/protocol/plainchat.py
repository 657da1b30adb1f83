"""The chat that most clients send, read straight from its JSON.

The schema (`relay.protocol.chat`) says what a chat is and what is wrong with one. It takes five
times as long, on the way to the first token. A chat that is read here gets the same result from the
schema; all others, and every error, are left to the schema.
"""

from __future__ import annotations

from string import ascii_letters, digits
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from relay.core.request import ChatRequest, Turn
from relay.protocol.chat import MAX_ID_CHARS, MAX_MESSAGES, MAX_NAME_CHARS, MAX_OUTPUT

MAX_PLAIN_CHARS = 65_536
"""Characters of a frame or a body that is read here; a longer one's values are counted first."""


class ReadChat(Struct, frozen=True):
    """A chat, read: its id, where it has one, and what it asks."""

    id: str | None
    request: ChatRequest


_Text = Annotated[str, Meta(min_length=1)]
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]


class _Turn(Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: _Text


class _PlainChat(Struct, forbid_unknown_fields=True):
    messages: _Text | Annotated[list[_Turn], Meta(max_length=MAX_MESSAGES)]
    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)] | None = None
    provider: _Name | None = None
    system: str | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT)] | None = None
    conversation: _Name | None = None
    fallback: bool | None = None


class _PlainFrame(_PlainChat, tag_field="type", tag="chat"):
    pass


class _PlainBody(_PlainChat):
    model: str | None = None
    stream: bool | None = None


_ID_CHARS = f"{ascii_letters}{digits}._-"
"""The characters of `ID_PATTERN`. Stripping an id of them is a much faster check than the regular
expression."""

_decode_frame = msgspec.json.Decoder(_PlainFrame).decode
_decode_body = msgspec.json.Decoder(_PlainBody).decode


def read_plain_frame(text: str) -> ReadChat | None:
    """The chat in a frame; None where the schema has to read it."""
    if len(text) > MAX_PLAIN_CHARS or '"chat"' not in text:
        return None
    try:
        chat = _decode_frame(text)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    return _asked(chat, chat.provider or "")


def read_plain_body(body: bytes, provider: str) -> ReadChat | None:
    """The chat for `provider` in a body of `POST /chat/{provider}`; None where the schema has to
    read it."""
    if len(body) > MAX_PLAIN_CHARS:
        return None
    try:
        chat = _decode_body(body)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    return _asked(chat, provider)


def _asked(chat: _PlainChat, provider: str) -> ReadChat | None:
    turns = _turns(chat.messages)
    if turns is None or (chat.id is not None and chat.id.strip(_ID_CHARS)):
        return None
    request = ChatRequest(
        provider=provider,
        messages=turns,
        system=chat.system or None,
        max_tokens=chat.max_tokens,
        conversation=chat.conversation,
        fallback=chat.fallback is not False,
    )
    return ReadChat(chat.id, request)


def _turns(messages: str | list[_Turn]) -> tuple[Turn, ...] | None:
    """None where all turns are the system's."""
    if isinstance(messages, str):
        return (Turn("user", messages),)
    for turn in messages:
        if turn.role != "system":
            return tuple([Turn(turn.role, turn.content) for turn in messages])
    return None
