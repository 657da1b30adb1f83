from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from relay.core.errors import Code, RelayError, StreamExpired
from relay.protocol.actions import (
    AttachCursor,
    Cancel,
    CloseCode,
    CloseConnection,
    ConnectionAction,
    Find,
    Greet,
    LinkStream,
    OpenSession,
    Renew,
    SendFrame,
    StartChat,
)
from relay.protocol.connection import (
    MAX_STRIKES,
    RULES,
    ConnectionPhase,
    ConnectionRules,
    Input,
    Rule,
)
from relay.protocol.frames import ErrorFrame, PongFrame

SESSION = "s" * 22
HELLO = {"type": "hello"}
CHAT = {"type": "chat", "id": "a", "messages": "hi"}
EXPIRED = StreamExpired()


def connection(**options: Any) -> ConnectionRules:
    numbers = count()
    return ConnectionRules(new_id=lambda: f"made-{next(numbers)}", **options)


def say(rules: ConnectionRules, frame: Any) -> list[ConnectionAction]:
    return rules.receive(frame if isinstance(frame, str) else json.dumps(frame))


def opened(**options: Any) -> ConnectionRules:
    rules = connection(**options)
    say(rules, HELLO)
    rules.opened(SESSION, rules.subject, resumed=False)
    return rules


def error(actions: list[ConnectionAction]) -> ErrorFrame:
    send = actions[0]
    assert isinstance(send, SendFrame)
    assert isinstance(send.frame, ErrorFrame)
    return send.frame


def reading(rules: ConnectionRules, id: str = "a") -> ConnectionRules:
    say(rules, CHAT | {"id": id})
    rules.started(id, f"stream-{id}")
    return rules


# Greeting


def test_hello_opens_a_session_and_ready_answers_it() -> None:
    rules = connection()
    assert say(rules, HELLO) == [OpenSession(None, None)]
    assert rules.opened(SESSION, None, resumed=False) == [Greet(SESSION, False)]


def test_another_first_frame_is_answered_behind_ready() -> None:
    rules = connection()
    assert say(rules, {"type": "ping", "t": 1}) == [OpenSession(None, None)]
    assert rules.opened(SESSION, None, resumed=False) == [
        Greet(SESSION, False),
        SendFrame(PongFrame(type="pong", t=1)),
    ]


def test_a_faulty_first_frame_is_answered_behind_ready() -> None:
    rules = connection()
    assert say(rules, {"type": "nope"}) == [OpenSession(None, None)]
    greet, *rest = rules.opened(SESSION, None, resumed=False)
    assert greet == Greet(SESSION, False)
    assert error(rest).code == "bad_frame"


def test_a_faulty_hello_may_be_put_right() -> None:
    rules = connection()
    assert error(say(rules, HELLO | {"session": "short"})).code == "bad_frame"
    assert rules.phase is ConnectionPhase.FRESH
    assert say(rules, HELLO | {"session": SESSION}) == [OpenSession(SESSION, None)]


def test_frames_that_come_while_the_session_is_opened_are_held_in_order() -> None:
    rules = connection()
    say(rules, HELLO)
    assert say(rules, CHAT) == []
    assert say(rules, {"type": "cancel", "id": "a"}) == []
    actions = rules.opened(SESSION, None, resumed=False)
    assert [type(action) for action in actions] == [Greet, StartChat, Cancel]


def test_a_resumed_session_takes_up_the_streams_it_names() -> None:
    rules = connection()
    say(rules, HELLO | {"session": SESSION, "resume": {"a": 4, "b": -1}})
    assert rules.opened(SESSION, None, resumed=True) == [
        Greet(SESSION, True),
        Find("a", 4),
        Find("b", -1),
    ]


def test_a_later_hello_only_renews_the_token() -> None:
    rules = opened(subject="alice")
    assert say(rules, HELLO | {"token": "t2"}) == [Renew("t2")]
    assert rules.renewed("alice") == [Greet(SESSION, False)]


def test_a_later_hello_without_anything_is_answered_by_ready() -> None:
    assert say(opened(), HELLO) == [Greet(SESSION, False)]


