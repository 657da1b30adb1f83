"""Keeps what this node owns and follows: leases, and readers' presence.

One tick every third of the lease does it for all streams, with one round trip for a few
hundred of them; what can't wait for a tick is published.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from redis.exceptions import ResponseError

from relay.stores import redis_keys as keys
from relay.stores.redis_calls import Calls
from relay.stores.redis_claims import Claims, Terms
from relay.stores.redis_courier import Courier
from relay.stores.redis_entries import fields
from relay.stores.redis_listener import RETRY_PAUSE, Listener, end
from relay.stores.redis_sessions import Session, Sessions
from relay.stores.redis_stream import RedisStream
from relay.stores.redis_takeover import Heir
from relay.stores.redis_trouble import TROUBLE, reason

MISSES = 3
"""Ticks in a row at which Redis lacks a followed stream, or records that it counts, before
its readers are told: its owner has so long to write it anew."""

STREAMS_A_TRIP = 256
"""Streams that one round trip of a tick looks after."""

PRESENCE_LEASES = 2
"""Leases for which a node's word holds that it reads a stream."""

END_LEASES = 3
"""Leases for which a node sees to it that a stream ends that a client wanted to end."""

MARKER_LEASES = 6
"""Leases for which a node's mark lasts, by which it knows a Redis that came back empty."""


