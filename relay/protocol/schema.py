"""`relay.v1` for machines: JSON Schema and AsyncAPI, made from the frame models.

What the server sends is left open to further fields, because clients ignore what they do
not know; what clients send is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from relay.protocol.chat import Strict
from relay.protocol.frames import CLIENT_FRAMES, PROTOCOL, SERVER_FRAMES

Json = dict[str, Any]

SCHEMA_PATH = f"/schema/{PROTOCOL}.json"
"""Where the server offers `json_schema()`."""

ASYNCAPI_PATH = "/asyncapi.json"
"""Where the server offers `asyncapi()`."""


@cache
def json_schema() -> Json:
    """Every frame (JSON Schema 2020-12). `ClientFrame` and `ServerFrame` are the unions."""
    definitions = _definitions("#/$defs/")
    definitions["ClientFrame"] = _union(CLIENT_FRAMES)
    definitions["ServerFrame"] = _union(SERVER_FRAMES)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{PROTOCOL}",
        "title": PROTOCOL,
        "description": "Frames of the chat relay's WebSocket protocol. See protocol.md.",
        "oneOf": [{"$ref": "#/$defs/ClientFrame"}, {"$ref": "#/$defs/ServerFrame"}],
        "$defs": definitions,
    }


@cache
def asyncapi() -> Json:
    """The WebSocket route with every frame as a message (AsyncAPI 3.0)."""
    channel = "#/channels/relay"
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Chat relay", "version": PROTOCOL.rpartition(".v")[2] + ".0.0"},
        "defaultContentType": "application/json",
        "channels": {
            "relay": {
                "address": "/ws",
                "description": f"WebSocket, subprotocol {PROTOCOL}; one JSON object a text frame.",
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in _messages()
                },
            }
        },
        "operations": {
            # AsyncAPI names operations from the application's side, which is the server here.
            "receiveFrames": _operation("receive", channel, CLIENT_FRAMES),
            "sendFrames": _operation("send", channel, SERVER_FRAMES),
        },
        "components": {
            "messages": _messages(),
            "schemas": _definitions("#/components/schemas/"),
        },
    }


def _messages() -> Json:
    return {
        model.__name__: {
            "name": tag,
            "summary": " ".join((model.__doc__ or "").split()),
            "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        }
        for tag, model in (CLIENT_FRAMES | SERVER_FRAMES).items()
    }


def _operation(action: str, channel: str, frames: dict[str, Any]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{model.__name__}"} for model in frames.values()],
    }


def _union(frames: dict[str, Any]) -> Json:
    mapping = {tag: f"#/$defs/{model.__name__}" for tag, model in frames.items()}
    return {
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }


def _definitions(prefix: str) -> Json:
    return definitions_of([*CLIENT_FRAMES.values(), *SERVER_FRAMES.values()], prefix)


def definitions_of(models: Sequence[type[BaseModel]], prefix: str) -> Json:
    """The schemas of `models` and of all that they hold, by name; `prefix` is where the document
    that includes them keeps its schemas."""
    mode: JsonSchemaMode = "validation"
    _, schema = models_json_schema(
        [(model, mode) for model in models], ref_template=prefix + "{model}"
    )
    definitions: Json = schema["$defs"]
    closed = {cls.__name__ for cls in _subclasses(Strict)}
    return {
        name: _tidy(definition, closed=name in closed) for name, definition in definitions.items()
    }


def _subclasses(cls: type[Any]) -> set[type[Any]]:
    found: set[type[Any]] = set()
    for sub in cls.__subclasses__():
        found |= {sub} | _subclasses(sub)
    return found


def _tidy(definition: Json, *, closed: bool) -> Json:
    """Removes titles, which repeat the names. What the server sends is left open to further
    fields."""
    tidy = {key: value for key, value in definition.items() if key != "title"}
    if not closed:
        tidy.pop("additionalProperties", None)
    tidy["description"] = " ".join(tidy["description"].split())
    tidy["properties"] = {
        name: _tidy_field(field) for name, field in definition["properties"].items()
    }
    return tidy


def _tidy_field(field: Json) -> Json:
    """Describes an optional field as one that may be left out, not as one that may be null."""
    tidy = {key: value for key, value in field.items() if key != "title"}
    if "default" in tidy and tidy["default"] is None:
        del tidy["default"]
        forms = [form for form in tidy.pop("anyOf", []) if form != {"type": "null"}]
        tidy |= forms[0] if len(forms) == 1 else {"anyOf": forms} if forms else {}
    return tidy
