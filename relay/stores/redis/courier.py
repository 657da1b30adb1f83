"""Sends batches to Redis and fetches what other nodes appended.

One loop, one round trip at a time: everything that streams ask for during a round trip goes out
with the next one. So batches adapt to the load: an idle node sends a token at once, a busy one
sends hundreds in one call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple, Protocol

from redis.exceptions import NoScriptError, ResponseError

from relay.stores.redis import keys, scripts
from relay.stores.redis.connection import RETRY_PAUSE, TROUBLE, RedisConnection, end, unanswered
from relay.stores.redis.encoding import Batch, nothing_after
from relay.stores.redis.scripts import Command, RedisTerms, ScriptVerdict
from relay.stores.redis.stream import RedisStream

ENTRIES_A_READ = 256
"""Log entries of one stream that one round trip reads at most."""

STREAMS_A_ROUND = 256
"""Streams that one round trip writes at most, and the same number that it reads."""

BYTES_A_ROUND = 4 * 1024 * 1024
"""Bytes of records after which a round trip takes no further stream."""

ROUND_SECONDS = 0.005
"""The least time from the start of one round trip to the start of the next, in seconds. Under load
each one carries more, which costs node and Redis less than half; the tokens of a single stream do
not wait."""

MAX_COMMANDS = 10_000
"""Commands without an answer that may wait. Beyond it the oldest are dropped; the keys that they
would have removed expire."""

STOP_SECONDS = 2.0
"""How long `stop` waits for commands that are being sent, in seconds."""


class _Sent(NamedTuple):
    """A batch as it was sent, None if only the account was sent. Another node may own the stream
    when the answer arrives. `account` is the number of the account request that the batch
    answers."""

    stream: RedisStream
    batch: Batch | None
    epoch: int
    account: int


class PendingWork:
    """The work for the next round trip to Redis. `arrived` is set when there is some."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.writing: dict[str, RedisStream] = {}
        self.reading: dict[str, RedisStream] = {}
        self.rewriting: dict[str, RedisStream] = {}
        self.commands: deque[Command] = deque(maxlen=MAX_COMMANDS)

    def write_soon(self, stream: RedisStream) -> None:
        """Write the records that a stream of this node has to append."""
        self.writing[stream.name] = stream
        self.arrived.set()

    def read_soon(self, stream: RedisStream) -> None:
        """Read a stream of another node, which may have more records."""
        self.reading[stream.name] = stream
        self.arrived.set()

    def rewrite_soon(self, stream: RedisStream) -> None:
        """Write a stream of this node anew, because Redis lost it."""
        self.rewriting[stream.name] = stream
        self.arrived.set()

    def run_soon(self, command: Command) -> None:
        """Run a command whose answer is not needed."""
        self.commands.append(command)
        self.arrived.set()


class Rewriter(Protocol):
    """Writes streams anew."""

    async def rewrite(self, stream: RedisStream) -> None:
        """Write a stream of this node anew after Redis lost it. Raises `RedisError`."""
        ...


class EndObserver(Protocol):
    """Is called when streams end."""

    def ending(self, stream: RedisStream) -> None:
        """This round trip sends the terminal record of a stream of this node. Commands that this
        call queues go with it."""
        ...


