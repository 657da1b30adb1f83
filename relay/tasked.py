"""An upstream call that a provider makes by awaiting: a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context

from relay.provider import Caller


class Tasked:
    """Runs `run` in a task, in `context`, and tells `caller` what came of it. Closing cancels
    the task, by which the provider closes its upstream."""

    __slots__ = ("_caller", "task")

    def __init__(self, run: Coroutine[None, None, None], caller: Caller, context: Context) -> None:
        self._caller = caller
        self.task = asyncio.get_running_loop().create_task(run, context=context)
        self.task.add_done_callback(self._over)

    def close(self) -> None:
        """See `Upstream.close`. The task may need some turns of the event loop for it."""
        self.task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._caller.ended(task.exception())
