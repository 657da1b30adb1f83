"""Joins a continuation to the text that was shown before the break, pure.

A model that is asked to go on does one of four things: it goes on; it repeats its last
words and goes on; it starts over; or it writes something else. From the text alone these
can look the same: after "ha ha ha" a further " ha ha" is either more laughter or a
repetition. The rules here remove a repetition only where nothing else is plausible, pass
text through unchanged only where no repetition is plausible, and say `UNSURE` between the
two. Then the answer is asked for from its start, where nothing has to be guessed.

Lengths are *weights*: white space counts nothing, a character of a script that writes
words with one or two characters (CJK) counts three, every other counts one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from relay.core.provider import Form

WINDOW = 1_000
"""How many of the last shown characters are searched for a repetition: a paragraph."""

CHANCE = {Form.TURN: 4, Form.PREFILL: 6}
"""An overlap of less weight is chance ("...on" and "on..."), and is kept. The limit is higher for a
prefill: its model begins no new turn, so it is less likely to repeat words."""

CERTAIN = 8
"""An overlap of this weight is a repetition, if as new text it would follow the last word without a
space and if the text does not repeat itself there."""

CERTAIN_WIDE = 18
"""The same in scripts that put no space between words, where nothing can look glued."""

CERTAIN_START = 24
"""A continuation whose first words are the answer's first words, with this weight, has started
over, if as new text they would follow without a space and occur nowhere else in the answer."""

REPEATING = 2
"""A text repeats itself where so many characters (or this weight) occur again."""

_WIDE = (("\u2e80", "\ud7ff"), ("\U00020000", "\U0003ffff"))


class Fit(StrEnum):
    """How a continuation fits the text shown."""

    HELD = "held"
    """Not decided; nothing may be shown."""
    JOINED = "joined"
    """It goes on from what was shown. Show `text` and everything after it as it comes."""
    FRESH = "fresh"
    """It is another answer from the start, of which `text` is all so far."""
    UNSURE = "unsure"
    """It can't be joined with certainty. Ask for the answer from its start."""


class Joined(NamedTuple):
    """How a continuation fits, and the text to show of it."""

    fit: Fit
    text: str = ""


HELD = Joined(Fit.HELD)
UNSURE = Joined(Fit.UNSURE)


class Seam:
    """The seam between the text shown and one attempt's continuation.

    Call `feed` with each piece of text until it returns something else than `HELD`; then the seam
    is no longer needed. Call `end` instead where the attempt ended first. Where the attempt broke,
    drop the seam: what it holds was never shown.
    """

    def __init__(self, shown: str, form: Form) -> None:
        body = shown.rstrip()
        self.partial = body
        """The text to offer: without white space at its end, which Anthropic refuses in a
        prefill. What was stripped is accounted for when the continuation comes."""
        self._space = shown[len(body) :]
        self._match: _Restart | _Continue
        if form is Form.RESTART or not body:
            self._match = _Restart(body)
        else:
            self._match = _Continue(body, self._space, CHANCE[form])
        self._tail: str | None = None

    def feed(self, text: str) -> Joined:
        """One more piece of the continuation."""
        if self._tail is not None:
            return self._join(self._tail + text, ended=False)
        return self._settle(self._match.feed(text), ended=False)

    def end(self) -> Joined:
        """The continuation is whole. Never returns `HELD`."""
        if self._tail is not None:
            return self._join(self._tail, ended=True)
        return self._settle(self._match.end(), ended=True)

    def _settle(self, found: Joined, ended: bool) -> Joined:
        match = self._match
        if isinstance(match, _Continue) and match.started_over:
            self._match = restart = _Restart(self.partial)
            found = restart.feed(match.held)
            if ended and found.fit is Fit.HELD:
                found = restart.end()
        if found.fit is Fit.JOINED:
            return self._join(found.text, ended)
        return found

    def _join(self, text: str, ended: bool) -> Joined:
        """Remove the white space that ends the text shown from the start of `text`."""
        lead = text[: len(text) - len(text.lstrip())]
        if self._space and len(lead) == len(text) and not ended:
            self._tail = text
            return HELD
        return Joined(Fit.JOINED, _without(self._space, lead) + text[len(lead) :])


def _without(shown: str, lead: str) -> str:
    """The part of the white space `lead` that must still be shown, where `shown` is there
    already."""
    if lead.startswith(shown):
        return lead[len(shown) :]
    if shown.startswith(lead) or ("\n" in shown and "\n" not in lead):
        return ""
    return lead


