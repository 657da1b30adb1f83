"""One request to an upstream, and its conversation in a form independent of the vendor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """A turn of a request, independent of the vendor: `role` is user, assistant, system or tool."""

    role: str
    text: str


@dataclass
class Request:
    """One request as it was received. `number` counts the chats from 0.

    `closed` is set once the connection is closed or the response is over; `cut_off`: the relay
    closed the connection before the script ended. `arrived` and `ended` are by the loop's clock.
    """

    number: int
    vendor: str
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    cut_off: bool = False
    arrived: float = 0.0
    ended: float = 0.0

    @property
    def model(self) -> str:
        """The model asked for."""
        if self.vendor == "gemini":
            return self.path.partition("models/")[2].partition(":")[0]
        return str(self.body.get("model", ""))

    @property
    def turns(self) -> list[Turn]:
        """The conversation's turns, texts only."""
        turns = self.body.get("contents" if self.vendor == "gemini" else "messages", [])
        return [_turn(turn) for turn in turns]

    @property
    def partial(self) -> str:
        """The unfinished assistant turn that the model should continue: the last turn, or the one
        before a last user's turn that is not the conversation's first."""
        turns = [turn for turn in self.turns if turn.role not in ("system", "developer")]
        for turn in turns[:0:-1][:2]:
            if turn.role == "assistant":
                return turn.text
        return ""


def _turn(turn: dict[str, Any]) -> Turn:
    role = {"model": "assistant"}.get(turn["role"], turn["role"])
    content = turn.get("parts", turn.get("content"))
    if isinstance(content, str) or content is None:
        return Turn(role, content or "")
    return Turn(role, "".join(part.get("text", "") for part in content))
