"""A client's plan of mishaps while it reads: drawn beforehand, so that a seed repeats it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

Mishap = Literal[
    "reset", "silent", "close", "stall", "long stall", "second", "second_sse", "cancel"
]

MISHAPS: dict[Mishap, float] = {
    "reset": 5.0,
    "silent": 2.0,
    "close": 2.0,
    "stall": 2.0,
    "long stall": 0.5,
    "second": 1.5,
    "second_sse": 1.5,
    "cancel": 0.6,
}
"""How often each mishap is drawn, relative to the others."""

STALL_SECONDS = (0.5, 1.0, 3.0)
LONG_STALL_SECONDS = 12.0
"""How long a reader pauses, in seconds; the long pause is above WRITE_TIMEOUT and two
heartbeats."""


@dataclass(slots=True)
class Plan:
    """Mishaps by the number of frames after which they happen, the next one last."""

    due: list[tuple[int, Mishap]] = field(default_factory=list)

    def next_at(self, frames: int) -> Mishap | None:
        """The mishap after this number of frames, if any."""
        if self.due and self.due[-1][0] <= frames:
            return self.due.pop()[1]
        return None


def draw_plan(dice: random.Random, words: int) -> Plan:
    """Up to four mishaps within an answer of `words` words; often none."""
    count = dice.choice((0, 0, 1, 1, 2, 4))
    kinds = dice.choices(list(MISHAPS), list(MISHAPS.values()), k=count)
    points = sorted((dice.randrange(0, words) for _ in kinds), reverse=True)
    return Plan(list(zip(points, kinds, strict=True)))
