"""The relay as it is run: `server.py` in a process of its own, its vendor played on
loopback, and a wire to it that the test can cut."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lab.relay_process import RelayProcess
from lab.upstreams.server import Upstream


@asynccontextmanager
async def server(upstream: Upstream, logs: Path, **variables: str) -> AsyncIterator[int]:
    """A running relay whose provider `gpt` is `upstream`; yields its port."""
    environment = {
        "SUPPORTED_PROVIDERS": "gpt",
        "OPENAI_API_KEY": "test-key",
        "OPENAI_BASE_URL": upstream.base_url("openai"),
        "LOG_DIR": str(logs),
        **variables,
    }
    async with RelayProcess(logs, environment) as relay:
        yield relay.port


class Wire:
    """A TCP wire to a port, cut at will."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Wire]:
        """The wire, listening."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection, as a dead network does."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, back), (there, writer)):
            self._writers.add(sink)
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: StreamReader, sink: StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()
            self._writers.discard(sink)