@pytest.mark.parametrize("extra", [{"session": SESSION}, {"session": SESSION, "resume": {"a": 1}}])
def test_a_later_hello_cannot_take_up_a_session(extra: dict[str, Any]) -> None:
    rules = opened()
    assert error(say(rules, HELLO | extra)).code == "bad_frame"
    assert rules.phase is ConnectionPhase.OPEN


def test_a_renewed_token_of_somebody_else_ends_the_connection() -> None:
    rules = opened(subject="alice")
    actions = rules.renewed("bob")
    assert error(actions).code == "forbidden"
    assert actions[1] == CloseConnection(CloseCode.FORBIDDEN, "forbidden")


# Tokens


@pytest.mark.parametrize(
    "frame", [CHAT, {"type": "ping"}, {"type": "nope"}, {"type": "cancel", "id": "a"}]
)
def test_where_a_token_is_due_nothing_comes_before_hello(frame: dict[str, Any]) -> None:
    rules = connection(token_required=True)
    actions = say(rules, frame)
    assert error(actions).code == "unauthorized"
    assert actions[1] == CloseConnection(CloseCode.UNAUTHORIZED, "unauthorized")
    assert say(rules, HELLO) == []


@pytest.mark.parametrize(
    ("code", "close"),
    [
        (Code.UNAUTHORIZED, 4401),
        (Code.FORBIDDEN, 4403),
        (Code.RATE_LIMITED, 4429),
        (Code.DRAINING, 1012),
        (Code.INTERNAL, 4500),
    ],
)
def test_a_session_that_cannot_be_opened_closes_with_its_code(code: Code, close: int) -> None:
    rules = connection(token_required=True)
    assert say(rules, HELLO | {"token": "t"}) == [OpenSession(None, "t")]
    actions = rules.refused(RelayError(code, "no"))
    assert error(actions).code == code.value
    assert actions[1] == CloseConnection(CloseCode(close), code.value)


def test_a_hello_that_does_not_come_closes_with_4408() -> None:
    actions = connection(token_required=True).hello_late()
    assert error(actions).code == "unauthorized"
    assert actions[1] == CloseConnection(CloseCode.HELLO_LATE, "unauthorized")


def test_a_hello_that_came_is_not_late() -> None:
    rules = connection(token_required=True)
    say(rules, HELLO | {"token": "t"})
    assert rules.hello_late() == []
    rules.opened(SESSION, "alice", resumed=False)
    assert rules.hello_late() == []


# Strikes


def test_what_is_no_frame_is_told_so_until_the_last_strike_closes() -> None:
    rules = opened()
    for _ in range(MAX_STRIKES - 1):
        assert error(say(rules, "nonsense")).code == "bad_frame"
        assert rules.phase is ConnectionPhase.OPEN
    actions = rules.receive_binary()
    assert error(actions).code == "bad_frame"
    assert actions[1] == CloseConnection(CloseCode.NOT_A_FRAME, "bad_frame")


def test_a_frame_takes_strikes_away_also_a_faulty_one() -> None:
    rules = opened()
    for frame in ["x", "[]", {"type": "nope"}] * MAX_STRIKES:
        say(rules, frame)
    assert rules.phase is ConnectionPhase.OPEN


def test_noise_alone_is_no_reason_to_open_a_session() -> None:
    rules = connection()
    assert error(say(rules, "nonsense")).code == "bad_frame"
    assert rules.phase is ConnectionPhase.FRESH


# Streams


def test_a_chat_is_started_then_read_from_its_beginning() -> None:
    rules = opened()
    (start,) = say(rules, CHAT)
    assert isinstance(start, StartChat)
    assert start.id == "a"
    assert rules.started("a", "st") == [AttachCursor("a", "st", -1, True)]


def test_a_chat_without_an_id_gets_one() -> None:
    (start,) = say(opened(), {"type": "chat", "messages": "hi"})
    assert isinstance(start, StartChat)
    assert start.id == "made-0"


def test_a_chat_that_is_read_here_already_changes_nothing() -> None:
    rules = reading(opened())
    assert [type(action) for action in say(rules, CHAT)] == [StartChat]
    assert rules.started("a", "stream-a") == []


