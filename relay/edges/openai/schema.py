"""The `/v1` routes as parts of an OpenAPI document.

The schemas are made from the models that the routes read and send.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from relay.edges.openai.request import OpenAIBody
from relay.edges.openai.response import (
    OpenAIChunk,
    OpenAICompletion,
    OpenAIError,
    OpenAIModel,
    OpenAIModels,
)
from relay.protocol.schema import Json

PREFIX = "#/components/schemas/"
"""Where the document keeps its schemas."""

SHAPES = (OpenAIBody, OpenAICompletion, OpenAIChunk, OpenAIModel, OpenAIModels, OpenAIError)


def paths() -> Json:
    """The routes."""
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/chat/completions": {"post": _complete()},
        "/v1/models": {"get": _read("What `model` may name.", OpenAIModels, 401, 403)},
        "/v1/models/{model}": {
            "parameters": [name],
            "get": _read("One of them.", OpenAIModel, 401, 403, 404),
        },
    }


def schemas() -> Json:
    """The schemas that `paths` refers to."""
    _, components = msgspec.json.schema_components(SHAPES, ref_template=PREFIX + "{name}")
    return {name: _tidy(schema) for name, schema in components.items()}


def _tidy(schema: Json) -> Json:
    """The schema without its title, which repeats the name."""
    return {key: value for key, value in schema.items() if key != "title"}


def _complete() -> Json:
    streamed = {
        "schema": {"type": "string"},
        "x-event-data": _reference(OpenAIChunk),
    }
    return {
        "summary": "Ask in OpenAI's dialect.",
        "requestBody": {"required": True, "content": _json(OpenAIBody)},
        "responses": {
            "200": {
                "description": "The answer: in one piece, or with `stream` as events whose data "
                "are chunks, `[DONE]` after the last. One that broke ends in an error instead.",
                "content": {**_json(OpenAICompletion), "text/event-stream": streamed},
            },
            **_errors(400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504),
        },
    }


def _read(summary: str, shape: type[Struct], *statuses: int) -> Json:
    found = {"description": summary, "content": _json(shape)}
    return {"summary": summary, "responses": {"200": found, **_errors(*statuses)}}


def _errors(*statuses: int) -> Json:
    said = {"description": "What is wrong, as OpenAI says it.", "content": _json(OpenAIError)}
    return {str(status): said for status in statuses}


def _json(shape: type[Struct]) -> Json:
    return {"application/json": {"schema": _reference(shape)}}


def _reference(shape: type[Struct]) -> Json:
    return {"$ref": PREFIX + shape.__name__}
