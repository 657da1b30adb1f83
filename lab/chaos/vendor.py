"""The vendor on loopback: sends each story at its pace, and correctly continues an unfinished
turn. The API key of a request shows which node asked."""

from __future__ import annotations

import asyncio
import re

from lab.chaos.story import Story, story_of
from lab.upstreams.request import Request
from lab.upstreams.server import Upstream
from lab.upstreams.steps import Counts, End, Finish, Pause, Step, Token

KEY = "chaos-key-"
"""Prefix of a node's API key; the node's name follows."""

RETOLD = 0.002
"""Seconds per piece, if a story is sent from its start again."""


class Vendor:
    """OpenAI's wire without any faults: every error is the relay's."""

    def __init__(self) -> None:
        self.upstream = Upstream(self._tell)
        self.untruths: list[str] = []
        self.continued = 0
        self._asked: dict[int, list[Request]] = {}

    @property
    def calls(self) -> int:
        """The number of calls."""
        return len(self.upstream.requests)

    @property
    def running(self) -> list[Request]:
        """The calls that have not ended."""
        return [request for request in self.upstream.requests if not request.closed.is_set()]

    def calls_for(self, story: Story) -> int:
        """The number of calls for one story."""
        return len(self._asked.get(story.number, ()))

    def times_of(self, story: Story) -> list[tuple[float, float]]:
        """When each call for a story began and ended, by the loop's clock."""
        now = asyncio.get_running_loop().time()
        asked = self._asked.get(story.number, ())
        return [(call.arrived, call.ended if call.closed.is_set() else now) for call in asked]

    def teller(self, story: Story) -> str | None:
        """The node that receives a story at the moment; None if no call is running."""
        for request in reversed(self._asked.get(story.number, ())):
            if not request.closed.is_set():
                return request.headers["authorization"].removeprefix(f"Bearer {KEY}")
        return None

    def told_at(self, story: Story) -> float | None:
        """When a story was sent completely, by the loop's clock; None if it was not."""
        calls = self._asked.get(story.number, [])
        over = bool(calls) and calls[-1].closed.is_set() and not calls[-1].cut_off
        return calls[-1].ended if over else None

    def _tell(self, request: Request) -> list[Step]:
        prompt = next(turn.text for turn in request.turns if turn.role == "user")
        story = story_of(prompt)
        asked = self._asked.setdefault(story.number, [])
        partial = request.partial
        # A repeated story is sent quickly: otherwise its reader would wait beyond the next
        # disaster.
        pace = RETOLD if asked and not partial else story.pace
        asked.append(request)
        if partial:
            self.continued += 1
            if not story.text().startswith(partial):
                self.untruths.append(f"asked to go on with what was never said in {prompt!r}")
        steps: list[Step] = []
        for piece in _after(story.pieces(), len(partial) - self._repeats(story, partial)):
            steps += [Pause(min(pace, story.pace)), Token(piece)] if story.pace else [Token(piece)]
        return [*steps, Counts(output=story.words), Finish(), End()]

    def _repeats(self, story: Story, partial: str) -> int:
        """How many characters of its turn it repeats before it continues. Most models follow the
        prompt and begin with the last few words; some continue directly."""
        if story.number % 4 == 0:
            return 0
        few = 4 + story.number % 5
        return len(partial) - _start_of_last(partial, few)


def _after(pieces: list[str], skip: int) -> list[str]:
    left = []
    for piece in pieces:
        if piece[skip:]:
            left.append(piece[skip:])
        skip = max(0, skip - len(piece))
    return left


def _start_of_last(text: str, words: int) -> int:
    """The index at which the last `words` words begin."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    return starts[-words] if len(starts) >= words else 0