class Courier:
    """Does the pending work of one node."""

    def __init__(
        self,
        connection: RedisConnection,
        pending: PendingWork,
        terms: RedisTerms,
        rewriter: Rewriter,
        observer: EndObserver,
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._terms = terms
        self._rewriter = rewriter
        self._observer = observer
        self._idle = asyncio.Event()
        self._began = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the loop."""
        self._task = asyncio.create_task(self._run(), name="redis courier")

    async def stop(self) -> None:
        """Send what is still waiting, then stop. Idempotent."""
        if self._task is None or self._task.done():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS if self._connection.health.healthy else 0):
                await self.rest()
        await end(self._task)

    async def rest(self) -> None:
        """Wait until no work is pending and no round trip is running."""
        self._idle.clear()
        self._pending.arrived.set()
        await self._idle.wait()

    # The loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._pending.arrived.is_set():
                self._idle.set()
            await self._pending.arrived.wait()
            self._pending.arrived.clear()
            self._idle.clear()
            pause = self._began + ROUND_SECONDS - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            self._began = loop.time()
            try:
                await self._round()
            except TROUBLE as error:
                await self._connection.troubled(error)
                await asyncio.sleep(RETRY_PAUSE)
                self._pending.arrived.set()
            except Exception as error:  # a defect in one stream must not stop all others
                told = {"message": "unexpected error in a round trip to Redis", "exception": error}
                loop.call_exception_handler(told)
                await asyncio.sleep(RETRY_PAUSE)
                self._pending.arrived.set()

    async def _round(self) -> None:
        refusal = await self._rewrite_lost()
        writing, reading = self._pick_writing(), self._pick_reading()
        commands = list(self._pending.commands)
        self._pending.commands.clear()
        if not (writing or reading or commands):
            if refusal is not None:
                raise refusal
            return
        try:
            answers = await self._exchange(writing, reading, commands)
            commands.clear()
            await self._take_in(writing, reading, answers)
        except BaseException:
            self._put_back(writing, reading, commands)
            raise
        if refusal is not None:
            raise refusal
        if self._pending.writing or self._pending.reading:
            self._pending.arrived.set()

    async def _rewrite_lost(self) -> ResponseError | None:
        """Write anew what Redis lost. A refusal for one stream is returned and does not stop the
        others."""
        refusal: ResponseError | None = None
        for name, stream in list(self._pending.rewriting.items()):
            try:
                if stream.owned:
                    await self._rewriter.rewrite(stream)
            except NoScriptError:
                raise
            except ResponseError as error:
                refusal = error
                self._refused(stream)
                if stream.owned:
                    continue
            self._pending.rewriting.pop(name, None)
        return refusal

    def _pick_writing(self) -> list[_Sent]:
        picked: list[_Sent] = []
        size = 0
        for name, stream in list(self._pending.writing.items()):
            if len(picked) == STREAMS_A_ROUND or size >= BYTES_A_ROUND:
                break
            del self._pending.writing[name]
            if stream.fenced or not stream.has_more:
                continue
            batch = stream.next_batch()
            picked.append(_Sent(stream, batch, stream.epoch, stream.account_asked))
            if batch is not None:
                size += len(batch.payload)
                if batch.status != "running":
                    self._observer.ending(stream)
        return picked

    def _pick_reading(self) -> list[RedisStream]:
        """The streams to read. One that is marked during the round trip is read again with the
        next."""
        names = list(self._pending.reading)[:STREAMS_A_ROUND]
        return [self._pending.reading.pop(name) for name in names]

    def _put_back(
        self, writing: list[_Sent], reading: list[RedisStream], commands: list[Command]
    ) -> None:
        for sent in writing:
            self._pending.writing.setdefault(sent.stream.name, sent.stream)
        for stream in reading:
            if not stream.dead:
                self._pending.reading.setdefault(stream.name, stream)
        self._pending.commands.extendleft(reversed(commands))

    async def _exchange(
        self, writing: list[_Sent], reading: list[RedisStream], commands: list[Command]
    ) -> list[Any]:
        return await self._connection.exchange(
            chain(map(self._append, writing), map(_read_on, reading), commands)
        )

    def _append(self, sent: _Sent) -> Command:
        stream = sent.stream
        batch = sent.batch or nothing_after(len(stream.records))
        return scripts.append(
            *(stream.name, sent.epoch, batch.first, batch.count, batch.payload, batch.status),
            stream.noted() if stream.account_due else {},
            keep=self._terms.keep,
            linger=self._terms.linger,
        )

    async def _take_in(
        self, writing: list[_Sent], reading: list[RedisStream], answers: list[Any]
    ) -> None:
        refusal: ResponseError | None = None
        for sent, answer in zip(writing, answers, strict=False):
            if isinstance(answer, ResponseError):
                refusal = answer  # out of memory or read-only: Redis answers but keeps nothing
                self._refused(sent.stream)
            else:
                self._written(sent, answer)
            if sent.stream.has_more:
                self._pending.writing[sent.stream.name] = sent.stream
        for stream, answer in zip(reading, answers[len(writing) :], strict=False):
            if isinstance(answer, ResponseError):
                refusal = answer
                self._refused(stream)
                if not stream.dead:
                    self._pending.reading[stream.name] = stream
                continue
            stream.refused_since = None
            if await self._read(stream, answer) and len(answer) == ENTRIES_A_READ:
                self._pending.reading[stream.name] = stream
        if refusal is not None:
            raise refusal
        self._connection.health.kept() if writing else self._connection.health.answered()

    def _refused(self, stream: RedisStream) -> None:
        """Redis refused one stream. It may keep others meanwhile, so each stream has its own
        limit: after the node's patience its readers are told."""
        now = asyncio.get_running_loop().time()
        if stream.refused_since is None:
            stream.refused_since = now
        elif now - stream.refused_since > self._connection.health.patience:
            if stream.owned:
                stream.lose(unanswered())
            else:
                stream.fail(unanswered())

    def _written(self, sent: _Sent, answer: bytes) -> None:
        stream = sent.stream
        if stream.in_flight is not sent.batch or stream.epoch != sent.epoch:
            return
        verdict = scripts.verdict(answer)
        if verdict in (ScriptVerdict.OK, ScriptVerdict.DUPLICATE):
            stream.account_kept = sent.account
            stream.acknowledged()
        elif verdict is ScriptVerdict.FENCED:
            stream.lose()
        else:
            self._pending.rewrite_soon(stream)

    # Reading

    async def read_all(self, stream: RedisStream, *, from_start: bool = False) -> None:
        """Read a stream to its end at once. Raises `RedisError`."""
        after = 0 if from_start else len(stream.records)
        while not stream.dead:
            entries = await self._connection.run(_read_after(stream.name, after))
            if not await self._read(stream, entries, from_start=from_start or not after):
                return
            if len(entries) < ENTRIES_A_READ:
                return
            after = _next_seq(entries[-1])

    async def _read(self, stream: RedisStream, entries: Any, *, from_start: bool = False) -> bool:
        """Returns whether the entries were accepted and there may be more."""
        if stream.owned or stream.dead:
            return False
        for entry in entries:
            fields = entry[1]
            fits = stream.read(
                _next_seq(entry), int(fields[b"e"]), fields[b"r"], from_start=from_start
            )
            if not fits:
                await self.read_all(stream, from_start=True)
                return False
        return not stream.dead


def _read_on(stream: RedisStream) -> Command:
    return _read_after(stream.name, len(stream.records))


def _read_after(name: str, records: int) -> Command:
    return ("XRANGE", keys.log(name), f"{records + 1}-0", "+", "COUNT", ENTRIES_A_READ)


def _next_seq(entry: Any) -> int:
    return int(entry[0].split(b"-")[0])
