"""Carries batches to Redis and brings back what other nodes appended.

One loop, one round trip at a time: whatever streams want while a round trip runs goes out
together with the next one. That is the whole of the batching, and it adapts by itself: an
idle node sends a token at once, a busy one sends hundreds with one call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from relay.stores import redis_keys as keys
from relay.stores.redis_calls import Calls
from relay.stores.redis_entries import Batch, fields, nothing_after
from relay.stores.redis_listener import RETRY_PAUSE, end
from relay.stores.redis_stream import RedisStream
from relay.stores.redis_trouble import TROUBLE, unanswered

ENTRIES_A_READ = 256
"""Log entries that one round trip brings of one stream."""

STREAMS_A_ROUND = 256
"""Streams that one round trip writes at most, and as many that it reads."""

BYTES_A_ROUND = 4 * 1024 * 1024
"""Bytes of records after which a round trip takes no more along."""

ROUND_SECONDS = 0.005
"""Seconds from the start of one round trip to that of the next at least: under load they
carry more each, which costs node and Redis less than half; a lone stream's tokens do not wait."""

ERRANDS = 10_000
"""Commands without an answer that may wait; beyond it the oldest are dropped, and what
they would have tidied up expires by itself."""

STOP_SECONDS = 2.0
"""How long `stop` waits for what is on its way."""


class _Sent(NamedTuple):
    """A batch as it was sent, None where only the account was. The stream may be another
    writer's by the time of the answer. `account` says which asking it answers."""

    stream: RedisStream
    batch: Batch | None
    epoch: int
    account: int


