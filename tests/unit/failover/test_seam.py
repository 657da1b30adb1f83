"""The seam: joined only where it is certain, and never a character twice or missing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.provider import Form
from relay.failover.seam import WINDOW, Fit, Joined, Seam
from tests.failover_sim import split

SHOWN = "The keeper wrote each name in a ledger bound with rope, and then she"
REST = " closed it for the night."
CONTINUING = pytest.mark.parametrize("form", [Form.PREFILL, Form.TURN])
CODE = "def area(w, h):\n    return w * h\n\n\ndef grow(w, h):\n    return w + 1, h + 1\n"
CJK = "灯塔看守人曾经数过每一艘经过礁石的船，并把它们的名字写进一本用绳子装订的账簿里。"


def join(shown: str, said: str, form: Form = Form.TURN, size: int = 3) -> Joined:
    """Feed `said` in pieces, then end; what is joined is all that is to be shown."""
    seam = Seam(shown, form)
    pieces = split(said, size)
    for n, piece in enumerate(pieces):
        joined = seam.feed(piece)
        if joined.fit is Fit.UNSURE:
            return joined
        if joined.fit is not Fit.HELD:
            return Joined(joined.fit, joined.text + "".join(pieces[n + 1 :]))
    return seam.end()


def joined(text: str) -> Joined:
    return Joined(Fit.JOINED, text)


UNSURE = Joined(Fit.UNSURE)


@CONTINUING
def test_a_true_continuation_is_kept_to_the_character(form):
    for shown in (SHOWN, CODE[:20], CODE[:55], CJK[:20]):
        rest = (CODE if shown in CODE else CJK if shown in CJK else SHOWN + REST)[len(shown) :]
        seam = Seam(shown, form)
        offered = seam.partial
        whole = CODE if shown in CODE else CJK if shown in CJK else SHOWN + REST
        assert join(shown, whole[len(offered) :], form) == joined(rest)


@CONTINUING
def test_repeated_last_words_are_removed(form):
    for words in (3, 6, 9):
        again = " ".join(SHOWN.split()[-words:])
        assert join(SHOWN, again + REST, form) == joined(REST)
    assert join(CJK[:30], CJK[22:], form) == joined(CJK[30:])


def test_a_repetition_of_the_whole_window_is_removed():
    shown = " ".join(f"word{n}" for n in range(400))
    again = shown[-WINDOW:].partition(" ")[2]
    assert join(shown, again + REST, size=50) == joined(REST)


def test_a_repetition_may_be_all_that_is_said():
    assert join(SHOWN, "bound with rope, and then she") == joined("")


@CONTINUING
def test_repeated_words_that_could_be_true_text_are_not_certain(form):
    assert join(SHOWN, "then she" + REST, form) == UNSURE
    assert join(SHOWN, " and then she" + REST, form) == UNSURE
    assert join(SHOWN, "\n\nand then she" + REST, form) == UNSURE
    assert join(SHOWN + " ", "and then she" + REST, form) == UNSURE
    assert join(SHOWN + ".", "and then she.", form) == UNSURE


def test_the_last_word_said_again_without_a_space_is_not_certain():
    assert join("what it is", "is that") == UNSURE
    assert join("I", "I think so") == UNSURE
    assert join("x = 1", "1 + 2") == joined("1 + 2")
    assert join("Missi", "ssippi") == joined("ssippi")


@CONTINUING
def test_chance_is_no_repetition(form):
    assert join("on the way to", "o far", form) == joined("o far")
    assert join("我说谢", "谢你", form) == joined("谢你")


def test_text_that_repeats_itself_is_not_certain():
    assert join("ha ha ha ha ha ha ha ha", " ha ha ha ha ha ha, he said") == UNSURE
    line = "    total = total + value\n"
    assert join(line, line + "    return total\n") == UNSURE
    assert join("x\n" + line + line, line + "    return total\n") == UNSURE
    verse = "Row, row, row your boat, gently down the stream.\n"
    assert join("A song:\n" + verse, verse + "Merrily") == UNSURE


@CONTINUING
def test_an_answer_that_starts_over_is_shown_from_where_it_passes_what_stands(form):
    assert join(SHOWN, SHOWN + REST, form) == joined(REST)
    assert join(SHOWN, SHOWN[:50] + " of gold", form) == Joined(Fit.FRESH, SHOWN[:50] + " of gold")


def test_an_answer_that_perhaps_starts_over_is_not_certain():
    assert join(SHOWN, "The keeper left.") == UNSURE
    assert join(SHOWN, SHOWN[:40]) == UNSURE
    assert join("ha ", "ha ha", Form.PREFILL) == UNSURE
    assert join("Yes", "Yes, it is") == UNSURE


def test_a_long_answer_that_starts_over_is_not_held_beyond_the_window():
    shown = " ".join(f"word{n}" for n in range(4_000))
    seam = Seam(shown, Form.TURN)
    for piece in split(shown, 100):
        assert seam.feed(piece).fit is Fit.HELD
    assert seam.feed(" end") == joined(" end")


def test_a_restart_suppresses_what_stands():
    assert join(SHOWN, SHOWN + REST, Form.RESTART) == joined(REST)
    assert join(SHOWN, "\n" + SHOWN + REST, Form.RESTART) == joined(REST)
    assert join(SHOWN, SHOWN, Form.RESTART) == joined("")


def test_a_restart_that_diverges_or_ends_early_is_a_fresh_answer():
    assert join(SHOWN, "Another", Form.RESTART) == Joined(Fit.FRESH, "Another")
    other = SHOWN[:30] + "book"
    assert join(SHOWN, other, Form.RESTART) == Joined(Fit.FRESH, other)
    assert join(SHOWN, SHOWN[:30], Form.RESTART) == Joined(Fit.FRESH, SHOWN[:30])


def test_the_offered_text_ends_in_no_white_space():
    assert Seam("One. \n\n", Form.PREFILL).partial == "One."


@pytest.mark.parametrize("form", [Form.PREFILL, Form.TURN])
@pytest.mark.parametrize(
    ("shown", "said", "shows"),
    [
        ("One.\n\n", "\n\nTwo", "Two"),
        ("One.\n\n", "Two", "Two"),
        ("One.\n\n", " Two", "Two"),
        ("One.\n", "\n\nTwo", "\nTwo"),
        ("One ", "\nTwo", "\nTwo"),
        ("if x:\n  ", "\n    y = 1", "  y = 1"),
        ("One", " two", " two"),
        ("One.\n\n", "\n", ""),
        ("One.\n", "\n\n", "\n"),
        ("\n", "Two", "Two"),
        ("\n", "\nTwo", "Two"),
        (" ", " ", ""),
    ],
)
def test_white_space_at_the_seam_stands_once(form, shown, said, shows):
    assert join(shown, said, form, size=1) == joined(shows)


UNITS = st.sampled_from(
    [
        "ha ",
        "no, ",
        "very ",
        "    x += 1\n",
        "}\n",
        "<td>cell</td>\n",
        "谢谢",
        "今天天气很好。",
        "👍🏽",
        "\n\n",
    ]
)
PROSE = st.sampled_from([SHOWN + REST, CODE, CJK, "a", "The ", "- item\n", "\n", "I think "])
TEXTS = st.lists(st.one_of(PROSE, UNITS, UNITS.map(lambda unit: unit * 4)), min_size=1).map("".join)


@st.composite
def broken(draw):
    text = draw(TEXTS)
    return text, draw(st.integers(1, len(text)))


@given(broken(), st.sampled_from([Form.PREFILL, Form.TURN]), st.integers(1, 9))
@example(("ha ha ha ha", 6), Form.TURN, 1)
def test_a_true_continuation_is_joined_exactly_or_not_at_all(case, form, size):
    text, at = case
    shown = text[:at]
    found = join(shown, text[len(Seam(shown, form).partial) :], form, size)
    if found.fit is Fit.JOINED:
        assert shown + found.text == text
    else:
        assert found == UNSURE


@given(broken(), st.integers(1, 9), st.booleans())
def test_a_restart_of_the_same_answer_is_always_joined_exactly(case, size, spaced):
    text, at = case
    found = join(text[:at], "\n" * spaced + text, Form.RESTART, size)
    assert found.fit is Fit.JOINED
    assert text[:at] + found.text == text or not text[:at].strip()


@given(broken(), TEXTS, st.sampled_from(list(Form)), st.integers(1, 9))
def test_the_size_of_the_pieces_changes_nothing(case, said, form, size):
    text, at = case
    found = join(text[:at], said, form, size)
    once = join(text[:at], said, form, len(said))
    if UNSURE not in (found, once):
        assert found == once


@given(st.integers(20, len(SHOWN)), st.integers(12, 60), st.integers(1, 9))
def test_a_long_repetition_in_mid_sentence_is_removed_wherever_it_begins(at, again, size):
    text = SHOWN + REST
    begin = max(0, at - again)
    found = join(text[:at], text[begin:], Form.TURN, size)
    if found.fit is Fit.JOINED:
        assert text[:at] + found.text == text or at - begin < 8
    else:
        assert found == UNSURE