class _Restart:
    """An answer from the start: the part that equals the text shown is suppressed. JOINED carries
    the text after that part."""

    def __init__(self, body: str) -> None:
        self._body = body.lstrip()
        self._lead = ""
        self._at = 0

    def feed(self, text: str) -> Joined:
        if not self._at:
            text = self._lead + text
            stripped = text.lstrip()
            self._lead = text[: len(text) - len(stripped)]
            text = stripped
        body, at = self._body, self._at
        if body.startswith(text, at):
            self._at += len(text)
            return HELD
        if not body:
            return Joined(Fit.JOINED, self._lead + text)
        if text.startswith(body[at:]):
            self._at = len(body)
            return Joined(Fit.JOINED, text[len(body) - at :])
        return Joined(Fit.FRESH, self._lead + body[:at] + text)

    def end(self) -> Joined:
        if self._at == len(self._body):
            return Joined(Fit.JOINED, "" if self._body else self._lead)
        return Joined(Fit.FRESH, self._lead + self._body[: self._at])


class _Continue:
    """A continuation: new text, perhaps after a repetition of the last words. JOINED
    carries the new text; UNSURE with `started_over` set says that what it `held`
    is the answer from its start."""

    def __init__(self, body: str, space: str, chance: int) -> None:
        self._body = body
        self._space = space
        self._head = body.lstrip()
        self._window = body[-WINDOW:]
        self._chance = chance
        self.held = ""
        self.started_over = False

    def feed(self, text: str) -> Joined:
        self.held += text
        said = self.held.lstrip()
        if not said or said in self._window:
            return HELD
        if self._head.startswith(said) and len(said) < WINDOW:
            return HELD
        return self._decide(said)

    def end(self) -> Joined:
        return self._decide(self.held.lstrip())

    def _decide(self, said: str) -> Joined:
        head = _common_prefix(said, self._head)
        overlap = _overlap(self._window, said)
        if head > overlap or head == len(self._head):
            return self._judge_start(said, head, overlap)
        return self._judge_overlap(said, overlap)

    def _judge_start(self, said: str, head: int, overlap: int) -> Joined:
        """`said` begins as the answer did."""
        again = said[:head]
        weight, passed = _weight(again), head == len(self._head)
        if weight < self._chance and not passed:
            return self._judge_overlap(said, overlap)
        self.started_over = (
            self._is_glued(said)
            and weight >= (2 * CERTAIN_START if passed else CERTAIN_START)
            and not (_repeats_itself(again) or self._head.find(again, 1) >= 0)
            and (len(said) > head or head >= WINDOW)
        )
        return UNSURE

    def _judge_overlap(self, said: str, overlap: int) -> Joined:
        """`said` begins with the last `overlap` characters shown."""
        light = _weight(said[:overlap]) < self._chance
        if light and not self._is_whole_word(said, overlap):
            return Joined(Fit.JOINED, self.held)
        if light or not self._must_repeat(said, overlap):
            return UNSURE
        return Joined(Fit.JOINED, said[overlap:])

    def _is_glued(self, said: str) -> bool:
        """Whether `said` would follow the last word shown without a space."""
        open_ended = self._body[-1].isalnum() and not self._space
        return open_ended and self.held == said and said[:1].isalnum()

    def _is_whole_word(self, said: str, overlap: int) -> bool:
        """Whether the overlap is the last word shown, said again without a space between:
        no text says "isis"."""
        word = said[:overlap]
        if not (word.isalpha() and self._is_glued(said)) or _is_wide(word[0]):
            return False
        around = self._window[: -len(word)][-1:] + said[overlap : overlap + 1]
        return not any(character.isalnum() for character in around)

    def _must_repeat(self, said: str, overlap: int) -> bool:
        """Whether nothing but a repetition explains the overlap. New text would follow the last
        word without a space ("she" and "then she" to "shethen she"), and the text doesn't repeat
        itself as it is."""
        body, again = self._body, said[:overlap]
        wide = _is_wide(again[0]) or _is_wide(body[-1])
        before = body[:-overlap].rstrip()
        return (
            self._is_glued(said)
            and _weight(again) >= (CERTAIN_WIDE if wide else CERTAIN)
            and not (again in body[:-1] or _repeats_itself(again))
            and bool(before)
            and not before.endswith(body[-1:] if wide else body[-REPEATING:])
        )


def _repeats_itself(text: str) -> bool:
    """Whether `text` ends as it begins."""
    return _weight(text[: _overlap(text[1:], text)]) >= REPEATING


def _overlap(shown: str, said: str) -> int:
    """The length of the longest end of `shown` that `said` begins with."""
    longest = min(len(shown), len(said))
    return next((n for n in range(longest, 0, -1) if shown.endswith(said[:n])), 0)


def _common_prefix(one: str, other: str) -> int:
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size
    return next(at for at in range(size) if one[at] != other[at])


def _weight(text: str) -> int:
    return sum(3 if _is_wide(each) else not each.isspace() for each in text)


def _is_wide(character: str) -> bool:
    return any(first <= character <= last for first, last in _WIDE)
