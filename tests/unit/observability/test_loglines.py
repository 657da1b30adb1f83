"""One line whatever the input holds, and no secret in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Code, Fault
from relay.core.redaction import HIDDEN, MIN_SECRET_LENGTH
from relay.observability.loglines import (
    MAX_MESSAGE,
    Redactor,
    cut,
    digest,
    fold,
    one_line,
)

BREAKERS = "\r\n\t\x00\x0b\x0c\x1b\x1c\x1e\x7f\x85\x9b\u2028\u2029\u202e\u2066\ud800"
SECRETS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="[]\\"),
    min_size=MIN_SECRET_LENGTH,
    max_size=40,
)


@given(st.text(st.one_of(st.characters(), st.sampled_from(BREAKERS))))
def test_any_text_becomes_one_line(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not set(line) & set(BREAKERS)
    line.encode()  # and it can be written to a file


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("日本語 é", "日本語 é"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x85\u2028", r"\x00\x85\u2028"),
    ],
)
def test_only_what_could_break_a_line_is_escaped(text, line):
    assert one_line(text) == line


@given(SECRETS, st.text(), st.text())
def test_a_configured_secret_never_passes(secret, before, after):
    assert secret not in Redactor([secret])(before + secret + after)


@given(st.lists(SECRETS, min_size=2, max_size=5, unique=True), st.data())
def test_of_several_secrets_none_passes_also_where_one_holds_another(secrets, data):
    secrets.append(secrets[0] + secrets[1])
    text = " ".join(data.draw(st.permutations(secrets)))
    hidden = Redactor(secrets)(text)
    assert not [secret for secret in secrets if secret in hidden]


def test_a_secret_is_known_in_url_and_json_and_repr():
    secret = "pa/ss\"w'ord+é\\"
    forms = ["pa%2Fss%22w%27ord%2B%C3%A9%5C", json.dumps(secret), repr(secret)]
    for form in forms:
        assert HIDDEN in Redactor([secret])(f"x{form}x")


def test_a_placeholder_key_does_not_tear_words_apart():
    assert Redactor(["none", ""])("none of these") == "none of these"


def test_a_long_message_is_cut_between_words_and_counted():
    assert cut("abc def", 7) == "abc def"
    assert cut("abc def ghi", 7) == "abc… (8 more characters)"
    assert cut("abcdefgh", 7) == "… (8 more characters)"
    assert cut("ab\ncdefgh", 7) == "ab… (7 more characters)"


def test_text_without_spaces_is_cut_behind_its_last_character_beyond_ascii():
    text = "字" * 2_000 + "sk-half-of-a-secret"
    assert cut(text, 2_007) == "字" * 2_000 + "… (19 more characters)"
    assert cut("x" * 3_000, 2_000) == "… (3000 more characters)"


@given(SECRETS, st.integers(-60, 60))
def test_a_secret_at_the_cut_does_not_pass_in_part(secret, offset):
    secret = "".join(secret.split()) + "0123456789"
    text = "x " * (MAX_MESSAGE // 2)
    at = MAX_MESSAGE - len(secret) // 2 + offset
    hidden = Redactor([secret])(f"{text[: at - 1]} {secret} {text}")
    assert len(hidden) < MAX_MESSAGE + 100
    assert secret[:MIN_SECRET_LENGTH] not in hidden


@pytest.mark.parametrize("piece", ["://:", "eyJ-", "sk-a", "Bearer ", "authorization: ", "?key="])
def test_hostile_text_is_bounded_work(piece):
    Redactor(["0123456789"])(piece * 2_000_000)


def test_a_digest_is_stable_and_tells_nothing():
    assert digest("session") == digest("session") != digest("session2")
    assert len(digest("\ud800")) == 8


def raised(error, cause=None):
    try:
        if cause is None:
            raise error
        try:
            raise cause
        except type(cause) as before:
            raise error from before
    except type(error) as caught:
        return caught


def test_a_traceback_has_place_type_and_causes():
    text = fold(raised(RuntimeError("b"), KeyError("a")), content=True)
    assert text.index("KeyError: 'a'") < text.index("Which led to") < text.index("RuntimeError: b")
    assert "in raised" in text
    assert __file__ in text


def test_the_message_of_an_error_that_may_quote_its_input_is_left_out():
    error = raised(ValueError("what the user wrote"), KeyError("their words"))
    told = fold(error, content=False)
    assert "user wrote" not in told
    assert "their words" not in told
    assert "ValueError (message of 19 characters left out)" in told


def test_the_message_of_an_error_of_the_program_stays():
    assert "OSError: disk" in fold(raised(OSError("disk")), content=False)
    assert "Fault: slow" in fold(raised(Fault(Code.PROVIDER_TIMEOUT, "slow")), content=False)


def test_groups_circles_and_errors_without_words_are_folded_too():
    circle = KeyError("x")
    circle.__cause__ = ValueError("y")
    circle.__cause__.__cause__ = circle
    group = ExceptionGroup("all", [circle, NameError("z")])
    told = fold(raised(group), content=True)
    assert all(name in told for name in ("ExceptionGroup", "KeyError", "ValueError", "NameError"))

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert "can't be shown" in fold(Mute(), content=True)
