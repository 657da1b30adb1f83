"""What one answer makes of its frames."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.answer import Answer, Done, Fallback, Reasoning, Start, Text, ToolCall

START = {"type": "start", "seq": 0, "stream": "s", "provider": "claude", "model": "m"}


def token(seq: int, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "token", "seq": seq, "text": text, **more}


def begun(*texts: str) -> Answer:
    answer = Answer("a", {})
    answer.apply(START)
    for seq, text in enumerate(texts, 1):
        answer.apply(token(seq, text))
    return answer


def fallback(seq: int, *, keep: bool) -> dict[str, Any]:
    return {
        "type": "fallback",
        "seq": seq,
        "from": {"provider": "x", "model": "x1"},
        "to": {"provider": "y", "model": "y1"},
        "reason": "provider_timeout",
        "keep": keep,
    }


def test_each_frame_becomes_its_event() -> None:
    answer = Answer("a", {})
    call = {"type": "tool_call", "seq": 3, "call_id": "c", "name": "f", "arguments": {"x": 1}}
    assert answer.apply(START) == ("applied", Start("s", "claude", "m"))
    assert answer.apply({**token(1, "hm"), "type": "reasoning"}) == ("applied", Reasoning("hm"))
    assert answer.apply(token(2, "hi")) == ("applied", Text("hi"))
    assert answer.apply(call) == ("applied", ToolCall("c", "f", {"x": 1}))
    assert (answer.text, answer.reasoning, answer.tool_calls[0].name) == ("hi", "hm", "f")


def test_done_ends_it_and_names_the_model_that_answered() -> None:
    answer = begun("hi")
    done = {"type": "done", "seq": 2, "provider": "gpt", "model": "n", "finish_reason": "stop"}
    _, event = answer.apply(done)
    assert isinstance(event, Done)
    assert (answer.finished, answer.provider, answer.model) == (True, "gpt", "n")
    assert answer.apply(token(3, "late")) == ("dropped", None)


def test_an_error_ends_it_with_its_failure() -> None:
    answer = begun("hi")
    answer.apply({"type": "error", "seq": 2, "code": "internal", "message": "x", "retryable": True})
    assert answer.failure is not None
    assert (answer.failure.code, answer.failure.retryable) == ("internal", True)


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_what_is_known_is_dropped(seq: int) -> None:
    answer = begun("a", "b")
    assert answer.apply(token(seq, "x")) == ("dropped", None)
    assert answer.text == "ab"


@pytest.mark.parametrize("frame", [token(4, "x"), token(5, "x", first=4), token(4, "x", first=2)])
def test_a_hole_or_a_frame_astride_changes_nothing(frame: dict[str, Any]) -> None:
    answer = begun("a", "b")
    assert answer.apply(frame) == ("gap", None)
    assert (answer.last, answer.text) == (2, "ab")


def test_fallback_without_keep_discards_and_with_keep_goes_on() -> None:
    answer = begun("a")
    _, event = answer.apply(fallback(2, keep=True))
    assert isinstance(event, Fallback)
    answer.apply(token(3, "b"))
    assert (answer.text, answer.model) == ("ab", "y1")
    answer.apply(fallback(4, keep=False))
    answer.apply(token(5, "c"))
    assert answer.text == "c"


def test_a_numbered_frame_of_an_unknown_type_counts_and_says_nothing() -> None:
    answer = begun("a")
    assert answer.apply({"type": "to_come", "seq": 2}) == ("applied", None)
    answer.apply(token(3, "b"))
    assert answer.text == "ab"


@given(
    pieces=st.lists(st.text(min_size=1), min_size=1, max_size=12),
    ends=st.lists(st.integers(0, 11)),
    repeats=st.lists(st.booleans(), max_size=12),
)
def test_however_frames_are_merged_or_repeated_the_text_is_the_same(
    pieces: list[str], ends: list[int], repeats: list[bool]
) -> None:
    answer = begun()
    bounds = sorted({end for end in ends if end < len(pieces)} | {len(pieces) - 1})
    first = 0
    for index, last in enumerate(bounds):
        frame = token(last + 1, "".join(pieces[first : last + 1]), first=first + 1)
        assert answer.apply(frame)[0] == "applied"
        if index < len(repeats) and repeats[index]:
            assert answer.apply(frame)[0] == "dropped"
        first = last + 1
    assert answer.text == "".join(pieces)
