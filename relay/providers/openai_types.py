"""What of a chat.completions chunk the decoder reads, as msgspec decodes it.

Apart from the decoder, because compiling it (`scripts/compile.py`) is not for classes that
msgspec makes. Source: the official SDK's types (`openai.types.chat`).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Function(Struct, gc=False):
    """A tool call's function, or a part of it."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallDelta(Struct, gc=False):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Piece(Struct, gc=False):
    """A piece of a content that is a list (Mistral's reasoning models)."""

    type: str = ""
    text: str = ""
    thinking: list[Any] | None = None


class Delta(Struct, gc=False):
    """What a chunk adds to the message."""

    content: str | list[Piece] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallDelta] | None = None


class Choice(Struct, gc=False):
    """One of the answers asked for."""

    index: int | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class InputDetails(Struct, gc=False):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class OutputDetails(Struct, gc=False):
    """Of the answer's tokens."""

    reasoning_tokens: int | None = None


class Counts(Struct, gc=False):
    """What the answer cost, in tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class Chunk(Struct, gc=False):
    """One event."""

    choices: list[Choice] | None = None
    model: str | None = None
    usage: Counts | None = None
    error: Any = None
