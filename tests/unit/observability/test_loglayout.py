"""How a line is put together from what the code says."""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.observability.loglayout import (
    MAX_REMEMBERED_LENGTH,
    NO_FIELDS,
    STREAM_PREFIX,
    About,
    Layout,
    LogEntry,
)
from relay.observability.loglines import Redactor, digest

KEY = "zz-configured-key-0123456789"
NOBODY = About()


def entry(message, *values, moment=0, about=NOBODY, outer=NOBODY, fields=NO_FIELDS):
    return LogEntry(20, moment, "some.module", about, outer, message, values, fields)


def line(*args, clean=str, format="text", **options):
    return Layout(format, clean).line(entry(*args, **options))


@given(st.lists(st.integers(0, 4_000_000_000_000), min_size=1, max_size=5))
def test_moments_are_written_as_iso_8601_in_local_time(milliseconds):
    layout = Layout("text", str)
    for each in milliseconds:
        written, _, _ = layout.line(entry("x", moment=each * 1_000_000 + 999_999)).partition(" ")
        assert len(written) == len("2026-11-22T23:50:32.123+00:00")
        whole = datetime.fromtimestamp(each // 1_000, UTC).replace(microsecond=each % 1_000 * 1_000)
        assert datetime.fromisoformat(written) == whole


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns", "UTC"])
def test_moments_carry_the_offset_of_their_own_time(monkeypatch, zone):

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for moment in (1_767_225_600, 1_782_864_000):  # a winter's and a summer's
            local = datetime.fromtimestamp(moment).astimezone()
            wanted = local.isoformat(timespec="milliseconds")
            assert line("x", moment=moment * 10**9).startswith(f"{wanted} ")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_line_that_cannot_be_put_together_says_so_in_its_own_format():
    made = json.loads(line("{} and {}", "only one", format="json", moment=10**18))
    assert made["message"] == "this line could not be made: IndexError"
    assert made["level"] == "INFO"
    assert made["time"].startswith("2001-09-")


def test_a_session_is_shown_as_its_digest_and_a_stream_by_its_beginning():
    shown = line("x", about=About("c1", "the session", "0123456789"))
    where = f"connection=c1 session={digest('the session')} stream={'0123456789'[:STREAM_PREFIX]} "
    assert where in shown
    assert "the session" not in shown


def test_names_that_a_line_does_not_give_come_from_around_it():
    shown = line("x", about=About(stream="inner"), outer=About("c1", None, "outer"))
    assert "connection=c1 session=- stream=inner " in shown


@given(
    st.sampled_from(["", "a ", "x" * MAX_REMEMBERED_LENGTH + " "]),
    st.sampled_from(["text", "json"]),
)
def test_every_text_among_values_and_fields_is_cleaned_however_long(before, format):
    layout = Layout(format, Redactor([KEY]))
    for _ in range(2):
        shown = layout.line(entry("{} {}", before + KEY, 5, fields={"target": before + KEY}))
        assert KEY not in shown
        assert shown.count("[redacted]") == 2


def test_numbers_are_said_as_the_sentence_wants_them():
    assert " | 1.2 s, None of 3\n" in line("{:.1f} s, {} of {}", 1.234, None, 3)


def test_braces_in_a_value_are_only_braces():
    assert line("{}", "{0.__class__} {}").endswith(" | {0.__class__} {}\n")


@given(st.text(), st.text(), st.sampled_from(["text", "json"]))
def test_one_event_is_one_line_whatever_it_holds(value, field, format):
    shown = line("{}", value, fields={"field": field}, format=format)
    assert shown.endswith("\n")
    assert len(shown[:-1].splitlines()) == 1
    shown.encode()
