"""The HTTP routes for machines (OpenAPI 3.1); their bodies are the frames' own schemas."""

from __future__ import annotations

from functools import cache

from relay.protocol.chat import ChatBody
from relay.protocol.frames import PROTOCOL, STREAM_HEADER
from relay.protocol.schema import Json, definitions_of

OPENAPI_PATH = "/openapi.json"
"""Where the server offers `openapi()`, with what other dialects add."""

_PREFIX = "#/components/schemas/"
_STREAM = {
    "description": "Events: `event` is a frame's type, `id` its seq, `data` the frame as JSON.",
    "headers": {STREAM_HEADER: {"schema": {"type": "string"}, "description": "The stream's name."}},
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_ERROR = {"$ref": "#/components/responses/Error"}


@cache
def openapi() -> Json:
    """The HTTP routes of the relay's own; those that other dialects add are not in it."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Chat relay", "version": PROTOCOL.rpartition(".v")[2] + ".0.0"},
        "paths": {
            "/chat/{provider}": {"parameters": [_path("provider")], "post": _chat()},
            "/streams/{stream}": {
                "parameters": [_path("stream")],
                "get": _attach(),
                "delete": _erase(),
            },
            "/health": {"get": _state("The state of each provider.", 200, 503)},
            "/health/{provider}": {
                "parameters": [_path("provider")],
                "get": _state("The state of one provider.", 200, 404, 503),
            },
            "/livez": {"get": _state("Whether the process runs.", 200)},
            "/readyz": {"get": _state("Whether the process takes new chats.", 200, 503)},
            "/metrics": {"get": _text("Metrics for Prometheus.")},
        },
        "components": {
            "schemas": {**definitions_of([ChatBody], _PREFIX), "ErrorBody": _error_body()},
            "responses": {"Error": _error_response()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _chat() -> Json:
    body = {"application/json": {"schema": {"$ref": _PREFIX + "ChatBody"}}}
    return {
        "summary": "Ask, and read the answer as it is written.",
        "requestBody": {"required": True, "content": body},
        "responses": {"200": _STREAM, **_errors(400, 401, 403, 404, 413, 422, 429, 503)},
    }


def _attach() -> Json:
    seq = {"type": "integer", "minimum": -1}
    last = {"name": "Last-Event-ID", "in": "header", "schema": seq}
    after = {"name": "after", "in": "query", "schema": seq}
    return {
        "summary": "Read a stream, or go on reading it after the seq that is named.",
        "parameters": [last, after],
        "responses": {
            "200": _STREAM,
            "204": {"description": "The stream has ended, and the reader has all of it."},
            **_errors(400, 401, 403, 404, 422),
        },
    }


def _erase() -> Json:
    return {
        "summary": "Cancel a stream and erase it.",
        "responses": {
            "204": {"description": "The stream is cancelled and erased."},
            **_errors(401, 403, 404),
        },
    }


def _state(summary: str, *statuses: int) -> Json:
    shown = {"content": {"application/json": {"schema": {"type": "object"}}}}
    answers = {str(status): {"description": summary, **shown} for status in statuses}
    return {"summary": summary, "responses": {**answers, **_errors(403)}}


def _text(summary: str) -> Json:
    shown = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, **shown}, **_errors(401, 403)},
    }


def _errors(*statuses: int) -> Json:
    return {str(status): _ERROR for status in statuses}


def _error_response() -> Json:
    schema = {"$ref": _PREFIX + "ErrorBody"}
    return {
        "description": "The error, as a code and a sentence.",
        "content": {"application/json": {"schema": schema}},
    }


def _error_body() -> Json:
    fields = {"code": {"type": "string"}, "message": {"type": "string"}}
    error = {"type": "object", "properties": fields, "required": ["code", "message"]}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}
