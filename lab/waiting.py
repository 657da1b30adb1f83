"""Waiting for something that nothing signals: look again until it is so, or until a deadline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 30.0
"""Seconds that anything may take on a busy machine."""

EAGER = 200
"""Looks without a pause, one each turn of the event loop: enough for what happens in this
process. Whoever is waited for longer gets the processor in between."""

PAUSE = 0.002
"""Seconds between two looks after those."""


async def until(condition: Callable[[], Any], *, within: float | None = PATIENCE) -> Any:
    """Wait until `condition`, a function or a coroutine function, returns something true,
    and return that. Raises `TimeoutError` after `within` seconds, never where that is None
    because the caller has a deadline of its own, and whatever `condition` raises.
    """
    looks = 0
    async with asyncio.timeout(within):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            looks += 1
            await asyncio.sleep(0 if looks < EAGER else PAUSE)


def block_until(
    condition: Callable[[], object], *, within: float = PATIENCE, pause: float = PAUSE
) -> None:
    """The same where no event loop runs, with `pause` seconds between two looks."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {within:g} s")
        time.sleep(pause)
