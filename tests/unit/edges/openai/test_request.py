"""The short way to read a request of OpenAI's: it reads what the long one would, or leaves it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.edges.http import json_object
from relay.edges.openai.request import InvalidRequest, read, read_plain_completion
from relay.protocol.chat import MAX_OUTPUT
from relay.protocol.codec import MAX_DEPTH
from relay.protocol.plainchat import MAX_PLAIN_CHARS

TURN = {"role": "user", "content": "hi"}
PLAIN: dict[str, Any] = {"model": "gpt", "messages": [TURN]}


def encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"max_tokens": 5, "max_completion_tokens": MAX_OUTPUT, "n": 1},
        {"messages": [{"role": "developer", "content": "short"}, TURN]},
        {"messages": [TURN, {"role": "assistant", "content": "yes", "refusal": None}, TURN]},
        {"temperature": 0.5, "metadata": {"a": ["b"]}, "user": "u"},
    ],
    ids=lambda more: ",".join(more) or "least",
)
def test_what_most_clients_send_is_read_here(more: dict[str, Any]) -> None:
    data = encoded(PLAIN | more)
    plain = read_plain_completion(data)
    assert plain is not None
    assert plain == read(json_object(data))


@pytest.mark.parametrize(
    "more",
    [
        {"model": ""},
        {"messages": []},
        {"messages": [{"role": "system", "content": "hi"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "tool", "content": "hi", "tool_call_id": "c"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"max_tokens": 0},
        {"max_tokens": MAX_OUTPUT + 1},
        {"n": 2},
        {"stop": "x"},
        {"tool_choice": "none"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"modalities": ["audio"]},
        {"metadata": [[]] * MAX_DEPTH},
        {"messages": [TURN | {"content": "x" * MAX_PLAIN_CHARS}]},
    ],
    ids=lambda more: ",".join(more),
)
def test_all_else_is_left_to_the_long_way(more: dict[str, Any]) -> None:
    assert read_plain_completion(encoded(PLAIN | more)) is None


_any = st.none() | st.booleans() | st.integers(-1, 3) | st.floats(0, 2) | st.text(max_size=4)
_turn = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool"])},
    optional={"content": _any, "tool_calls": st.none() | st.just([]), "tool_call_id": _any},
)
_body = st.fixed_dictionaries(
    {"messages": st.lists(_turn, max_size=3) | _any},
    optional=dict.fromkeys(
        ["model", "stream", "max_tokens", "max_completion_tokens", "n", "stop", "tool_choice"], _any
    )
    | {"modalities": st.none() | st.just([]) | st.just(["text"]), "tools": st.just([])},
)


@given(_body)
def test_both_ways_agree_on_whatever_is_read_here(fields: dict[str, Any]) -> None:
    data = encoded({"model": "gpt"} | fields)
    plain = read_plain_completion(data)
    if plain is None:
        return
    try:
        assert plain == read(json_object(data))
    except InvalidRequest as error:
        raise AssertionError("the long way refuses it") from error
