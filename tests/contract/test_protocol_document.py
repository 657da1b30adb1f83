"""`protocol.md` says what the code does: tables in step, examples that are frames, codes
all there, and the published schemas that accept the same."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from relay.core.errors import Code
from relay.edges.rfc6455 import PROTOCOL_ERROR
from relay.protocol.actions import CloseCode
from relay.protocol.frames import CLIENT_FRAMES, SERVER_FRAMES
from relay.protocol.schema import asyncapi, json_schema
from tests.frames import client_frame, server_frame

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "protocol.md").read_text(encoding="utf-8")


def examples(side: str) -> list[dict[str, Any]]:
    blocks = re.findall(rf"```json {side}\n(.*?)```", TEXT, re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def validator(union: str) -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{union}"})


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_protocol", ROOT / "scripts" / "generate_protocol.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_in_step_with_the_code(generator: ModuleType) -> None:
    assert generator.document_in_step(TEXT) == TEXT, "run python scripts/generate_protocol.py"


def test_a_table_that_is_out_of_step_is_noticed(generator: ModuleType) -> None:
    changed = TEXT.replace("| `reconnect_after` |", "| `reconnect_afterwards` |")
    assert changed != TEXT
    assert generator.document_in_step(changed) == TEXT


@pytest.mark.parametrize("frame", examples("client"), ids=lambda frame: frame["type"])
def test_a_clients_example_is_a_frame(frame: dict[str, Any]) -> None:
    client_frame.validate_python(frame)
    validator("ClientFrame").validate(frame)


@pytest.mark.parametrize("frame", examples("server"), ids=lambda frame: frame["type"])
def test_a_servers_example_is_a_frame(frame: dict[str, Any]) -> None:
    server_frame.validate_python(frame)
    validator("ServerFrame").validate(frame)


def test_every_frame_has_an_example() -> None:
    clients = {frame["type"] for frame in examples("client")} | {"pong"}
    assert clients == set(CLIENT_FRAMES)
    assert {frame["type"] for frame in examples("server")} == set(SERVER_FRAMES)


def test_the_first_answer_keeps_the_documents_own_rules() -> None:
    last = -1
    for frame in examples("server")[:5]:
        if "seq" in frame:
            assert frame.get("first", frame["seq"]) == last + 1
            last = frame["seq"]
    assert last == 10


def test_the_tables_of_codes_are_whole() -> None:
    table = TEXT.partition("## Error codes")[2].partition("## Close codes")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [code.value for code in Code]
    table = TEXT.partition("## Close codes")[2].partition("## Limits")[0]
    told = {
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        for code in row.split(",")
    }
    assert told == {code.value for code in CloseCode} | {PROTOCOL_ERROR, 1007}


@pytest.mark.parametrize(
    "lie",
    [
        {"type": "nope"},
        {"type": "cancel"},
        {"type": "cancel", "id": "a b"},
        {"type": "ping", "zz": 1},
        {"type": "ping", "t": []},
        {"type": "chat"},
        {"type": "chat", "messages": 5},
        {"type": "chat", "messages": [{"role": "bot", "content": "x"}]},
        {"type": "resume", "id": "a", "after": -2},
    ],
)
def test_the_schema_refuses_what_the_server_refuses(lie: dict[str, Any]) -> None:
    assert not validator("ClientFrame").is_valid(lie)
    with pytest.raises(ValueError):
        client_frame.validate_python(lie)


def test_a_client_may_meet_fields_that_it_does_not_know() -> None:
    frame = {"type": "drain", "reconnect_after": 5, "from_the_future": True}
    assert validator("ServerFrame").is_valid(frame)


def test_every_frame_is_a_message_of_the_asyncapi_document() -> None:
    document = asyncapi()
    messages = document["components"]["messages"]
    assert {it["name"] for it in messages.values()} == set(CLIENT_FRAMES) | set(SERVER_FRAMES)
    for reference in references(document):
        at: Any = document
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in references(value)]
    return [ref for value in node for ref in references(value)] if isinstance(node, list) else []