class Keeper:
    """Leases and signals for `streams`, which its owner fills and empties by `stream_of`
    and the streams' own words."""

    def __init__(
        self,
        calls: Calls,
        courier: Courier,
        clock: Callable[[], float],
        terms: Terms,
        *,
        node: str,
        streams: Mapping[str, RedisStream],
        stream_of: Callable[[str], RedisStream],
        claims: Claims,
        sessions: Sessions,
        heir: Heir,
    ) -> None:
        self._node = node
        self._calls = calls
        self._courier = courier
        self._clock = clock
        self._terms = terms
        self._streams = streams
        self._stream_of = stream_of
        self._claims = claims
        self._sessions = sessions
        self._heir = heir
        self._ending: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = Listener(
            calls.client,
            heard=self._heard,
            joined=self._subscribed,
            failed=lambda error: calls.pulse.failed(reason(error)),
        )

    async def start(self) -> None:
        """Subscribe and begin to tick. Raises `RedisError`."""
        await self._listener.start(keys.node(self._node))
        await self._mark()
        self._spawn(self._tick_for_ever(), "redis keeper")

    async def stop(self) -> None:
        """Stop ticking and listening. Idempotent."""
        await end(*self._tasks)
        await self._listener.stop()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Streams of other nodes

    async def follow(self, stream: RedisStream) -> None:
        """Be told of what is appended to a stream, and see how it does. The caller reads
        what is there already. Raises `RedisError`."""
        self.listen(stream)
        await self.look_after(stream)

    def listen(self, stream: RedisStream) -> None:
        """Be told of what is appended to a stream; it is read once that has begun."""
        if not stream.followed:
            stream.followed = True
            self._listener.want(keys.stream(stream.name))

    def unfollow(self, stream: RedisStream) -> None:
        """Nobody here reads the stream any more, or this node writes it."""
        if stream.followed:
            stream.followed = False
            self._listener.leave(keys.stream(stream.name))
            self._courier.run_errand("ZREM", keys.readers(stream.name), self._node)

    def see_it_end(self, name: str, owner: str) -> None:
        """A client wants a stream of another node to end: tell the owner, and take its
        place where it does not live."""
        if owner and owner != self._node:
            self._courier.run_errand("SPUBLISH", keys.node(owner), name)
        self._ending[name] = self._clock() + END_LEASES * self._terms.lease / 1000

    # Signals

    def _heard(self, channel: str, data: bytes) -> None:
        if channel == keys.node(self._node):
            stream = self._streams.get(data.decode())
            if stream is not None and stream.owned:
                stream.want_cancel()
            return
        stream = self._streams.get(keys.stream_of(channel))
        if stream is None or stream.owned:
            return
        if data == b"orphan":
            self._spawn(self._look_once(stream), "redis look")
        else:
            self._courier.read_soon(stream)

    def _subscribed(self, channel: str) -> None:
        """What was published before is not heard: look."""
        stream = self._streams.get(keys.stream_of(channel))
        if stream is not None and not stream.owned:
            self._courier.read_soon(stream)

    # The tick

    async def _tick_for_ever(self) -> None:
        pause = self._terms.lease / 3000
        while True:
            await asyncio.sleep(pause)
            try:
                await self.tick()
                pause = self._terms.lease / 3000
            except TROUBLE as error:
                await self._calls.troubled(error)
                pause = RETRY_PAUSE
            except Exception as error:  # a defect in one stream must not end all leases
                told = {"message": "a look after the streams met a defect", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)

    async def tick(self) -> None:
        """Renew, report, look. Raises `RedisError` where Redis does not answer."""
        now = self._clock()
        self._ending = {name: until for name, until in self._ending.items() if until > now}
        owned = [s for s in self._streams.values() if s.owned]
        watched = [
            s
            for s in self._streams.values()
            if not s.owned and s.cursors and not s.records.ended and not s.dead
        ]
        await self._mark()
        sessions = self._sessions.due(owned)
        for group in _groups([*owned, *watched, *self._ending, *sessions]):
            await self._visit(group)

    async def _mark(self) -> None:
        """See whether Redis kept what this node gave it, and keeps what it is given. One
        that came back empty has no sessions either."""
        marker, lasts = keys.marker(self._node), MARKER_LEASES * self._terms.lease
        try:
            there = await self._calls.call("mark", [marker], lasts)
        except ResponseError as error:  # what needs no memory still works
            await self._calls.troubled(error)
            return
        self._calls.pulse.kept()
        if self._calls.moved:
            await self._calls.leave()
            await self._listener.reconnect()
        if not there:
            self._sessions.forgotten()

    async def _visit(self, group: list[RedisStream | str | Session]) -> None:
        """One round trip: streams owned and watched, names of streams that are to end, and
        sessions with their owners."""
        takers: list[Callable[[Any], RedisStream | None]] = []
        async with self._calls.client.pipeline(transaction=False) as pipe:
            for item in group:
                if isinstance(item, Session):
                    takers.append(self._sessions.queue(pipe, item))
                elif isinstance(item, str):
                    takers.append(self._queue_ending(pipe, item))
                elif item.owned:
                    takers.append(self._queue_renewal(pipe, item))
                    self._claims.queue_count(pipe, item)
                    takers.append(_ignore)
                else:
                    takers.append(self._queue_watch(pipe, item))
            answers = await self._calls.checked(pipe)
        orphans: dict[str, RedisStream] = {}
        for take, answer in zip(takers, answers, strict=True):
            if isinstance(answer, ResponseError):
                await self._calls.troubled(answer)
            elif orphan := take(answer):
                orphans[orphan.name] = orphan
        await asyncio.gather(*map(self._take_over, orphans.values()))

    # Streams of this node

    def _queue_renewal(self, pipe: Any, stream: RedisStream) -> Callable[[Any], None]:
        names = [f(stream.name) for f in (keys.stream, keys.log, keys.lease, keys.readers)]
        epoch, terms = stream.epoch, self._terms
        keep = terms.under_way(stream.facts)
        self._calls.queue(
            *(pipe, "renew", names, epoch, self._node, terms.lease, keep, terms.linger),
            *(len(stream.records), *fields(stream.noted())),
        )

        def take(answer: Any) -> None:
            if stream.epoch == epoch and stream.owned:
                self._renewed(stream, *answer)

        return take

    def _renewed(
        self, stream: RedisStream, verdict: bytes, cancel: int, erased: int, elsewhere: int
    ) -> None:
        if verdict == b"fenced":
            stream.lose()
        elif verdict == b"missing":
            self._courier.write_again(stream)
        else:
            stream.erased = bool(erased)
            stream.elsewhere = elsewhere > 0
            stream.count_readers()
            if cancel:
                stream.want_cancel()

    # Streams of other nodes

    def _queue_watch(self, pipe: Any, stream: RedisStream) -> Callable[[Any], RedisStream | None]:
        names = [f(stream.name) for f in (keys.stream, keys.lease, keys.readers)]
        holds, had = PRESENCE_LEASES * self._terms.lease, len(stream.records)
        self._calls.queue(pipe, "watch", names, self._node, holds)
        return lambda answer: self._watched(stream, had, *answer)

    def _watched(
        self, stream: RedisStream, had: int, status: bytes, next_seq: int, lease_left: int
    ) -> RedisStream | None:
        """What a look at a stream showed; the stream where it is an orphan. `had` is how many
        records were here when it was asked: more may have come before its answer."""
        if stream.owned or stream.dead:
            return None
        lacking = not status or next_seq < had
        stream.missed = stream.missed + 1 if lacking else 0
        if stream.missed >= MISSES:
            stream.let_go()
        elif not lacking and next_seq > len(stream.records):
            self._courier.read_soon(stream)
        if status != b"running":
            return None
        if lease_left == 0:
            return stream
        if lease_left < self._terms.lease / 2:
            self._look_later(stream, lease_left)
        return None

    def _look_later(self, stream: RedisStream, lease_left: int) -> None:
        """Its owner is late: look again the moment that the lease would run out."""
        if not stream.look_due:
            stream.look_due = True
            loop = asyncio.get_running_loop()
            loop.call_later(lease_left / 1000 + 0.005, self._look_due, stream)

    def _look_due(self, stream: RedisStream) -> None:
        stream.look_due = False
        if stream.cursors and not stream.dead and not stream.owned:
            self._spawn(self._look_once(stream), "redis look")

    async def _look_once(self, stream: RedisStream) -> None:
        try:
            await self.look_after(stream)
        except TROUBLE as error:  # the next tick looks again
            await self._calls.troubled(error)

    async def look_after(self, stream: RedisStream) -> None:
        """Say that the stream is read here, see that it is there, and take it over where
        its owner is not. Raises `RedisError`."""
        names = [f(stream.name) for f in (keys.stream, keys.lease, keys.readers)]
        holds, had = PRESENCE_LEASES * self._terms.lease, len(stream.records)
        answer = await self._calls.call("watch", names, self._node, holds)
        if self._watched(stream, had, *answer) is not None:
            await self._take_over(stream)

    def _queue_ending(self, pipe: Any, name: str) -> Callable[[Any], RedisStream | None]:
        names = [f(name) for f in (keys.stream, keys.lease, keys.readers)]
        self._calls.queue(pipe, "watch", names, self._node, 0)

        def take(answer: Any) -> RedisStream | None:
            status, _, lease_left = answer
            if status == b"running" and not lease_left:
                return self._stream_of(name)
            if status != b"running":
                self._ending.pop(name, None)
            return None

        return take

    async def _take_over(self, stream: RedisStream) -> None:
        if await self._heir.take_over(stream):
            self._ending.pop(stream.name, None)


def _ignore(answer: Any) -> None:
    """Of an answer that tells nothing."""


def _groups(items: list[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(items), STREAMS_A_TRIP):
        yield items[at : at + STREAMS_A_TRIP]


def new_node() -> str:
    """A name for a node, unlike any other's."""
    return secrets.token_hex(8)
