"""What of a Messages stream's events the decoder reads, as msgspec decodes it.

Apart from the decoder, because compiling it (`scripts/compile.py`) is not for classes that
msgspec makes. Source: the official SDK's types (`anthropic.types.raw_message_stream_event`).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class OutputDetails(Struct, gc=False):
    """Of the answer's tokens."""

    thinking_tokens: int | None = None


class Counts(Struct, gc=False):
    """What the answer cost so far, in tokens."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None


class Message(Struct, gc=False):
    """The message that begins."""

    model: str = ""
    usage: Counts | None = None


class Block(Struct, gc=False):
    """A content block that begins."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    id: str = ""
    name: str = ""
    input: Any = None


class Delta(Struct, gc=False):
    """What an event adds to a block, or to the message."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class StreamEvent(Struct, gc=False):
    """One event, of any type."""

    type: str = ""
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: Counts | None = None
    error: Any = None
