"""Several processes on one port (`WORKERS`): the kernel spreads connections over them.

Each worker is a whole relay with a listening socket of its own on the same address (SO_REUSEPORT,
socket(7)). The parent serves nothing: it holds the port, runs the embedded engine that the workers
share, tells them to stop, and restarts a worker that died.

Workers ignore signals and stop when the parent tells them over a pipe: a terminal and a service
manager signal every process of a group, and a worker must not take that for the second request to
stop. When the parent dies the pipe closes, and the workers stop in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from loguru import logger

from relay.engine.process import Engine, EngineEndpoint, EngineFailed

RESTART_PAUSE = 1.0
"""Seconds before a worker that died is restarted, so that one that dies at each start does not keep
the machine busy."""

ENGINE_WATCH = 1.0
"""Seconds between two checks of the engine, which is restarted where it died."""

EXIT_SECONDS = 1.0
"""How long the exit status of a worker whose files are closed is waited for. It takes
microseconds."""

STOP = b"stop"

Work = Callable[[int, int, EngineEndpoint | None, Connection], int]
"""Runs one worker and returns the exit status. Takes its number from 1, the port, the shared
engine, and the parent's pipe for `watch_parent`. Called in the new process, so it must be a
function that can be pickled."""


class SharedEngine:
    """The parent's engine, which a worker uses instead of an `Engine` of its own."""

    def __init__(self, endpoint: EngineEndpoint) -> None:
        self._endpoint = endpoint

    def start(self) -> None:
        """Do nothing: the parent starts the engine."""

    async def ready(self) -> EngineEndpoint:
        """Where the engine is reached; stays the same over restarts."""
        return self._endpoint

    async def settled(self) -> None:
        """Wait until the parent had time to restart a dead engine."""
        await asyncio.sleep(ENGINE_WATCH)

    async def close(self) -> None:
        """Do nothing: the parent closes the engine."""


class Workers:
    """The parent of `count` workers. Await `run` once."""

    def __init__(self, count: int, work: Work, *, host: str, port: int, engine: bool) -> None:
        self._count = count
        self._work = work
        self._address = (host, port)
        self._engine = Engine() if engine else None
        self._spawn = multiprocessing.get_context("spawn")
        self._processes: dict[int, BaseProcess] = {}
        self._pipes: dict[int, Connection] = {}
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self) -> int:
        """Start the workers and keep them until a signal comes; returns the exit status, 0 where
        every worker ended in order. Raises `OSError` where the port can't be used."""
        self._listen()
        with _reserved(*self._address) as port:
            async with self._running_engine() as endpoint:
                for number in range(1, self._count + 1):
                    if not self._stopping.is_set():
                        self._start(number, port, endpoint)
                await self._keep(port, endpoint)
                return await self._end()

    def stop(self) -> None:
        """The first call asks every worker to stop in order, the second kills them."""
        for number, process in self._processes.items():
            if self._stopping.is_set():
                process.kill()
            else:
                with contextlib.suppress(OSError):  # it is dead already
                    self._pipes[number].send_bytes(STOP)
        self._stopping.set()
        self._changed.set()

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)

    def _start(self, number: int, port: int, endpoint: EngineEndpoint | None) -> None:
        theirs, self._pipes[number] = self._spawn.Pipe(duplex=False)
        process = self._spawn.Process(
            target=_live, args=(self._work, number, port, endpoint, theirs)
        )
        process.start()
        theirs.close()
        self._processes[number] = process
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, self._died, process)

    def _died(self, process: BaseProcess) -> None:
        """The kernel closes a process's files a moment before its exit status is available, and
        nothing reports that: without the wait the worker would count as alive for ever."""
        asyncio.get_running_loop().remove_reader(process.sentinel)
        process.join(EXIT_SECONDS)
        self._changed.set()

    async def _keep(self, port: int, endpoint: EngineEndpoint | None) -> None:
        while not self._stopping.is_set():
            await self._changed.wait()
            self._changed.clear()
            for number in self._dead():
                if self._stopping.is_set():
                    return
                logger.error("worker {} died and is restarted", number)
                await self._pause()
                if not self._stopping.is_set():
                    self._start(number, port, endpoint)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESTART_PAUSE):
                await self._stopping.wait()

    def _dead(self) -> list[int]:
        return [n for n, process in self._processes.items() if process.exitcode is not None]

    async def _end(self) -> int:
        while len(self._dead()) < len(self._processes):
            await self._changed.wait()
            self._changed.clear()
        return 0 if all(process.exitcode == 0 for process in self._processes.values()) else 1

    @contextlib.asynccontextmanager
    async def _running_engine(self) -> AsyncIterator[EngineEndpoint | None]:
        if self._engine is None:
            yield None
            return
        watch = None
        try:
            endpoint = await self._engine.ready()
            watch = asyncio.create_task(_watch(self._engine), name="engine watch")
            yield endpoint
        finally:
            if watch is not None:
                watch.cancel()
            await self._engine.close()


async def _watch(engine: Engine) -> None:
    while True:
        await asyncio.sleep(ENGINE_WATCH)
        try:
            await engine.ready()
        except EngineFailed as failure:
            logger.error("the embedded model is down: {}", failure)


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Hold a port without listening on it, so that port 0 is the same for every worker."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
        yield held.getsockname()[1]


def _live(
    work: Work, number: int, port: int, endpoint: EngineEndpoint | None, parent: Connection
) -> None:
    """Run a worker in its new process, with signals ignored."""
    for signalled in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signalled, signal.SIG_IGN)
    sys.exit(work(number, port, endpoint, parent))


def watch_parent(parent: Connection, stop: Callable[[], None]) -> None:
    """Call `stop` each time the parent sends a request to stop, and when it has died. Needs a
    running loop."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        try:
            parent.recv_bytes()
        except EOFError:
            loop.remove_reader(parent.fileno())
        stop()

    loop.add_reader(parent.fileno(), hear)