class Courier:
    """Appends and reads for every stream of this node.

    `rewrite` is awaited for a stream that Redis lost while this node owns it. `ending` is
    told of one whose terminal record goes out; errands that it leaves go with that.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        keep_ms: int,
        linger_ms: int,
        rewrite: Callable[[RedisStream], Awaitable[None]],
        ending: Callable[[RedisStream], None],
    ) -> None:
        self._calls = calls
        self._keep_ms = keep_ms
        self._linger_ms = linger_ms
        self._rewrite = rewrite
        self._ending = ending
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._writing: dict[str, RedisStream] = {}
        self._reading: dict[str, RedisStream] = {}
        self._lost: dict[str, RedisStream] = {}
        self._errands: deque[tuple[str | int | bytes, ...]] = deque(maxlen=ERRANDS)
        self._began = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to carry."""
        self._task = asyncio.create_task(self._run(), name="redis courier")

    async def stop(self) -> None:
        """Carry what is still waiting, then stop. Idempotent."""
        if self._task is None or self._task.done():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS if self._calls.pulse.healthy else 0):
                await self.rest()
        await end(self._task)

    async def rest(self) -> None:
        """Wait until nothing is on its way."""
        self._idle.clear()
        self._work.set()
        await self._idle.wait()

    # What is to be carried

    def write_soon(self, stream: RedisStream) -> None:
        """A stream of this node has records to append."""
        self._writing[stream.name] = stream
        self._work.set()

    def read_soon(self, stream: RedisStream) -> None:
        """A stream that this node follows may have more."""
        self._reading[stream.name] = stream
        self._work.set()

    def write_again(self, stream: RedisStream) -> None:
        """Redis has lost a stream of this node: write it anew with the next round trip."""
        self._lost[stream.name] = stream
        self._work.set()

    def run_errand(self, *command: str | int | bytes) -> None:
        """Have a command carried out that nobody waits for."""
        self._errands.append(command)
        self._work.set()

    def run_script(self, script: str, names: list[str], *args: str | int | bytes) -> None:
        """Have a script run that nobody waits for."""
        self.run_errand("EVALSHA", self._calls.digests[script], len(names), *names, *args)

    # The loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._work.is_set():
                self._idle.set()
            await self._work.wait()
            self._work.clear()
            self._idle.clear()
            pause = self._began + ROUND_SECONDS - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            self._began = loop.time()
            try:
                await self._round()
            except TROUBLE as error:
                await self._calls.troubled(error)
                await asyncio.sleep(RETRY_PAUSE)
                self._work.set()
            except Exception as error:  # a defect in one stream must not stop all others
                told = {"message": "a round trip to Redis met a defect", "exception": error}
                loop.call_exception_handler(told)
                await asyncio.sleep(RETRY_PAUSE)
                self._work.set()

    async def _round(self) -> None:
        refusal = await self._rewrite_lost()
        writing, reading = self._pick_writing(), self._pick_reading()
        errands, self._errands = self._errands, deque(maxlen=ERRANDS)
        if not (writing or reading or errands):
            if refusal is not None:
                raise refusal
            return
        try:
            answers = await self._exchange(writing, reading, errands)
            errands.clear()
            await self._take_in(writing, reading, answers)
        except BaseException:
            self._put_back(writing, reading, errands)
            raise
        if refusal is not None:
            raise refusal
        if self._writing or self._reading:
            self._work.set()

    async def _rewrite_lost(self) -> ResponseError | None:
        """Write anew what Redis lost. What it refuses of one stream, which is returned, holds
        up no other."""
        refusal: ResponseError | None = None
        for name, stream in list(self._lost.items()):
            try:
                if stream.owned:
                    await self._rewrite(stream)
            except NoScriptError:
                raise
            except ResponseError as error:
                refusal = error
                self._refused(stream)
                if stream.owned:
                    continue
            self._lost.pop(name, None)
        return refusal

    def _pick_writing(self) -> list[_Sent]:
        picked: list[_Sent] = []
        size = 0
        for name, stream in list(self._writing.items()):
            if len(picked) == STREAMS_A_ROUND or size >= BYTES_A_ROUND:
                break
            del self._writing[name]
            if stream.fenced or not stream.has_more:
                continue
            batch = stream.next_batch()
            picked.append(_Sent(stream, batch, stream.epoch, stream.account_asked))
            if batch is not None:
                size += len(batch.payload)
                if batch.status != "running":
                    self._ending(stream)
        return picked

    def _pick_reading(self) -> list[RedisStream]:
        """Whose wake-up comes while the round trip runs is read again with the next one."""
        names = list(self._reading)[:STREAMS_A_ROUND]
        return [self._reading.pop(name) for name in names]

    def _put_back(
        self, writing: list[_Sent], reading: list[RedisStream], errands: deque[Any]
    ) -> None:
        for sent in writing:
            self._writing.setdefault(sent.stream.name, sent.stream)
        for stream in reading:
            if not stream.dead:
                self._reading.setdefault(stream.name, stream)
        self._errands.extendleft(reversed(errands))

    async def _exchange(
        self, writing: list[_Sent], reading: list[RedisStream], errands: deque[Any]
    ) -> list[Any]:
        async with self._calls.client.pipeline(transaction=False) as pipe:
            for sent in writing:
                self._queue_append(pipe, sent)
            for stream in reading:
                _queue_read(pipe, stream)
            for errand in errands:
                pipe.execute_command(*errand)
            return await self._calls.checked(pipe)

    def _queue_append(self, pipe: Any, sent: _Sent) -> None:
        stream = sent.stream
        name, batch = stream.name, sent.batch or nothing_after(len(stream.records))
        noted = stream.noted() if stream.account_due else {}
        self._calls.queue(
            *(pipe, "append", [keys.stream(name), keys.log(name), keys.lease(name)]),
            *(sent.epoch, batch.first, batch.count, batch.payload),
            *(self._keep_ms, batch.status, self._linger_ms, *fields(noted)),
        )

    async def _take_in(
        self, writing: list[_Sent], reading: list[RedisStream], answers: list[Any]
    ) -> None:
        refusal: ResponseError | None = None
        for sent, answer in zip(writing, answers, strict=False):
            if isinstance(answer, ResponseError):
                refusal = answer  # out of memory, read-only: it answers but keeps nothing
                self._refused(sent.stream)
            else:
                self._written(sent, answer)
            if sent.stream.has_more:
                self._writing[sent.stream.name] = sent.stream
        for stream, answer in zip(reading, answers[len(writing) :], strict=False):
            if isinstance(answer, ResponseError):
                refusal = answer
                self._refused(stream)
                if not stream.dead:
                    self._reading[stream.name] = stream
                continue
            stream.refused_since = None
            if await self._read(stream, answer) and len(answer) == ENTRIES_A_READ:
                self._reading[stream.name] = stream
        if refusal is not None:
            raise refusal
        self._calls.pulse.kept() if writing else self._calls.pulse.answered()

    def _refused(self, stream: RedisStream) -> None:
        """Others may be kept meanwhile; no reader waits longer than the node's patience."""
        now = asyncio.get_running_loop().time()
        if stream.refused_since is None:
            stream.refused_since = now
        elif now - stream.refused_since > self._calls.pulse.patience:
            if stream.owned:
                stream.lose(unanswered())
            else:
                stream.fail(unanswered())

    def _written(self, sent: _Sent, answer: bytes) -> None:
        stream = sent.stream
        if stream.in_flight is not sent.batch or stream.epoch != sent.epoch:
            return
        if answer in (b"ok", b"duplicate"):
            stream.account_kept = sent.account
            stream.acknowledged()
        elif answer == b"fenced":
            stream.lose()
        else:
            self.write_again(stream)

    # Reading

    async def read_all(self, stream: RedisStream, *, from_start: bool = False) -> None:
        """Read a stream to its head at once. Raises `RedisError`."""
        after = 0 if from_start else len(stream.records)
        while not stream.dead:
            entries = await self._calls.client.xrange(
                keys.log(stream.name), f"{after + 1}-0", "+", count=ENTRIES_A_READ
            )
            if not await self._read(stream, entries, from_start=from_start or not after):
                return
            if len(entries) < ENTRIES_A_READ:
                return
            after = _next_seq(entries[-1])

    async def _read(self, stream: RedisStream, entries: Any, *, from_start: bool = False) -> bool:
        """Whether the entries were taken as they are, and more may follow them."""
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


def _queue_read(pipe: Any, stream: RedisStream) -> None:
    after = f"{len(stream.records) + 1}-0"
    pipe.xrange(keys.log(stream.name), after, "+", count=ENTRIES_A_READ)


def _next_seq(entry: Any) -> int:
    return int(entry[0].split(b"-")[0])
