"""The vendor's answers: one canonical text for each prompt, so that a client's text can be
compared with it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import sha256

_WORDS = (  # noqa: SIM905, one list a line is not readable
    "river stone cloud maple engine lantern window harbour violet thunder silver meadow "
    "straße naïve café Ångström größer 東京 мост λόγος 🌊 👩‍🚀 ½ “quoted” 'til co-op e.g. 3.14 "
    "the a of and to in it is was on by at an or as be if we so do"
).split()
_BETWEEN = (" ", " ", " ", " ", " ", ", ", ". ", "\n", "\n\n", " — ")


@dataclass(frozen=True, slots=True)
class Story:
    """One prompt and the properties of its answer. `pace` is in seconds per piece, `grain` in
    words per piece."""

    number: int
    words: int
    pace: float
    grain: int = 1

    @property
    def prompt(self) -> str:
        """The client's message; it contains all that the vendor has to know."""
        return f"story {self.number} {self.words} {self.pace:g} {self.grain}"

    def pieces(self) -> list[str]:
        """The canonical answer, cut like a model's tokens: white space before the word. Every
        eighth word has a number, so that a gap or a repetition is visible."""
        dice = random.Random(self.number)
        words = []
        for at in range(self.words):
            word = f"[{self.number}.{at}]" if at % 8 == 0 else dice.choice(_WORDS)
            words.append((dice.choice(_BETWEEN) if at else "") + word)
        words[-1] = f" [end of {self.number}]"
        return ["".join(words[at : at + self.grain]) for at in range(0, self.words, self.grain)]

    def text(self) -> str:
        """The canonical answer."""
        return "".join(self.pieces())


def story_of(prompt: str) -> Story:
    """The story that a prompt asks for."""
    _, number, words, pace, grain = prompt.split()
    return Story(int(number), int(words), float(pace), int(grain))


def fingerprint(text: str) -> str:
    """A short digest of a text for the report."""
    return sha256(text.encode()).hexdigest()[:12]
