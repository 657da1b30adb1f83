"""What the Python client's session has beyond the cases of every client, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.answer import Answer, ConnectionFailed
from relay.client.session import (
    MAX_ASKS,
    MAX_DELAY,
    OpenLink,
    SendOnLink,
    Session,
    SessionAction,
    backoff,
)

SECRET = "x" * 32
REQUEST = {"messages": [{"role": "user", "content": "hi"}]}
START = {"type": "start", "id": "a", "seq": 0, "stream": "s", "provider": "claude", "model": "m"}
DONE = {"type": "done", "id": "a", "provider": "claude", "model": "m", "finish_reason": "stop"}


def token(seq: int, text: str = "x") -> dict[str, Any]:
    return {"type": "token", "id": "a", "seq": seq, "text": text}


def begun(last: int = -1) -> tuple[Session, Answer]:
    session, answer = Session(SECRET), Answer("a", REQUEST)
    session.add(answer)
    session.opened(1)
    for seq in range(last + 1):
        session.received(1, token(seq) if seq else START)
    return session, answer


def test_an_id_under_way_is_refused() -> None:
    session, _ = begun()
    with pytest.raises(ValueError, match="already running"):
        session.add(Answer("a", REQUEST))


def test_giving_up_fails_what_waits_and_the_next_chat_connects_again() -> None:
    session, answer = begun(last=1)
    session.closed(1)
    session.give_up(ConnectionFailed("unreachable", "gone"))
    assert isinstance(answer.failure, ConnectionFailed)
    assert isinstance(session.add(Answer("b", REQUEST))[0], OpenLink)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_stay_within_their_bounds(attempt: int, random: float) -> None:
    assert 0.2 <= backoff(attempt, random) <= MAX_DELAY


@given(st.data())
def test_whatever_is_cut_lost_or_repeated_the_text_is_whole(data: st.DataObject) -> None:
    log = [START, *(token(seq, f"{seq} ") for seq in range(1, 15)), {**DONE, "seq": 15}]
    wire = _Wire(log)
    answer = Answer("a", REQUEST)
    wire.obey(wire.session.add(answer))
    faults = 0
    while not answer.finished:
        fate = (
            data.draw(st.sampled_from(["ok", "twice", "lost", "cut"]))
            if faults < MAX_ASKS
            else "ok"
        )
        faults += fate != "ok"
        wire.step(fate)
    assert answer.text == "".join(f"{seq} " for seq in range(1, 15))


class _Wire:
    """A server with a log, and a wire to it that loses, repeats and breaks."""

    def __init__(self, log: list[dict[str, Any]]) -> None:
        self.log, self.link, self.cursor = log, 0, 0
        self.session = Session(SECRET)

    def obey(self, actions: list[SessionAction]) -> None:
        for action in actions:
            match action:
                case OpenLink():
                    self.link, self.cursor = self.link + 1, len(self.log)
                    self.obey(self.session.opened(self.link))
                case SendOnLink(_, {"type": "hello", "resume": {"a": last}}):
                    self.cursor = last + 1
                case SendOnLink(_, {"type": "chat"}):
                    self.cursor = 0
                case SendOnLink(_, {"type": "resume", "after": last}):
                    self.cursor = last + 1

    def step(self, fate: str) -> None:
        frame = self.log[min(self.cursor, len(self.log) - 1)]
        self.cursor += 1
        if fate == "cut":
            return self.obey(self.session.closed(self.link))
        for _ in range({"ok": 1, "twice": 2, "lost": 0}[fate]):
            self.obey(self.session.received(self.link, frame))
        return None
