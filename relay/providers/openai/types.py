"""What of a chat.completions chunk the decoder reads, as msgspec decodes it.

Apart from the decoder, because compiling it (`scripts/compile.py`) is not for classes that
msgspec makes. Source: the official SDK's types (`openai.types.chat`).
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from relay.providers.decoding.tolerant import SHOWN, WORDS, Count


class Function(Struct, gc=False):
    """A tool call's function, or a part of it."""

    name: Annotated[str | None, WORDS] = None
    arguments: Annotated[str | dict[str, Any] | None, WORDS] = None


class CallDelta(Struct, gc=False):
    """A piece of a tool call; some servers leave out the `function` around its fields."""

    index: int | None = None
    id: str | None = None
    function: Annotated[Function | None, WORDS] = None
    name: Annotated[str | None, WORDS] = None
    arguments: Annotated[str | dict[str, Any] | None, WORDS] = None


class Piece(Struct, gc=False):
    """A piece of a content that is a list (Mistral's reasoning models)."""

    type: str = ""
    text: Annotated[str, WORDS] = ""
    thinking: list[Any] | None = None


class OpenAIStreamDelta(Struct, gc=False):
    """What a chunk adds to the message."""

    content: Annotated[str | list[Piece | str] | None, WORDS] = None
    refusal: str | None = None
    reasoning_content: Annotated[str | None, SHOWN] = None
    reasoning: Annotated[str | None, SHOWN] = None
    tool_calls: Annotated[list[CallDelta] | None, WORDS] = None
    function_call: Annotated[Function | None, WORDS] = None


class Choice(Struct, gc=False):
    """One of the answers asked for. `message` and `text` are what servers send that do not
    stream, or speak the older completions wire; `error` is OpenRouter's."""

    index: int | None = None
    delta: Annotated[OpenAIStreamDelta | None, WORDS] = None
    finish_reason: Annotated[str | None, WORDS] = None
    message: Annotated[OpenAIStreamDelta | None, WORDS] = None
    text: Annotated[str | None, WORDS] = None
    error: Any = None


class InputDetails(Struct, gc=False):
    """Of the prompt's tokens."""

    cached_tokens: Count | None = None


class OpenAIOutputDetails(Struct, gc=False):
    """Of the answer's tokens."""

    reasoning_tokens: Count | None = None


class OpenAIStreamUsage(Struct, gc=False):
    """What the answer cost, in tokens."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OpenAIOutputDetails | None = None


class OpenAIStreamChunk(Struct, gc=False):
    """One event. `base_resp` is MiniMax' own status."""

    choices: Annotated[list[Choice] | None, WORDS] = None
    model: str | None = None
    usage: OpenAIStreamUsage | None = None
    error: Any = None
    base_resp: Any = None
