"""The parts of a fault: the scripts that play it, the required outcome, and one play of it."""

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
"""Checks a played cell and yields what missed."""

AT_ONCE = 10.0
"""Seconds within which an answer must be whole if its fault has no waits."""


@dataclass(frozen=True)
class Scenario:
    """One fault, ready to be played.

    `scripts` by role, in the route's order. `by`: the roles whose answer may be the last.
    `attempts` limits the calls of a role (least, most), `total` those of all roles. `within` is in
    real seconds; the profile scales it. `code` is the error's. `continued`: some model must have
    been given the unfinished text. `calls`: name and arguments of the calls of an answer that ends
    in `tool_calls`. `play` replaces one plain chat.
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
    """One row of the matrix. `key` is `F08`, or `F08 closed` for a variant. `make` takes the
    profile and the vendor. `vendors` if not every wire can have the fault. `quiet`: its time limit
    is so tight that it is played alone. `length`: roughly how many real seconds it takes."""

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
    """One cell that is being played: its models, what the client saw, what missed so far."""

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
        """Record a failed check."""
        self.misses.append(what)
