"""OpenAI's dialect for machines: the `/v1` routes as parts of an OpenAPI document.

What clients send is described by the models that `openai_request` reads. What they get is
described here, as `openai_chat` writes it: a contract test holds the two together.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from relay.edges.openai_request import Body
from relay.protocol.schema import Json

PREFIX = "#/components/schemas/OpenAI"
"""Where the document keeps the schemas of this dialect: their names would clash with the
relay's own."""


class PromptTokensDetails(Struct):
    """Of the tokens that were read."""

    cached_tokens: int


class CompletionTokensDetails(Struct):
    """Of the tokens that were written."""

    reasoning_tokens: int


class Usage(Struct):
    """Tokens counted, or estimated where no provider counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class FunctionCall(Struct):
    """What is called. `arguments` is JSON in a string."""

    name: str
    arguments: str


class ToolCall(Struct, omit_defaults=True):
    """One whole call. `extra_content` carries a Gemini signature: send it back with the
    call."""

    id: str
    type: Literal["function"]
    function: FunctionCall
    extra_content: dict[str, Any] | None = None


class IndexedToolCall(Struct, omit_defaults=True):
    """One whole call, in a streamed answer."""

    index: int
    id: str
    type: Literal["function"]
    function: FunctionCall
    extra_content: dict[str, Any] | None = None


class Message(Struct, omit_defaults=True):
    """The answer. `content` is null where it consists of calls alone."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


class CompletionChoice(Struct):
    """The one answer of a request."""

    index: int
    message: Message
    logprobs: None
    finish_reason: FinishReason


class Completion(Struct):
    """An answer in one piece."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class Delta(Struct, omit_defaults=True):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[IndexedToolCall] | None = None


class ChunkChoice(Struct):
    """What a chunk adds to the one answer. The last one tells why it ended."""

    index: int
    delta: Delta
    logprobs: None
    finish_reason: FinishReason | None


class Chunk(Struct, omit_defaults=True):
    """The data of one event of a streamed answer. The chunk that has `usage`, where that
    was asked for, has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Model(Struct):
    """A route on offer, under the name that `model` may take."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Struct):
    """What `model` may name, the default first."""

    object: Literal["list"]
    data: list[Model]


class ErrorDetail(Struct):
    """What is wrong. `param` is the field, where one is."""

    message: str
    type: str
    param: str | None
    code: str


class Error(Struct):
    """What every status of 400 and above carries, and a streamed answer that broke."""

    error: ErrorDetail


SHAPES = (Body, Completion, Chunk, Model, Models, Error)


def paths() -> Json:
    """The routes."""
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/chat/completions": {"post": _complete()},
        "/v1/models": {"get": _read("What `model` may name.", "Models", 401, 403)},
        "/v1/models/{model}": {
            "parameters": [name],
            "get": _read("One of them.", "Model", 401, 403, 404),
        },
    }


def schemas() -> Json:
    """The schemas that `paths` refers to."""
    _, components = msgspec.json.schema_components(SHAPES, ref_template=PREFIX + "{name}")
    return {f"OpenAI{name}": _tidy(schema) for name, schema in components.items()}


def _tidy(schema: Json) -> Json:
    """Without its title, which repeats the name."""
    return {key: value for key, value in schema.items() if key != "title"}


def _complete() -> Json:
    streamed = {
        "schema": {"type": "string"},
        "x-event-data": {"$ref": PREFIX + "Chunk"},
    }
    return {
        "summary": "Ask in OpenAI's dialect.",
        "requestBody": {"required": True, "content": _json("Body")},
        "responses": {
            "200": {
                "description": "The answer: in one piece, or with `stream` as events whose data "
                "are chunks, `[DONE]` after the last. One that broke ends in an error instead.",
                "content": {**_json("Completion"), "text/event-stream": streamed},
            },
            **_errors(400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504),
        },
    }


def _read(summary: str, shape: str, *statuses: int) -> Json:
    found = {"description": summary, "content": _json(shape)}
    return {"summary": summary, "responses": {"200": found, **_errors(*statuses)}}


def _errors(*statuses: int) -> Json:
    said = {"description": "What is wrong, as OpenAI says it.", "content": _json("Error")}
    return {str(status): said for status in statuses}


def _json(shape: str) -> Json:
    return {"application/json": {"schema": {"$ref": PREFIX + shape}}}
