"""The short way to read a chat: it reads what the schema would, or leaves it to that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.request import ChatRequest, Turn
from relay.edges.relay_v1.sse import _read_by_schema as read_body_by_schema
from relay.protocol.chat import MAX_MESSAGES, MAX_NAME_CHARS, MAX_OUTPUT
from relay.protocol.codec import read_by_schema
from relay.protocol.plainchat import MAX_PLAIN_CHARS, read_plain_body, read_plain_frame

PLAIN: dict[str, Any] = {"type": "chat", "id": "a", "messages": "hi"}


def turn(role: str = "user", content: str = "hi", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": [turn()]},
        {"messages": [turn("system"), turn(), turn("assistant"), turn()]},
        {"messages": [turn()] * MAX_MESSAGES},
        {"provider": "p" * MAX_NAME_CHARS, "conversation": "c"},
        {"system": "", "max_tokens": MAX_OUTPUT, "fallback": False},
        {"id": None, "provider": None, "system": None, "max_tokens": None, "fallback": None},
        {"id": "x" * 64},
    ],
    ids=lambda fields: ",".join(fields) or "least",
)
def test_a_plain_chat_is_read_as_the_schema_reads_it(fields: dict[str, Any]) -> None:
    text = json.dumps(PLAIN | fields, separators=(",", ":"))
    assert len(text) <= MAX_PLAIN_CHARS
    assert read_plain_frame(text) == read_by_schema(text)


def test_what_is_read_is_what_was_asked() -> None:
    asked = read_plain_frame(json.dumps(PLAIN | {"provider": "gpt", "max_tokens": 7}))
    assert asked is not None
    assert asked.id == "a"
    assert asked.request == ChatRequest("gpt", (Turn("user", "hi"),), max_tokens=7)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "ping"},
        {"id": "a\n"},
        {"id": ""},
        {"id": "x" * 65},
        {"messages": ""},
        {"messages": []},
        {"messages": [turn("system")]},
        {"messages": [turn(content="")]},
        {"messages": [turn("tool")]},
        {"messages": [turn(call_id="c")]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [turn()] * (MAX_MESSAGES + 1)},
        {"provider": "p" * (MAX_NAME_CHARS + 1)},
        {"max_tokens": 0},
        {"max_tokens": 5.0},
        {"max_tokens": MAX_OUTPUT + 1},
        {"fallback": 1},
        {"model": "gpt"},
        {"stop": ["x"]},
        {"messages": "x" * MAX_PLAIN_CHARS},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_whatever_else_comes_is_left_to_the_schema(fields: dict[str, Any]) -> None:
    assert read_plain_frame(json.dumps(PLAIN | fields)) is None


@pytest.mark.parametrize("text", ["", '"chat"', '["chat"]', '{"type":"chat"', '{"chat":1}'])
def test_what_is_no_chat_at_all_is_left_too(text: str) -> None:
    assert read_plain_frame(text) is None


_short = st.text(max_size=6) | st.sampled_from(["a", "a\n", "\ud7ff", "x" * 65, "c" * 129])
_any = st.none() | st.booleans() | st.integers(-1, 3) | st.floats(0, 2) | _short
_turn = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "User"]), "content": _any},
    optional={"call_id": _any, "tool_calls": st.none() | st.just([]), "name": _any},
)
_chat = st.fixed_dictionaries(
    {"type": st.sampled_from(["chat"] * 9 + ["cancel"])},
    optional={
        "messages": _short | st.lists(_turn, max_size=3) | _any,
        **dict.fromkeys(["id", "provider", "system", "max_tokens", "conversation"], _any),
        **dict.fromkeys(["fallback", "model", "stop", "tools"], _any),
    },
)


@given(_chat)
def test_both_ways_agree_on_whatever_is_read_here(chat: dict[str, Any]) -> None:
    text = json.dumps(chat)
    plain = read_plain_frame(text)
    if plain is not None:
        assert plain == read_by_schema(text)


@given(_chat)
def test_a_body_is_read_as_the_schema_reads_it_or_not_at_all(chat: dict[str, Any]) -> None:
    fields = {name: value for name, value in chat.items() if name != "type"}
    body = json.dumps(fields).encode()
    plain = read_plain_body(body, "gpt")
    if plain is not None:
        assert plain == read_body_by_schema(body, "gpt")


@pytest.mark.parametrize(
    "more",
    [{}, {"stream": True, "model": "gpt-4o"}, {"id": "a", "provider": "p", "max_tokens": 7}],
    ids=lambda more: ",".join(more) or "least",
)
def test_a_plain_body_is_read_here(more: dict[str, Any]) -> None:
    body = json.dumps({"messages": [turn()], **more}).encode()
    plain = read_plain_body(body, "gpt")
    assert plain is not None
    assert plain == read_body_by_schema(body, "gpt")
    assert plain.request.provider == "gpt"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"messages":"\xff"}',
        b'{"messages":"hi","model":[]}',
        b'{"messages":"hi","type":"chat"}',
        b'{"messages":"' + b"x" * MAX_PLAIN_CHARS + b'"}',
    ],
    ids=["empty", "a list", "not UTF-8", "a model that is no name", "a field too many", "long"],
)
def test_a_body_that_is_not_plain_is_left_to_the_schema(body: bytes) -> None:
    assert read_plain_body(body, "gpt") is None
