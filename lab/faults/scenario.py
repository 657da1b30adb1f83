"""What a fault is: the scripts that play it, what must come of it, and one play of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from lab.faults.canon import ARGUMENTS, CALL, TEXT, TOOL
from lab.faults.clients import CLIENTS, Client
from lab.faults.matrix import Cell, Profile, Role
from lab.faults.seen import Seen
from lab.faults.stage import Cast
from lab.upstreams.scripts import Script

Outcome = Literal["answer", "error", "cancelled", "tool_call", "filtered"]
Check = Callable[["Played"], Iterable[str]]
"""Looks at what was played and says what missed."""

AT_ONCE = 10.0
"""Seconds within which an answer must be whole that nothing has to be waited for."""


@dataclass(frozen=True)
class Scenario:
    """One fault, ready to be played.

    `scripts` by role, in the route's order. `by`: whose words may end the answer.
    `attempts` bounds how often a role is asked (least, most), `total` all of them.
    `within` is in real seconds; the profile makes a bound of it. `code` is the error's.
    `continued`: some model must have been given the unfinished text. `calls`: name and
    arguments of the calls that a `tool_call` ends in. `play` replaces one plain chat.
    """

    scripts: Mapping[Role, Script]
    outcome: Outcome = "answer"
    text: str = TEXT
    by: tuple[Role, ...] = ("fallback",)
    attempts: Mapping[Role, tuple[int, int]] = field(default_factory=dict)
    total: int = 6
    within: float = AT_ONCE
    code: str = ""
    continued: bool = False
    prefill: bool = False
    tools: bool = False
    calls: tuple[tuple[str, dict[str, Any]], ...] = ((CALL.name, ARGUMENTS),)
    checks: tuple[Check, ...] = ()
    play: Callable[[Played], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Fault:
    """One row of the matrix. `key` is `F08`, or `F08 closed` for a variant. `make` takes
    the profile and the vendor. `vendors` where a wire can't have the fault. `quiet`: its
    bound is so tight that it is played when nothing else is. `length`: roughly how many
    real seconds it takes."""

    key: str
    title: str
    make: Callable[[Profile, str], Scenario]
    vendors: tuple[str, ...] = ("gpt", "claude", "gemini")
    quiet: bool = False
    length: float = 1.0

    @property
    def number(self) -> str:
        """`F08` of `F08 closed`."""
        return self.key.partition(" ")[0]


@dataclass
class Played:
    """One cell in play: who is in it, what the client saw, what missed so far."""

    cell: Cell
    fault: Fault
    scenario: Scenario
    profile: Profile
    cast: Cast
    http: aiohttp.ClientSession
    relay: str
    seen: Seen = field(default_factory=Seen)
    misses: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float | None = None

    def client(self, route: str = "") -> Client:
        """A client of this cell's transport; `route` is the cell's own."""
        tools = [TOOL] if self.scenario.tools else []
        kind = CLIENTS[self.cell.transport]
        return kind(self.http, self.relay, route or self.cell.route, tools)

    def miss(self, what: str) -> None:
        """Note what is not as it must be."""
        self.misses.append(what)
