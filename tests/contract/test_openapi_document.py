"""`/openapi.json` says what the server does: every route, and bodies of the shape that is sent
and taken."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from openapi_spec_validator import validate

from relay.configuration.load import load_settings
from relay.core.errors import Code
from relay.core.events import (
    Done,
    Failed,
    FinishReason,
    Reasoning,
    Record,
    Text,
    Timing,
    ToolCall,
    Usage,
)
from relay.edges.openai.request import InvalidRequest, read
from relay.edges.schema import document
from relay.process.app import Relay
from relay.process.serving import catalog_of
from tests.wire.http_relay import HttpRelay, client, serving

UNTOLD = {"/", "/ws", "/favicon.ico", "/openapi.json", "/asyncapi.json", "/schema/relay.v1.json"}
"""The page, the WebSocket (AsyncAPI has it) and the documents themselves."""

DONE = Done(
    "gpt",
    "model-1-0613",
    FinishReason.STOP,
    Usage(3, 2, estimated=False, cached_input_tokens=1, reasoning_tokens=1),
    [],
    Timing(1, 2),
)
CALL = ToolCall("call_1", "look", {"at": "it"}, state="signature")
ASKED = {"model": "gpt", "messages": [{"role": "user", "content": "Hello!"}]}
COMPLETIONS = "/v1/chat/completions"


def test_the_document_is_openapi() -> None:
    validate(document())


def test_the_document_has_every_route_with_its_methods_and_no_other() -> None:
    settings = load_settings(None)
    router = Relay(settings, catalog_of(settings)).application.router
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in router.routes()
        if route.resource and route.method != "HEAD"
    }
    own = {(method, path) for method, path in served if path not in UNTOLD and "/web/" not in path}
    methods = {"get", "post", "delete"}
    told = {
        (method, path)
        for path, operations in document()["paths"].items()
        for method in methods & operations.keys()
    }
    assert told == own


def closed(schema: Any) -> Any:
    """The same where a field that is not told is a fault."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    return found | ({"additionalProperties": False} if "properties" in schema else {})


def check(name: str, value: object, *, strict: bool = True) -> None:
    """Raises `ValidationError`."""
    schemas = copy.deepcopy(document()["components"]["schemas"])
    root = {"components": {"schemas": closed(schemas) if strict else schemas}}
    Draft202012Validator(root | {"$ref": f"#/components/schemas/{name}"}).validate(value)


@pytest.fixture
async def relay() -> AsyncIterator[HttpRelay]:
    async with serving() as served:
        yield served


ANSWERS = [
    pytest.param([Reasoning("Hm. "), Text("Yes"), DONE], id="text"),
    pytest.param([CALL, DONE], id="calls"),
]


@pytest.mark.parametrize("records", ANSWERS)
async def test_an_answer_in_one_piece_is_what_is_told(
    relay: HttpRelay, records: list[Record]
) -> None:
    relay.dispatcher.on_start = lambda writer: writer.append(records)
    async with client(relay) as raw:
        check("OpenAICompletion", json.loads(await raw.ask("POST", COMPLETIONS, ASKED)))


@pytest.mark.parametrize("records", ANSWERS)
async def test_every_chunk_of_a_streamed_answer_is_what_is_told(
    relay: HttpRelay, records: list[Record]
) -> None:
    relay.dispatcher.on_start = lambda writer: writer.append(records)
    asked = ASKED | {"stream": True, "stream_options": {"include_usage": True}}
    async with client(relay) as raw:
        body = await raw.ask("POST", COMPLETIONS, asked)
    *events, end = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    assert end == b"[DONE]"
    assert len(events) >= 4
    for event in events:
        check("OpenAIChunk", json.loads(event))


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_broke_is_an_error_as_told(relay: HttpRelay, streamed: bool) -> None:
    failed = Failed(Code.PROVIDERS_EXHAUSTED, "every target failed", retryable=True)
    relay.dispatcher.on_start = lambda writer: writer.append([failed])
    async with client(relay) as raw:
        body = await raw.ask("POST", COMPLETIONS, ASKED | {"stream": streamed})
    said = body.strip().rpartition(b"data: ")[2]
    check("OpenAIError", json.loads(said))
    if not streamed:
        assert str(raw.status) in document()["paths"][COMPLETIONS]["post"]["responses"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/models", "OpenAIModels"),
        ("/v1/models/best", "OpenAIModel"),
        ("/v1/models/none", "OpenAIError"),
    ],
)
async def test_what_is_on_offer_is_what_is_told(relay: HttpRelay, path: str, shape: str) -> None:
    async with client(relay) as raw:
        check(shape, json.loads(await raw.ask("GET", path)))


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 0.2, "stop": ["."], "max_tokens": 5, "n": 1},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": "Look."},
                {"role": "assistant", "content": None, "tool_calls": [CALLED]},
                {"role": "tool", "tool_call_id": "c1", "content": "A wall."},
            ]
        },
    ],
)
def test_a_body_that_is_taken_is_one_that_is_told(more: dict[str, Any]) -> None:
    read(ASKED | more)
    check("OpenAIBody", ASKED | more, strict=False)


@pytest.mark.parametrize(
    "wrong",
    [{"model": 5}, {"messages": "hi"}, {"stop": 5}, {"stream": "yes"}, {"tools": {}}],
)
def test_a_body_of_another_shape_is_neither_taken_nor_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        read(ASKED | wrong)
    with pytest.raises(ValidationError):
        check("OpenAIBody", ASKED | wrong, strict=False)
