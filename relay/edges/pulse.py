"""One timer for the heartbeats of all sockets, instead of one each.

A timer of uvloop's weighs half a kilobyte, which is a fortieth of an idle connection.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

STEP = 0.1
"""Seconds between two beats of the pulse. Each serves the sockets that came within as long
a time, so that ten thousand are not written to in one turn of the loop."""


class Beating(Protocol):
    """Who wants a beat an interval."""

    def beat(self) -> None:
        """An interval has passed. Does not wait."""
        ...


class Pulse:
    """Calls `beat` of every member once in `interval` seconds, the first time about an
    interval after it joined. Its timer runs only while there are members."""

    def __init__(self, interval: float) -> None:
        count = max(1, round(interval / STEP))
        self._step = interval / count
        self._parts: list[set[Beating]] = [set() for _ in range(count)]
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def join(self, member: Beating) -> None:
        """Begin to beat for `member`. Call it in a running loop."""
        self._parts[self._next - 1].add(member)
        if self._timer is None:
            self._wait()

    def leave(self, member: Beating) -> None:
        """Beat for it no more. Idempotent."""
        for part in self._parts:
            part.discard(member)
        if self._timer is not None and not any(self._parts):
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._step, self._beat)

    def _beat(self) -> None:
        part = self._parts[self._next]
        self._next = (self._next + 1) % len(self._parts)
        self._wait()
        for member in list(part):
            member.beat()
