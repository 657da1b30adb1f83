"""What one answer makes of its frames."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay.client.answer import Answer, Reasoning, Start, Text, ToolCall

START = {"type": "start", "seq": 0, "stream": "s", "provider": "claude", "model": "m"}


def token(seq: int, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "token", "seq": seq, "text": text, **more}


def begun(*texts: str) -> Answer:
    answer = Answer("a", {})
    answer.apply(START)
    for seq, text in enumerate(texts, 1):
        answer.apply(token(seq, text))
    return answer


def test_each_frame_becomes_its_event() -> None:
    answer = Answer("a", {})
    call = {"type": "tool_call", "seq": 3, "call_id": "c", "name": "f", "arguments": {"x": 1}}
    assert answer.apply(START) == ("applied", Start("s", "claude", "m"))
    assert answer.apply({**token(1, "hm"), "type": "reasoning"}) == ("applied", Reasoning("hm"))
    assert answer.apply(token(2, "hi")) == ("applied", Text("hi"))
    assert answer.apply(call) == ("applied", ToolCall("c", "f", {"x": 1}))
    assert (answer.text, answer.reasoning, answer.tool_calls[0].name) == ("hi", "hm", "f")


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
