"""Upstream calls that have to be awaited: each runs in a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import TypeAlias

from relay.core.events import Event
from relay.core.provider import Call, Caller, Provider, Take
from relay.providers.decoding.faults import closed_early

CLOSE_TIMEOUT = 1.0
"""Seconds that a provider waits, when it closes, for its calls to close their upstreams."""


Way: TypeAlias = Callable[[Take], Coroutine[None, None, None]]
"""Makes one call and passes its events to the `Take`. Raises the error that the call ended in;
cancelling it closes the upstream."""


class AwaitedCall:
    """One upstream call that `way` makes, in a task that runs in its caller's context. `tasks`
    holds the task while it runs."""

    __slots__ = ("_caller", "_closed", "_task")

    def __init__(self, way: Way, caller: Caller, tasks: set[asyncio.Task[None]]) -> None:
        self._caller = caller
        self._closed = False
        loop = asyncio.get_running_loop()
        task = loop.create_task(way(self._take), context=caller.context)
        self._task: asyncio.Task[None] | None = task
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._over)

    def close(self) -> None:
        """Cancel the task, which may need some turns of the event loop to end."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task = None  # the error's traceback refers to this object: avoid a reference cycle
        error = closed_early() if task.cancelled() else task.exception()
        if self._closed and (task.cancelled() or error is None):
            return
        self._caller.ended(error)

    def _take(self, events: Sequence[Event]) -> None:
        if not self._closed:
            self._caller.take(events)


class AwaitedCalls:
    """The awaited calls of one provider that are running. Keeps their tasks alive."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, way: Way, caller: Caller) -> AwaitedCall:
        """Start a call that `way` makes."""
        return AwaitedCall(way, caller, self._tasks)

    def fail(self, error: Exception, caller: Caller) -> AwaitedCall:
        """A call that ends in `error` in the next turn of the event loop."""

        async def raises(take: Take) -> None:
            raise error

        return self.begin(raises, caller)

    async def close(self) -> None:
        """Close the running calls; their callers get an error. Returns when their upstreams are
        closed. Idempotent."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)


async def begin_and_wait(provider: Provider, call: Call, take: Take) -> None:
    """Make one upstream call and wait for its end; raises the error it ended in. Cancelling this
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
    """A caller that awaits. `end` is done when the call is over; its result is the call's error,
    or None."""

    def __init__(self, take: Take) -> None:
        self.context: Context = copy_context()
        self.take = take
        self.end: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def ended(self, error: BaseException | None) -> None:
        if not self.end.done():
            self.end.set_result(error)
