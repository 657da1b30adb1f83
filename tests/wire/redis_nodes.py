"""Nodes of one relay as stream logs in this process, on a real Redis server, and readers
that hold the rules of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from relay.core.errors import RelayError
from relay.core.events import Done, FinishReason, Start, Text, Timing, Usage
from relay.core.records import unescape
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Created, Cursor, Spec, StreamLog, Writer
from relay.stores.redis import RedisLimits, RedisLog, redis_client
from relay.stores.redis.stream import RedisStream
from tests.by_default import by_default

LEASE = 0.5
SESSION = "a-secret-session-name-0123456789"
DONE = Done("gpt", "m", FinishReason.STOP, Usage(1, 2, estimated=False), [], Timing(1, 2))

MakeNode = Callable[..., Awaitable[RedisLog]]


async def started(url: str, **limits: Any) -> RedisLog:
    """A node of its own."""
    terms = by_default(RedisLimits, **{"lease_seconds": LEASE, **limits})
    log = RedisLog(redis_client(url), terms, time.monotonic)
    try:
        await log.start()
    except ConnectionError:
        await log.close()
        raise
    return log


def spec(stream: str = "st1", id: str = "a", text: str = "hi") -> Spec:
    return Spec(stream, SESSION, id, None, ChatRequest("gpt", (Turn("user", text),)), 300)


async def settled(writer: Writer) -> None:
    """Wait until Redis has everything appended."""
    assert isinstance(writer, RedisStream)
    await writer.settled()


async def begun(log: StreamLog, **fields: str) -> Writer:
    """A stream with its first record."""
    claim = await log.create(spec(**fields))
    assert isinstance(claim, Created)
    claim.writer.append([Start(claim.writer.stream, "gpt", "m")])
    await settled(claim.writer)
    return claim.writer


class Reader:
    """Reads as an edge does: takes when woken, and holds the rules of a stream."""

    def __init__(self) -> None:
        self.text = ""
        self.last = -1
        self.ended = False
        self.error: RelayError | None = None
        self.cursor: Cursor | None = None

    async def attach(self, log: StreamLog, stream: str = "st1") -> Reader:
        """Read from where it is."""
        self.cursor = await log.attach(stream, self.last, self.read, None)
        self.read()
        return self

    def read(self) -> None:
        while self.cursor is not None and not self.ended:
            try:
                chunk = self.cursor.take(60_000)
            except RelayError as error:
                self.error, self.ended = error, True
                return
            if chunk is None:
                return
            assert chunk.first == self.last + 1
            self.last = chunk.last
            if chunk.kind == "token":
                self.text += unescape(chunk.body)
            self.ended = chunk.terminal

    def close(self) -> None:
        assert self.cursor
        self.cursor.close()


async def speak(writer: Writer, first: int, last: int) -> None:
    """Say numbers, so many at a time as a model does that is not faster than Redis."""
    for number in range(first, last):
        writer.append([Text(f"<{number}>")])
        await asyncio.sleep(0)
        if number % 7 == 0:
            await settled(writer)


async def speak_slowly(writer: Writer, last: int) -> None:
    """Say numbers, each an entry of its own."""
    for number in range(last):
        writer.append([Text(f"<{number}>")])
        await settled(writer)


def text(last: int) -> str:
    """What `speak` says, from 0 on."""
    return "".join(f"<{number}>" for number in range(last))
