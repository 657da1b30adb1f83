"""The relay as it is run: `server.py` in a process of its own, its vendor played on
loopback, and a wire to it that the test can cut."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from lab.upstreams.server import Upstream

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def server(upstream: Upstream, logs: Path, **variables: str) -> AsyncIterator[int]:
    """A running relay whose provider `gpt` is `upstream`; yields its port."""
    port = free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {
        "PORT": str(port),
        "SUPPORTED_PROVIDERS": "gpt",
        "OPENAI_API_KEY": "test-key",
        "OPENAI_BASE_URL": upstream.base_url("openai"),
        "LOG_DIR": str(logs),
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "server.py"), env=environment, cwd=logs
    )
    try:
        await _until_alive(port, process)
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            raise


async def _until_alive(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as http:
        while True:
            assert process.returncode is None, "the server ended at its start"
            with suppress(aiohttp.ClientConnectionError):
                async with http.get(f"http://127.0.0.1:{port}/livez") as response:
                    assert response.status == 200
                    return
            await asyncio.sleep(0)


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
