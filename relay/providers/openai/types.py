"""The fields of a chat.completions chunk that the decoder reads, as msgspec structs.

In a module of its own because mypyc (`scripts/compile.py`) can't compile classes that msgspec
makes. Source: the official SDK's types (`openai.types.chat`).
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from relay.providers.decoding.tolerant import SHOWN, WORDS, Count


class Function(Struct, gc=False):
    """A tool call's function, or a piece of it."""

    name: Annotated[str | None, WORDS] = None
    arguments: Annotated[str | dict[str, Any] | None, WORDS] = None


class CallDelta(Struct, gc=False):
    """A piece of a tool call. Some servers put its fields here, without the `function` around
    them."""

    index: int | None = None
    id: str | None = None
    function: Annotated[Function | None, WORDS] = None
    name: Annotated[str | None, WORDS] = None
    arguments: Annotated[str | dict[str, Any] | None, WORDS] = None


class Piece(Struct, gc=False):
    """An element of content that is a list (Mistral's reasoning models)."""

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
    """One of the requested answers. `message` and `text` come from servers that do not stream or
    use the older completions wire; `error` is OpenRouter's."""

    index: int | None = None
    delta: Annotated[OpenAIStreamDelta | None, WORDS] = None
    finish_reason: Annotated[str | None, WORDS] = None
    message: Annotated[OpenAIStreamDelta | None, WORDS] = None
    text: Annotated[str | None, WORDS] = None
    error: Any = None


class InputDetails(Struct, gc=False):
    """Details of the prompt's token count."""

    cached_tokens: Count | None = None


class OpenAIOutputDetails(Struct, gc=False):
    """Details of the answer's token count."""

    reasoning_tokens: Count | None = None


class OpenAIStreamUsage(Struct, gc=False):
    """Tokens used."""

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
