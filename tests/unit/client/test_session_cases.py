"""The Python client's session on the cases that every client's session has to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relay.client.answer import Answer
from relay.client.session import (
    CloseLink,
    OpenLink,
    Problem,
    Ready,
    SendOnLink,
    Session,
    SessionAction,
    Stop,
    Tell,
    after_close,
    backoff,
    close_error,
    judge_silence,
)

TABLE = json.loads((Path(__file__).parents[2] / "cases" / "session_cases.json").read_text("utf-8"))


def plain(action: SessionAction) -> list[Any]:
    """An action as the table has it."""
    match action:
        case SendOnLink(link, frame):
            return ["send", link, frame]
        case OpenLink(attempt, None):
            return ["open", "attempt", attempt]
        case OpenLink(_, delay):
            return ["open", "delay", delay * 1000]
        case CloseLink(link):
            return ["close", link]
        case Tell(answer, event):
            return ["tell", answer.id, event.frame["type"] if event else "error"]
        case Ready(frame):
            return ["ready", frame]
        case Problem(failure):
            return ["problem", failure.frame]
        case Stop(code, failure):
            return ["stop", code, failure.code]


def status(answer: Answer) -> str:
    if answer.finished:
        return "done" if answer.done else "error"
    return "waiting" if answer.last < 0 else "streaming"


def seen(answer: Answer) -> dict[str, Any]:
    """What the table may say of an answer."""
    fields = ("last", "stream", "provider", "model", "text", "reasoning")
    said = {name: getattr(answer, name) for name in fields} | {"status": status(answer)}
    said["tool_calls"] = [
        {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
        for call in answer.tool_calls
    ]
    if done := answer.done:
        said |= {"finish_reason": done.finish_reason, "usage": done.usage}
    if failure := answer.failure:
        names = ("code", "message", "retryable", "retry_after")
        said["error"] = {name: getattr(failure, name) for name in names}
    return said


def within(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Of what was found, what the table names."""
    return {
        name: within(value, found[name]) if name == "error" and name in found else found.get(name)
        for name, value in wanted.items()
    }


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"])
def test_a_session_does_what_the_case_says(case: dict[str, Any]) -> None:
    session = Session(TABLE["secret"], case.get("token"))
    answers: dict[str, Answer] = {}
    for step in TABLE["preludes"][case.get("after", "nothing")] + case["steps"]:
        call, *given = step["do"]
        if call == "add":
            given = [answers.setdefault(given[0], Answer(given[0], TABLE["request"]))]
        for _ in range(step.get("repeat", 1)):
            did = [plain(action) for action in getattr(session, call)(*given)]
            assert did == step.get("expect", did), step
    for id, wanted in case["answers"].items():
        assert within(wanted, seen(answers[id])) == wanted, id


def test_close_codes_say_whether_to_come_back() -> None:
    for rule, codes in TABLE["after_close"].items():
        assert {code: after_close(code) for code in codes} == dict.fromkeys(codes, rule)


def test_a_close_for_good_has_an_error_code() -> None:
    for code, error in TABLE["close_errors"]:
        failure = close_error(code)
        assert (failure.code, failure.retryable) == (error, False), code


@pytest.mark.parametrize(("attempt", "random", "milliseconds"), TABLE["backoff"])
def test_delays_are_those_of_the_table(attempt: int, random: float, milliseconds: int) -> None:
    assert backoff(attempt, random) * 1000 == pytest.approx(milliseconds)


@pytest.mark.parametrize(("silent", "verdict"), TABLE["silence"]["verdicts"])
def test_silence_is_judged_as_in_the_table(silent: int, verdict: str) -> None:
    assert judge_silence(silent / 1000, TABLE["silence"]["heartbeat"] / 1000) == verdict
