"""Upstream calls that have to be awaited: each is a task for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context

from relay.provider import Call, Caller, Provider, Take
from relay.providers.faults import closed_early

CLOSE_TIMEOUT = 1.0
"""Seconds that a provider that closes waits for its calls to let go of their upstreams."""


class AwaitedCall:
    """One upstream call that a coroutine makes. What the coroutine raises is how the call
    ended; closing cancels it, by which it closes its upstream."""

    __slots__ = ("_caller", "_closed", "_task")

    def __init__(self, task: asyncio.Task[None], caller: Caller) -> None:
        self._caller = caller
        self._closed = False
        self._task = task
        task.add_done_callback(self._over)

    def close(self) -> None:
        """Cancel the coroutine; it may need some turns of the event loop to end."""
        self._closed = True
        self._task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        error = closed_early() if task.cancelled() else task.exception()
        if not self._closed or not (task.cancelled() or error is None):
            self._caller.ended(error)


class AwaitedCalls:
    """The awaited calls of one provider that are under way. Keeps their tasks alive."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, coroutine: Coroutine[None, None, None], caller: Caller) -> AwaitedCall:
        """Have `coroutine` make a call, in a task in the caller's context."""
        task = asyncio.get_running_loop().create_task(coroutine, context=caller.context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return AwaitedCall(task, caller)

    def fail(self, error: Exception, caller: Caller) -> AwaitedCall:
        """A call that ends in `error` as soon as the event loop gets to it."""
        return self.begin(_raise(error), caller)

    async def close(self) -> None:
        """Close the calls that are under way; their callers are told that they broke. Returns
        when their upstreams are closed. Idempotent."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)


async def _raise(error: Exception) -> None:
    raise error


async def ask(provider: Provider, call: Call, take: Take) -> None:
    """Make one upstream call and wait for its end; raises what it ended in. Cancelling this
    closes the call."""
    waiting = _Waiting(take)
    upstream = provider.begin(call, waiting)
    try:
        error = await waiting.end
    finally:
        upstream.close()
    if error is not None:
        raise error


class _Waiting:
    """A caller that awaits: `end` is done when its call is, with what it ended in."""

    def __init__(self, take: Take) -> None:
        self.context: Context = copy_context()
        self.take = take
        self.end: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def ended(self, error: BaseException | None) -> None:
        if not self.end.done():
            self.end.set_result(error)