def test_a_chat_whose_answer_was_sent_whole_is_read_again_from_its_beginning() -> None:
    rules = reading(opened())
    rules.detached("a")
    say(rules, CHAT)
    assert rules.started("a", "stream-a") == [AttachCursor("a", "stream-a", -1, True)]


def test_a_resume_moves_a_reader_that_is_there() -> None:
    rules = reading(opened())
    assert say(rules, {"type": "resume", "id": "a", "after": 3}) == [Find("a", 3)]
    assert rules.found("a", "stream-a", 3) == [AttachCursor("a", "stream-a", 3, False)]


def test_a_resume_that_fails_leaves_the_reader_that_was_there() -> None:
    rules = reading(opened())
    say(rules, {"type": "resume", "id": "a", "after": 99})
    (attach,) = rules.found("a", "stream-a", 99)
    assert isinstance(attach, AttachCursor)
    rules.failed(attach, RelayError(Code.BAD_REQUEST, "never reached"))
    assert rules.started("a", "stream-a") == []


def test_a_first_reader_that_fails_is_none() -> None:
    rules = opened()
    (attach,) = rules.found("a", "st", 99)
    assert isinstance(attach, AttachCursor)
    assert error(rules.failed(attach, EXPIRED)).id == "a"
    assert rules.found("a", "st", 0) == [AttachCursor("a", "st", 0, True)]


@pytest.mark.parametrize(
    ("frame", "action", "told_id"),
    [
        ({"id": "a", "after": 1}, Find("a", 1), "a"),
        ({"stream": "st", "after": 1}, LinkStream(None, "st", None, 1), "st"),
        ({"stream": "st", "id": "b"}, LinkStream("b", "st", None, -1), "b"),
        ({"conversation": "t"}, LinkStream(None, None, "t", -1), None),
        ({"conversation": "t", "id": "b"}, LinkStream("b", None, "t", -1), "b"),
    ],
)
def test_each_way_to_resume_leads_to_its_action_and_its_own_error(
    frame: dict[str, Any], action: Find | LinkStream, told_id: str | None
) -> None:
    rules = opened()
    assert say(rules, {"type": "resume"} | frame) == [action]
    told = error(rules.failed(action, EXPIRED))
    assert (told.code, told.id, told.seq) == ("stream_expired", told_id, None)


def test_cancel_of_an_unknown_stream_is_told_as_expired() -> None:
    rules = opened()
    assert say(rules, {"type": "cancel", "id": "zz"}) == [Cancel("zz")]
    assert error(rules.failed(Cancel("zz"), EXPIRED)).code == "stream_expired"


def test_a_connection_reads_so_many_streams_and_no_more() -> None:
    rules = opened(max_readers=2)
    reading(reading(rules, "a"), "b")
    told = error(say(rules, CHAT | {"id": "c"}))
    assert (told.code, told.id, told.retryable) == ("too_many_streams", "c", True)
    assert error(say(rules, {"type": "resume", "stream": "x"})).code == "too_many_streams"
    assert say(rules, {"type": "resume", "id": "a"}) == [Find("a", -1)]
    rules.detached("b")
    assert [type(action) for action in say(rules, CHAT | {"id": "c"})] == [StartChat]


def test_a_frame_that_is_refused_names_its_stream() -> None:
    told = error(say(opened(), CHAT | {"zz": 1}))
    assert (told.code, told.id, told.seq) == ("bad_frame", "a", None)


def test_ping_is_answered_and_pong_is_not() -> None:
    rules = opened()
    assert say(rules, {"type": "ping", "t": "x"}) == [SendFrame(PongFrame(type="pong", t="x"))]
    assert say(rules, {"type": "pong"}) == []


def test_after_the_end_nothing_leads_to_anything() -> None:
    rules = reading(opened())
    rules.ended()
    assert say(rules, CHAT) == []
    assert rules.receive_binary() == []
    assert rules.hello_late() == []


def test_the_table_is_whole() -> None:
    assert set(RULES) == set(ConnectionPhase)
    for row in RULES.values():
        assert set(row) == set(Input)
        assert all(isinstance(rule, Rule) for rule in row.values())
