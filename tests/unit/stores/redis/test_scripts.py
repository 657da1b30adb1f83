"""What the Lua scripts answer is decoded in one place, which knows of every answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.stores.redis import keys, scripts
from relay.stores.redis.scripts import (
    ClaimAnswer,
    EndWanted,
    Look,
    LuaScript,
    Renewal,
    ScriptVerdict,
)

LUA = Path(scripts.__file__).with_name("lua")
ANSWERED = re.compile(r"return (?:\{|subject and )?'(\w+)'(?: or '(\w+)')?")


def test_every_file_is_a_script_that_is_loaded() -> None:
    assert {script.value for script in LuaScript} == {file.stem for file in LUA.glob("*.lua")}


def test_every_verdict_of_a_script_is_known_and_every_one_known_is_given() -> None:
    given = [each for script in LuaScript for each in ANSWERED.findall(script.text)]
    verdicts = {word.encode() for pair in given for word in pair if word}
    assert verdicts == {verdict.value for verdict in ScriptVerdict}


def test_what_no_script_answers_is_no_verdict() -> None:
    with pytest.raises(KeyError):
        scripts.verdict(b"perhaps")


def test_answers_are_decoded() -> None:
    assert ClaimAnswer.decode([b"held", b"st1 f"]) == (ScriptVerdict.HELD, b"st1 f")
    assert Renewal.decode([b"ok", 1, 0, 2]) == (ScriptVerdict.OK, True, False, 2)
    assert EndWanted.decode([b"running", b"n1"]) == ("running", "n1")


@pytest.mark.parametrize(
    ("answer", "running", "orphaned"),
    [
        ([b"running", 3, 400], True, False),
        ([b"running", 3, 0], True, True),
        ([b"done", 3, 0], False, False),
        ([b"", 0, 0], False, False),
    ],
)
def test_only_a_running_stream_without_a_lease_is_an_orphan(
    answer: list[bytes | int], running: bool, orphaned: bool
) -> None:
    look = Look.decode(answer)
    assert (look.running, look.orphaned) == (running, orphaned)


@pytest.mark.parametrize("subject", [None, "", "ann", "=ann"])
def test_an_owner_is_read_back_as_the_subject_it_was(subject: str | None) -> None:
    assert keys.subject(keys.owner(subject)) == subject


def test_a_claim_is_read_back_as_it_was_made() -> None:
    assert keys.claimed(keys.claim("st1", "f1").encode()) == ("st1", "f1")
