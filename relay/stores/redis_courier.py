"""Carries batches to Redis and brings back what other nodes appended.

One loop, one round trip at a time: whatever streams want while a round trip runs goes out
together with the next one. That is the whole of the batching, and it adapts by itself: an
idle node sends a token at once, a busy one sends hundreds with one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from relay.errors import Code, RelayError
from relay.stores import redis_keys as keys
from relay.stores.redis_stream import RedisStream

ENTRIES_A_READ = 256
"""Log entries that one round trip brings of one stream."""

MAX_PAUSE = 15.0
"""Seconds that delivery waits for a Redis that does not answer, before readers are told."""

RETRY_PAUSE = 0.1
"""Seconds between tries while Redis does not answer."""

CANCEL_AGAIN = 0.05
"""Seconds after which a task that outlived its cancellation is cancelled again."""

SCRIPTS = ("create", "append", "renew", "take_over", "claim", "open_session")


class Courier:
    """Appends and reads for every stream of this node.

    `rewrite` is awaited for a stream that Redis lost while this node owns it;
    `trouble` is told of each failed round trip, None when one worked again.
    """

    def __init__(
        self,
        client: Any,
        clock: Callable[[], float],
        *,
        keep_ms: int,
        rewrite: Callable[[RedisStream], Any],
    ) -> None:
        self.client = client
        self.answering_since: float | None = None
        self._clock = clock
        self._keep_ms = keep_ms
        self._rewrite = rewrite
        self._silent_since: float | None = None
        self._work = asyncio.Event()
        self._writing: dict[str, RedisStream] = {}
        self._reading: dict[str, RedisStream] = {}
        self._lost: dict[str, RedisStream] = {}
        self._digests: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Whether the last round trip worked."""
        return self._silent_since is None

    async def start(self) -> None:
        """Load the scripts and begin to carry. Raises `RedisError`."""
        await self._load()
        self.worked()
        self._task = asyncio.create_task(self._run(), name="redis courier")

    async def stop(self) -> None:
        """Carry what is still waiting, then stop."""
        if self._task is None:
            return
        if self._writing and self.healthy:
            await self._round()
        await end(self._task)

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

    async def read_all(self, stream: RedisStream) -> None:
        """Read a stream to its head at once. Raises `RedisError`."""
        while True:
            after = f"{len(stream.records) + 1}-0"
            answer = await self.client.xrange(
                keys.log(stream.name), after, "+", count=ENTRIES_A_READ
            )
            self._read(stream, answer)
            if len(answer) < ENTRIES_A_READ:
                return

    async def call(self, script: str, names: list[str], *args: str | int | bytes) -> Any:
        """Run one script. Raises `RedisError` where Redis does not answer."""
        try:
            answer = await self.client.evalsha(self._digests[script], len(names), *names, *args)
        except NoScriptError:
            await self._load()
            return await self.call(script, names, *args)
        return answer

    def failed(self) -> None:
        """A round trip failed; the node is not to take streams over for a while."""
        self.answering_since = None
        if self._silent_since is None:
            self._silent_since = self._clock()

    def worked(self) -> None:
        """A round trip worked."""
        self._silent_since = None
        if self.answering_since is None:
            self.answering_since = self._clock()

    async def _load(self) -> None:
        for name in SCRIPTS:
            self._digests[name] = await self.client.script_load(keys.script(name))

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._round()
                self.worked()
            except (RedisError, OSError, TimeoutError):
                self.failed()
                self._give_up_if_long()
                await asyncio.sleep(RETRY_PAUSE)
                self._work.set()

    def _give_up_if_long(self) -> None:
        if self._silent_since is None or self._clock() - self._silent_since < MAX_PAUSE:
            return
        trouble = RelayError(
            Code.INTERNAL, "the relay's store does not answer; try again", retryable=True
        )
        for stream in self._writing.values():
            stream.lose(trouble)
        for stream in self._reading.values():
            stream.trouble = trouble
            stream.wake()
        self._writing.clear()
        self._reading.clear()

    async def _round(self) -> None:
        for name, stream in list(self._lost.items()):
            if stream.owned:
                await self._rewrite(stream)
            del self._lost[name]
        writing = [s for s in self._writing.values() if not s.fenced and s.next_batch()]
        reading = list(self._reading.values())
        if not writing and not reading:
            self._writing.clear()
            return
        answers = await self._exchange(writing, reading)
        self._reading.clear()
        for stream, answer in zip(writing, answers, strict=False):
            await self._written(stream, answer)
        for stream, answer in zip(reading, answers[len(writing) :], strict=False):
            self._read(stream, answer)
        self._writing = {n: s for n, s in self._writing.items() if not s.fenced and s.has_more}
        if self._writing or self._reading:
            self._work.set()

    async def _exchange(self, writing: list[RedisStream], reading: list[RedisStream]) -> list[Any]:
        async with self.client.pipeline(transaction=False) as pipe:
            for stream in writing:
                self._queue_append(pipe, stream)
            for stream in reading:
                after = f"{len(stream.records) + 1}-0"
                pipe.xrange(keys.log(stream.name), after, "+", count=ENTRIES_A_READ)
            for stream in writing:
                _queue_end(pipe, stream)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await self._load()
            return await self._exchange(writing, reading)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
                raise answer
        return answers

    def _queue_append(self, pipe: Any, stream: RedisStream) -> None:
        batch = stream.next_batch()
        assert batch is not None
        channel = keys.stream(stream.name)
        pipe.evalsha(
            self._digests["append"],
            3,
            channel,
            keys.log(stream.name),
            keys.lease(stream.name),
            stream.epoch,
            batch.first,
            batch.count,
            batch.payload,
            self._keep_ms,
            batch.status,
            channel,
        )

    async def _written(self, stream: RedisStream, answer: Any) -> None:
        if isinstance(answer, ResponseError):
            raise answer  # out of memory, read-only: Redis answers but keeps nothing
        if answer in (b"ok", b"duplicate"):
            stream.acknowledged()
        elif answer == b"fenced":
            stream.lose()
        else:
            await self._rewrite(stream)

    def _read(self, stream: RedisStream, answer: Any) -> None:
        if isinstance(answer, ResponseError):
            return
        for entry_id, fields in answer:
            stream.read(int(entry_id.split(b"-")[0]), fields[b"r"])
        if len(answer) == ENTRIES_A_READ:
            self._reading[stream.name] = stream


def _queue_end(pipe: Any, stream: RedisStream) -> None:
    """A stream that ends makes room for another one in its session."""
    if stream.in_flight and stream.in_flight.status != "running" and stream.spec:
        pipe.srem(keys.running(stream.spec.session), stream.name)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they have ended. The Redis client may turn a cancellation that
    meets it in the middle of a reply into an error of its own, which a retry loop takes
    for a failed call: once is not enough."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN)
