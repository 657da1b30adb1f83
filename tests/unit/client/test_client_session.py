"""The client's rules over any number of connections."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.answer import Answer, ConnectionFailed
from relay.client.session import (
    MAX_ASKS,
    MAX_DELAY,
    Action,
    Close,
    Open,
    Problem,
    Ready,
    Send,
    Session,
    Stop,
    Tell,
    after_close,
    backoff,
    judge_silence,
)

SECRET = "x" * 32
REQUEST = {"messages": [{"role": "user", "content": "hi"}]}
START = {"type": "start", "id": "a", "seq": 0, "stream": "s", "provider": "claude", "model": "m"}
DONE = {"type": "done", "id": "a", "provider": "claude", "model": "m", "finish_reason": "stop"}
CHAT = {**REQUEST, "type": "chat", "id": "a"}


def token(seq: int, text: str = "x") -> dict[str, Any]:
    return {"type": "token", "id": "a", "seq": seq, "text": text}


def sent(actions: list[Action]) -> list[dict[str, Any]]:
    return [action.frame for action in actions if isinstance(action, Send)]


def begun(last: int = -1) -> tuple[Session, Answer]:
    session, answer = Session(SECRET), Answer("a", REQUEST)
    session.add(answer)
    session.opened(1)
    for seq in range(last + 1):
        session.received(1, token(seq) if seq else START)
    return session, answer


def test_a_chat_waits_for_the_connection_and_goes_right_behind_hello() -> None:
    session = Session(SECRET, "token")
    assert session.add(Answer("a", REQUEST)) == [Open(attempt=0)]
    hello = {"type": "hello", "session": SECRET, "token": "token"}
    assert sent(session.opened(1)) == [hello, CHAT]


def test_an_id_under_way_is_refused() -> None:
    session, _ = begun()
    with pytest.raises(ValueError, match="under way"):
        session.add(Answer("a", REQUEST))


def test_one_connection_is_opened_however_many_chats_wait() -> None:
    session = Session(SECRET)
    session.connect()
    assert session.add(Answer("a", REQUEST)) == []


def test_a_gap_asks_once_until_something_is_applied() -> None:
    session, _ = begun(last=1)
    assert sent(session.received(1, token(3))) == [{"type": "resume", "id": "a", "after": 1}]
    assert session.received(1, token(4)) == []
    session.received(1, token(2))
    assert sent(session.received(1, token(9))) == [{"type": "resume", "id": "a", "after": 2}]


def test_a_hole_that_stays_ends_the_answer_instead_of_asking_for_ever() -> None:
    session, answer = begun(last=1)
    asks = [sent(session.received(1, {**DONE, "seq": 9})) for _ in range(MAX_ASKS)]
    assert all(asks)
    assert not answer.finished
    assert sent(session.received(1, {**DONE, "seq": 9})) == []
    assert answer.failure is not None
    assert answer.failure.code == "stream_expired"


def test_after_a_drop_what_began_is_resumed_and_the_rest_sent_again() -> None:
    session, _ = begun(last=1)
    session.add(Answer("b", REQUEST))
    assert session.closed(1) == [Open(attempt=0)]
    hello = {"type": "hello", "session": SECRET, "resume": {"a": 1}}
    assert sent(session.opened(2)) == [hello, {**CHAT, "id": "b"}]


def test_an_answer_that_the_server_lost_fails() -> None:
    session, answer = begun(last=1)
    session.closed(1)
    session.opened(2)
    frame = {"type": "ready", "resumed": False}
    assert session.received(2, frame) == [Ready(frame), Tell(answer, None)]
    assert answer.failure is not None
    assert (answer.failure.code, answer.failure.retryable) == ("stream_expired", True)


def test_cancel_is_sent_once_and_again_after_a_drop() -> None:
    session, _ = begun(last=1)
    cancel = {"type": "cancel", "id": "a"}
    assert sent(session.cancel("a")) == [cancel]
    assert session.cancel("a") == []
    session.closed(1)
    assert sent(session.opened(2))[-1] == cancel


def test_a_chat_that_was_never_sent_is_cancelled_here() -> None:
    session, answer = Session(SECRET), Answer("a", REQUEST)
    session.add(answer)
    session.cancel("a")
    assert answer.done is not None
    assert answer.done.finish_reason == "cancelled"
    assert len(sent(session.opened(1))) == 1


def test_drain_takes_chats_to_come_elsewhere_and_ends_the_empty_connection() -> None:
    session, answer = begun(last=1)
    assert session.received(1, {"type": "drain", "reconnect_after": 700}) == [Open(delay=0.7)]
    assert session.add(Answer("b", REQUEST)) == []
    assert [frame["type"] for frame in sent(session.opened(2))] == ["hello", "chat"]
    assert session.received(1, {**DONE, "seq": 2}) == [Tell(answer, answer.done), Close(1)]
    assert session.closed(1, 1000) == []


def test_a_draining_connection_that_breaks_hands_its_chats_over() -> None:
    session, _ = begun(last=1)
    session.received(1, {"type": "drain", "reconnect_after": 0})
    session.opened(2)
    assert session.closed(1, 1012) == [Send(2, {"type": "resume", "id": "a", "after": 1})]


def test_a_chat_refused_as_draining_is_asked_of_the_next_connection() -> None:
    session, answer = begun()
    refused = {"type": "error", "id": "a", "code": "draining", "message": "", "retry_after": 2}
    assert session.received(1, refused) == [Open(delay=2)]
    assert CHAT in sent(session.opened(2))
    assert not answer.finished


def test_another_refusal_ends_the_chat() -> None:
    session, answer = begun()
    session.received(1, {"type": "error", "id": "a", "code": "rate_limited", "message": "slow"})
    assert answer.failure is not None
    assert answer.failure.code == "rate_limited"


def test_an_error_of_no_chat_is_a_problem() -> None:
    session, answer = begun()
    (action,) = session.received(1, {"type": "error", "code": "bad_frame", "message": "x"})
    assert isinstance(action, Problem)
    assert not answer.finished


def test_a_close_for_good_fails_the_chats_and_the_next_chat_connects_again() -> None:
    session, answer = begun(last=1)
    stop, tell = session.closed(1, 4401)
    assert isinstance(stop, Stop)
    assert tell == Tell(answer, None)
    assert session.add(Answer("b", REQUEST)) == [Open(attempt=0)]


def test_giving_up_fails_what_waits_and_the_next_chat_connects_again() -> None:
    session, answer = begun(last=1)
    session.closed(1)
    session.give_up(ConnectionFailed("unreachable", "gone"))
    assert isinstance(answer.failure, ConnectionFailed)
    assert isinstance(session.add(Answer("b", REQUEST))[0], Open)


@pytest.mark.parametrize(
    ("code", "rule"),
    [(code, "reconnect") for code in (1000, 1001, 1006, 1012, 4399)]
    + [(code, "back_off") for code in (4429, 4500)]
    + [(code, "stop") for code in (1009, 4400, 4401, 4403, 4406, 4408)],
)
def test_close_codes_say_whether_to_come_back(code: int, rule: str) -> None:
    assert after_close(code) == rule


def test_tries_grow_apart_until_something_comes() -> None:
    session = Session(SECRET)
    session.connect()
    assert [session.closed(link) for link in (1, 2)] == [[Open(0)], [Open(1)]]
    assert session.closed(3, 4429) == [Open(3)]
    session.opened(4)
    session.received(4, {"type": "ping"})
    assert session.closed(4) == [Open(0)]


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_stay_within_their_bounds(attempt: int, random: float) -> None:
    assert 0.2 <= backoff(attempt, random) <= MAX_DELAY


@pytest.mark.parametrize(
    ("silent", "verdict"), [(19.9, "fine"), (20, "ask"), (39.9, "ask"), (40, "dead")]
)
def test_silence_is_asked_after_one_heartbeat_and_dead_after_two(
    silent: float, verdict: str
) -> None:
    assert judge_silence(silent, 20) == verdict


def test_a_ping_is_answered_with_its_own_mark_only() -> None:
    session, _ = begun()
    frame = {"type": "ping", "t": 7, "to_come": 1}
    assert sent(session.received(1, frame)) == [{"type": "pong", "t": 7}]


@pytest.mark.parametrize("frame", [{"type": "to_come"}, {"x": 1}, {**START, "id": "b"}, {"seq": 0}])
def test_what_is_unknown_is_ignored(frame: dict[str, Any]) -> None:
    session, _ = begun()
    assert session.received(1, frame) == []


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

    def obey(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Open():
                    self.link, self.cursor = self.link + 1, len(self.log)
                    self.obey(self.session.opened(self.link))
                case Send(_, {"type": "hello", "resume": {"a": last}}):
                    self.cursor = last + 1
                case Send(_, {"type": "chat"}):
                    self.cursor = 0
                case Send(_, {"type": "resume", "after": last}):
                    self.cursor = last + 1

    def step(self, fate: str) -> None:
        frame = self.log[min(self.cursor, len(self.log) - 1)]
        self.cursor += 1
        if fate == "cut":
            return self.obey(self.session.closed(self.link))
        for _ in range({"ok": 1, "twice": 2, "lost": 0}[fate]):
            self.obey(self.session.received(self.link, frame))
        return None
