"""What the `/v1` routes send: the shapes of OpenAI's API reference, as far as the relay fills
them.

Fields are declared in the order in which they are sent. A field without a default is always sent,
even as null.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class OpenAIPromptTokensDetails(Struct):
    """Details of the input token count."""

    cached_tokens: int


class OpenAICompletionTokensDetails(Struct):
    """Details of the output token count."""

    reasoning_tokens: int


class OpenAIUsage(Struct):
    """Tokens counted, or estimated where no provider counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: OpenAIPromptTokensDetails
    completion_tokens_details: OpenAICompletionTokensDetails


class OpenAIFunctionCall(Struct):
    """The called function. `arguments` is JSON in a string."""

    name: str
    arguments: str


class OpenAIToolCall(Struct, omit_defaults=True):
    """One complete call. `extra_content` carries a Gemini signature: send it back with the call."""

    id: str
    type: Literal["function"]
    function: OpenAIFunctionCall
    extra_content: dict[str, Any] | None = None


class OpenAIIndexedToolCall(Struct, omit_defaults=True):
    """One complete call, in a streamed answer."""

    index: int
    id: str
    type: Literal["function"]
    function: OpenAIFunctionCall
    extra_content: dict[str, Any] | None = None


class OpenAIMessage(Struct, omit_defaults=True):
    """The answer. `content` is null if it consists of calls only."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[OpenAIToolCall] | None = None


OpenAIFinishReason = Literal["stop", "length", "content_filter", "tool_calls"]
"""Why an answer ended. A cancelled one ends in an error instead."""


class OpenAICompletionChoice(Struct):
    """The one answer of a request."""

    index: int
    message: OpenAIMessage
    logprobs: None
    finish_reason: OpenAIFinishReason


class OpenAICompletion(Struct):
    """An answer in one piece."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[OpenAICompletionChoice]
    usage: OpenAIUsage


class OpenAIDelta(Struct, omit_defaults=True):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[OpenAIIndexedToolCall] | None = None


class OpenAIChunkChoice(Struct):
    """What a chunk adds to the one answer. The last one states why the answer ended."""

    index: int
    delta: OpenAIDelta
    logprobs: None
    finish_reason: OpenAIFinishReason | None


class OpenAIChunk(Struct, omit_defaults=True):
    """The data of one event of a streamed answer. The chunk with `usage`, sent if that was asked
    for, has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[OpenAIChunkChoice]
    usage: OpenAIUsage | None = None


class OpenAIModel(Struct):
    """An offered route, under the name that `model` may take."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(Struct):
    """The models that `model` may name, the default first."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIErrorDetail(Struct):
    """What is wrong. `param` is the wrong field, if there is one."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(Struct):
    """The body of every status of 400 and above, and the end of a streamed answer that broke."""

    error: OpenAIErrorDetail
