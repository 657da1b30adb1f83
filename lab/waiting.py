"""Waits for conditions that signal nothing: checks them repeatedly, until a deadline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 30.0
"""Seconds that anything may take on a busy machine."""

EAGER = 200
"""Number of checks without a pause, one in each turn of the event loop: enough for events within
this process. After them each check is followed by a pause, which leaves the processor to others."""

PAUSE = 0.002
"""Seconds between two of the later checks."""


async def until(condition: Callable[[], Any], *, within: float | None = PATIENCE) -> Any:
    """Wait until `condition`, a function or a coroutine function, returns something true, and
    return that. Raises `TimeoutError` after `within` seconds, or never if that is None because the
    caller has a deadline of its own. Also raises what `condition` raises."""
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
    """The same for code without an event loop, with `pause` seconds between two checks."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"condition not met within {within:g} s")
        time.sleep(pause)
