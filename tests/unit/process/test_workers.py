"""The parent of several workers, over processes whose ends are the test's."""

from __future__ import annotations

import asyncio
import os
import signal
from multiprocessing.connection import Connection, Pipe
from typing import Any

from relay.process.workers import Workers


class Process:
    """Ends as the kernel lets a process end: its files are closed first, and its exit
    status is there only for who waits for it."""

    def __init__(self, parent: Connection) -> None:
        self.exitcode: int | None = None
        self._told = os.dup(parent.fileno())
        self.sentinel, self._held = os.pipe()

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._told, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._told)
        os.close(self._told)
        os.close(self._held)

    def join(self, timeout: float | None = None) -> None:
        self.exitcode = 0


class Spawn:
    """Stands in for the multiprocessing context."""

    Pipe = staticmethod(Pipe)

    def Process(self, *, target: Any, args: tuple[Any, ...]) -> Process:
        return Process(args[-1])


async def test_a_worker_whose_exit_status_comes_after_its_files_are_closed_counts_as_ended(
    monkeypatch: Any,
) -> None:
    workers = Workers(2, lambda *_: 0, host="127.0.0.1", port=0, engine=False)
    monkeypatch.setattr(workers, "_spawn", Spawn())
    running = asyncio.create_task(workers.run())
    await asyncio.sleep(0)
    try:
        workers.stop()
        async with asyncio.timeout(10):
            assert await running == 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)
