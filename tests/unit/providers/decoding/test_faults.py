from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.decoding.faults import (
    MAX_VENDOR_WORDS,
    fault,
    json_object,
    redact,
    retry_after,
    seconds,
    word,
)
from relay.providers.decoding.verdicts import MALFORMED, RATE_LIMITED

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2000 22:13:50 GMT"}, 0.0),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(headers, wait):
    assert retry_after(headers, NOW) == wait


def test_a_protobuf_duration_is_seconds():
    assert seconds("2.5s") == 2.5
    assert [seconds(bad) for bad in ("2", "s", None, 3, "-1s")] == [None] * 5


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefgh12345",
        "sk-ant-api03-abcdefgh",
        "AIzaSyA1234567890abcdef",
        "gsk_abcdefgh1234",
        "Bearer abcdefghijkl",
        "eyJhbGciOi.eyJzdWIiOi.c2ln",
    ],
)
def test_a_vendors_words_lose_what_looks_like_a_key(secret):
    shown = redact(f"Wrong key: {secret}, see https://user:pa55@host/x?api_key=q1w2e3")
    assert secret not in shown
    assert secret[8:] not in shown
    assert "pa55" not in shown
    assert "q1w2e3" not in shown


def test_a_vendors_words_are_one_bounded_line():
    shown = redact("a\r\nb\x1b[31m\x00" + "c" * 1000)
    assert shown.startswith("a b [31m c")
    assert len(shown) == MAX_VENDOR_WORDS


@given(st.text())
def test_no_words_make_a_second_line(text):
    assert redact(text).isprintable()


def test_only_short_tokens_are_shown_as_marks():
    assert [word(x) for x in ("a_b-1.c", 429, "two words", "x" * 65, None, True, {})] == [
        "a_b-1.c",
        "429",
        "",
        "",
        "",
        "",
        "",
    ]


def test_the_vendors_words_are_quoted_only_where_the_client_can_act():
    assert "field x" in fault(MALFORMED, says="field x").message
    assert "org-123" not in fault(RATE_LIMITED, says="limit of org-123").message
    assert "(429 rpm)" in fault(RATE_LIMITED, marks=(429, "rpm", None, "rpm")).message


def test_anything_that_is_no_json_object_is_an_empty_one():
    assert json_object(b'[{"error": 1}]') == {"error": 1}
    assert json_object(b'event: error\ndata: {"error": 1}\n\n') == {"error": 1}
    assert [json_object(b) for b in (b"", b"<html>", b"[]", b"3", b"\xff")] == [{}] * 5
