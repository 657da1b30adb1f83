"""The texts of the upstreams: the canonical answer, and one in many writing systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.upstreams.request import Request
from lab.upstreams.scripts import Script
from lab.upstreams.steps import Call, Counts, End, Finish, Pause, Step, Token
from lab.upstreams.wires import WIRES

QUESTION = "Tell me about the lighthouse."

TEXT = (
    "A lighthouse keeper wakes before dawn, climbs ninety iron steps and trims the great lamp "
    "by hand. Ships far out at sea take their bearing from its beam. When fog rolls in, the "
    "horn speaks instead, low and patient. Nobody aboard ever learns his name. Still, every "
    "captain trusts him more than charts, stars, instruments or weary eyes. Morning comes."
)
"""The canonical answer: 60 words in six sentences."""

TOKENS = tuple(word if n == 0 else f" {word}" for n, word in enumerate(TEXT.split(" ")))
"""Its tokens with white space in front, as models write them."""

MIXED = (
    "Größe und Maß: the façade naïvely costs 3 €. 東京は夜も明るい。서울의 밤, ночь в Москве. "
    "Families 👩‍👩‍👧‍👦 wave 🇯🇵 flags; e\u0301 is two code points. 終わり、また明日。"
)
"""An answer in which most characters take more than one byte."""

TOOL: dict[str, Any] = {
    "name": "find_ship",
    "description": "Finds a ship by its name.",
    "parameters": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "night": {"type": "boolean"}},
    },
}
ARGUMENTS = {"name": "Maria of the Seven Northern Harbours", "night": True}
CALL = Call(
    "call_7", "find_ship", '{"name": "Maria of the Seven Northern Harbours", "night": true}'
)
"""The tool that is offered in one fault, and a complete call of it."""

BREATH = 0.01
"""Seconds between two groups of tokens, so that the answer arrives in many reads."""

GROUP = 6
"""Tokens of a group."""

SETTLE = 0.15
"""Seconds before a connection is reset. A reset discards what the reader has not read yet, which
would move the break."""


def spoken(tokens: Sequence[str]) -> list[Step]:
    """Tokens with pauses, like a model's."""
    steps: list[Step] = []
    for n, token in enumerate(tokens):
        if n and n % GROUP == 0:
            steps.append(Pause(BREATH))
        steps.append(Token(token))
    return steps


def whole(tokens: Sequence[str] = TOKENS) -> list[Step]:
    """A complete answer without faults."""
    return [*spoken(tokens), Counts(output=max(1, len(tokens))), Finish(), End()]


def pieces(text: str, size: int = 7) -> list[str]:
    """A text as tokens of `size` characters."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def goes_on(text: str = TEXT) -> Script:
    """A model that continues exactly where the unfinished turn stops; without one it gives the
    whole answer."""

    def script(request: Request) -> list[Step]:
        partial = request.partial
        assert text.startswith(partial), f"the relay sent {partial[-40:]!r}"
        return whole(pieces(text[len(partial) :]))

    return script


def written(request: Request, *steps: Step) -> bytes:
    """The body of these steps on the wire of the request."""
    wire = WIRES[request.vendor](f"{request.model}-served", request.body)
    return wire.opening() + b"".join(wire.say(step) for step in steps)  # type: ignore[arg-type]
