"""What of a Messages stream's events the decoder reads, as msgspec decodes it.

Apart from the decoder, because compiling it (`scripts/compile.py`) is not for classes that
msgspec makes. Source: the official SDK's types (`anthropic.types.raw_message_stream_event`).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Struct

from relay.providers.decoding.tolerant import COUNT, SHOWN, WORDS

Count: TypeAlias = Annotated[int, COUNT]


class OutputDetails(Struct, gc=False):
    """Of the answer's tokens."""

    thinking_tokens: Count | None = None


class Counts(Struct, gc=False):
    """What the answer cost so far, in tokens."""

    input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    output_tokens: Count | None = None
    output_tokens_details: OutputDetails | None = None


class Message(Struct, gc=False):
    """The message that begins."""

    model: str | None = None
    usage: Counts | None = None


class Block(Struct, gc=False):
    """A content block that begins."""

    type: str = ""
    text: Annotated[str | None, WORDS] = None
    thinking: Annotated[str | None, SHOWN] = None
    id: str | None = None
    name: Annotated[str, WORDS] = ""
    input: Any = None


class Delta(Struct, gc=False):
    """What an event adds to a block, or to the message."""

    type: str = ""
    text: Annotated[str | None, WORDS] = None
    thinking: Annotated[str | None, SHOWN] = None
    partial_json: Annotated[str | dict[str, Any] | None, WORDS] = None
    stop_reason: Annotated[str | None, WORDS] = None
    error: Any = None


class StreamEvent(Struct, gc=False):
    """One event, of any type."""

    type: str = ""
    index: int | None = None
    message: Message | None = None
    content_block: Annotated[Block | None, WORDS] = None
    delta: Annotated[Delta | None, WORDS] = None
    usage: Counts | None = None
    error: Any = None
