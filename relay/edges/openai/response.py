"""What the `/v1` routes send: the shapes of OpenAI's API reference, as far as the relay fills
them.

The fields stand in the order in which they are sent. One without a default is always sent,
even as null.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class OpenAIPromptTokensDetails(Struct):
    """Of the tokens that were read."""

    cached_tokens: int


class OpenAICompletionTokensDetails(Struct):
    """Of the tokens that were written."""

    reasoning_tokens: int


class OpenAIUsage(Struct):
    """Tokens counted, or estimated where no provider counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: OpenAIPromptTokensDetails
    completion_tokens_details: OpenAICompletionTokensDetails


class OpenAIFunctionCall(Struct):
    """What is called. `arguments` is JSON in a string."""

    name: str
    arguments: str


class OpenAIToolCall(Struct, omit_defaults=True):
    """One whole call. `extra_content` carries a Gemini signature: send it back with the
    call."""

    id: str
    type: Literal["function"]
    function: OpenAIFunctionCall
    extra_content: dict[str, Any] | None = None


class OpenAIIndexedToolCall(Struct, omit_defaults=True):
    """One whole call, in a streamed answer."""

    index: int
    id: str
    type: Literal["function"]
    function: OpenAIFunctionCall
    extra_content: dict[str, Any] | None = None


class OpenAIMessage(Struct, omit_defaults=True):
    """The answer. `content` is null where it consists of calls alone."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[OpenAIToolCall] | None = None


OpenAIFinishReason = Literal["stop", "length", "content_filter", "tool_calls"]
"""Why an answer ended. One that was cancelled ends in an error instead."""


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
    """What a chunk adds to the one answer. The last one tells why it ended."""

    index: int
    delta: OpenAIDelta
    logprobs: None
    finish_reason: OpenAIFinishReason | None


class OpenAIChunk(Struct, omit_defaults=True):
    """The data of one event of a streamed answer. The chunk that has `usage`, where that
    was asked for, has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[OpenAIChunkChoice]
    usage: OpenAIUsage | None = None


class OpenAIModel(Struct):
    """A route on offer, under the name that `model` may take."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(Struct):
    """What `model` may name, the default first."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIErrorDetail(Struct):
    """What is wrong. `param` is the field, where one is."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(Struct):
    """What every status of 400 and above carries, and a streamed answer that broke."""

    error: OpenAIErrorDetail
