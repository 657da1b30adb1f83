from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from relay.core.errors import Code
from relay.core.events import FinishReason
from relay.protocol import frames
from relay.protocol.frames import (
    CLIENT_FRAMES,
    MAX_RESUMED,
    MAX_SEQ,
    MAX_TOKEN_CHARS,
    SERVER_FRAMES,
)
from tests.frames import client_frame

SESSION = "s" * 22


def accepted(frame: dict[str, Any]) -> bool:
    try:
        client_frame.validate_python(frame)
    except ValidationError:
        return False
    return True


def test_the_contract_names_these_frames() -> None:
    assert set(CLIENT_FRAMES) == {"hello", "chat", "cancel", "resume", "ping", "pong"}
    assert set(SERVER_FRAMES) == {
        *("ready", "start", "token", "reasoning", "tool_call", "fallback"),
        *("done", "error", "pong", "ping", "drain"),
    }


def test_tags_have_no_default_so_that_generated_types_demand_them() -> None:
    for model in [*CLIENT_FRAMES.values(), *SERVER_FRAMES.values()]:
        assert model.model_fields["type"].is_required()


def test_the_frames_know_every_error_code_and_finish_reason() -> None:
    assert set(get_args(frames.ErrorCode)) == {code.value for code in Code}
    reasons = frames.DoneFrame.model_fields["finish_reason"].annotation
    assert set(get_args(reasons)) == {reason.value for reason in FinishReason}


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "hello"},
        {"type": "hello", "token": "t", "session": SESSION, "resume": {"a": 3, "b": -1}},
        {"type": "hello", "token": None, "session": None, "resume": None},
        {"type": "chat", "messages": "hi"},
        {"type": "cancel", "id": "a.B-c_9"},
        {"type": "resume", "id": "a", "after": 5},
        {"type": "resume", "id": "a"},
        {"type": "resume", "stream": "xyz", "after": -1},
        {"type": "resume", "conversation": "talk", "id": "b"},
        {"type": "ping"},
        {"type": "ping", "t": 1.5},
        {"type": "pong", "t": "x"},
    ],
)
def test_these_are_frames(frame: dict[str, Any]) -> None:
    assert accepted(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "hello", "resume": {"a": 1}},
        {"type": "hello", "session": "short"},
        {"type": "hello", "session": SESSION, "resume": {"a b": 1}},
        {"type": "hello", "session": SESSION, "resume": {"a": "1"}},
        {"type": "hello", "session": SESSION, "resume": {"a": -2}},
        {"type": "cancel"},
        {"type": "cancel", "id": "a", "after": 1},
        {"type": "resume"},
        {"type": "resume", "stream": "x", "conversation": "y"},
        {"type": "resume", "id": "a", "after": 1.5},
        {"type": "ping", "t": []},
        {"type": "ping", "t": True},
        {"type": "start", "id": "a", "seq": 0},
        {},
    ],
)
def test_these_are_not(frame: dict[str, Any]) -> None:
    assert not accepted(frame)


@pytest.mark.parametrize(
    ("at_the_limit", "beyond"),
    [
        ({"session": "s" * 22}, {"session": "s" * 21}),
        ({"session": "s" * 64}, {"session": "s" * 65}),
        ({"token": "t" * MAX_TOKEN_CHARS}, {"token": "t" * (MAX_TOKEN_CHARS + 1)}),
        (
            {"session": SESSION, "resume": {str(n): 0 for n in range(MAX_RESUMED)}},
            {"session": SESSION, "resume": {str(n): 0 for n in range(MAX_RESUMED + 1)}},
        ),
        (
            {"session": SESSION, "resume": {"a": MAX_SEQ}},
            {"session": SESSION, "resume": {"a": MAX_SEQ + 1}},
        ),
    ],
)
def test_each_limit_of_hello_holds_at_its_edge(at_the_limit: Any, beyond: Any) -> None:
    assert accepted({"type": "hello"} | at_the_limit)
    assert not accepted({"type": "hello"} | beyond)
