"""One timer for the deadlines of all streams and connections: a hashed timing wheel (Varghese
and Lauck).

A timer of the event loop weighs half a kilobyte, which is a twentieth of a running stream
and a fortieth of an idle connection, and most deadlines are moved or dropped long before they
come. Here a deadline is a place in a set: each set, a *spoke*, holds the deadlines that fall
within one step of time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context
from math import ceil, floor
from typing import Protocol

STEP = 0.05
"""Seconds that a spoke covers: a member is called by so much after its deadline. The
shortest wait of the failover policy is five times as long."""

LOOP_TICK = 0.001
"""Seconds that the event loop's timers may come early by: uvloop counts whole milliseconds.
Without it the timer would be armed again and again until the clock has come so far."""

NO_CHAT = Context()
"""What a member runs in whose deadlines belong to no chat."""


class Member(Protocol):
    """An object with a deadline. Its `tick` runs in `context`, because the timer's own context is
    that of whichever member armed it."""

    @property
    def context(self) -> Context:
        """The context for `tick`, so that its log lines carry the right names."""
        ...

    def tick(self) -> None:
        """The deadline has come."""
        ...


class TimerWheel:
    """Calls `tick` of each member once its deadline has come, in a turn of the event loop
    of its own. `clock` gives seconds, monotonic. A member has one deadline at a time; one that
    wants to be called again joins again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._spokes: dict[int, set[Member]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0

    def join(self, member: Member, due: float) -> None:
        """Have `member.tick` called at the time `due`, or at once where that has passed. Needs a
        running loop. A member that was called has left the wheel."""
        spoke = ceil(due / STEP)
        members = self._spokes.get(spoke)
        if members is None:
            self._spokes[spoke] = {member}
            heapq.heappush(self._order, spoke)
            self._arm()
        else:
            members.add(member)

    def leave(self, member: Member, due: float) -> None:
        """Do not call `member`, which had joined for `due`. Idempotent. A spoke that is left
        empty stays until it is the next one: there are only so many."""
        if members := self._spokes.get(ceil(due / STEP)):
            members.discard(member)

    def turn(self) -> None:
        """Call the members whose deadline has come. Called by the timer."""
        self._timer = None
        loop, reached = asyncio.get_running_loop(), floor(self.clock() / STEP)
        while self._order and self._order[0] <= reached:
            for member in self._spokes.pop(heapq.heappop(self._order)):
                loop.call_soon(member.tick, context=member.context)  # one may raise
        self._arm()

    def _arm(self) -> None:
        """Set the timer for the next spoke that has members."""
        while self._order and not self._spokes[self._order[0]]:
            del self._spokes[heapq.heappop(self._order)]
        if not self._order or (self._timer is not None and self._armed <= self._order[0]):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._order[0]
        wait = max(0.0, self._armed * STEP - self.clock())
        self._timer = asyncio.get_running_loop().call_later(wait + LOOP_TICK, self.turn)
