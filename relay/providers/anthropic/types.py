"""The fields of a Messages stream's events that the decoder reads, as msgspec structs.

In a module of its own because mypyc (`scripts/compile.py`) can't compile classes that msgspec
makes. Source: the official SDK's types (`anthropic.types.raw_message_stream_event`).
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from relay.providers.decoding.tolerant import SHOWN, WORDS, Count


class AnthropicOutputDetails(Struct, gc=False):
    """Details of the output token count."""

    thinking_tokens: Count | None = None


class AnthropicUsage(Struct, gc=False):
    """Tokens used so far."""

    input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    output_tokens: Count | None = None
    output_tokens_details: AnthropicOutputDetails | None = None


class AnthropicMessage(Struct, gc=False):
    """The message that a stream begins with."""

    model: str | None = None
    usage: AnthropicUsage | None = None


class Block(Struct, gc=False):
    """A content block, as its first event describes it."""

    type: str = ""
    text: Annotated[str | None, WORDS] = None
    thinking: Annotated[str | None, SHOWN] = None
    id: str | None = None
    name: Annotated[str, WORDS] = ""
    input: Any = None


class AnthropicDelta(Struct, gc=False):
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
    message: AnthropicMessage | None = None
    content_block: Annotated[Block | None, WORDS] = None
    delta: Annotated[AnthropicDelta | None, WORDS] = None
    usage: AnthropicUsage | None = None
    error: Any = None
