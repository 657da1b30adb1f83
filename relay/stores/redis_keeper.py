"""Keeps what this node owns and follows: leases, readers' presence, signals, take-overs.

One tick every third of the lease does it for all streams with one round trip; one
subscription carries what can't wait for a tick.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
from redis.exceptions import RedisError

from relay.events import Attempt
from relay.request import ChatRequest
from relay.stores import redis_keys as keys
from relay.stores.redis_courier import RETRY_PAUSE, Courier, end
from relay.stores.redis_stream import RedisStream
from relay.streamlog import Orphan, Spec

MISSES = 3
"""Ticks in a row that a followed stream is not found before its readers are told."""

_attempts = msgspec.json.Decoder(list[Attempt])


class Keeper:
    """Leases and signals for `streams`, which its owner fills and empties."""

    def __init__(
        self,
        courier: Courier,
        clock: Callable[[], float],
        *,
        streams: Mapping[str, RedisStream],
        lease_ms: int,
        keep_ms: int,
    ) -> None:
        self.node = secrets.token_hex(8)
        self.orphan: Callable[[Orphan], None] | None = None
        self._courier = courier
        self._clock = clock
        self._streams = streams
        self._lease_ms = lease_ms
        self._keep_ms = keep_ms
        self._sessions: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pubsub: Any = None

    async def start(self) -> None:
        """Subscribe and begin to tick. Raises `RedisError`."""
        self._pubsub = self._courier.client.pubsub()
        await self._pubsub.ssubscribe(keys.node(self.node))
        self._spawn(self._listen(), "redis listener")
        self._spawn(self._tick_for_ever(), "redis keeper")

    async def stop(self) -> None:
        """Stop ticking and listening."""
        await end(*self._tasks)
        if self._pubsub is not None:
            await self._pubsub.aclose()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Sessions with a connection here are kept from expiring

    def joined(self, session: str) -> None:
        """A connection of the session is here."""
        self._sessions[session] = self._sessions.get(session, 0) + 1

    def left(self, session: str) -> None:
        """A connection of the session ended."""
        count = self._sessions.get(session, 0) - 1
        if count > 0:
            self._sessions[session] = count
        else:
            self._sessions.pop(session, None)

    # Streams of other nodes

    async def follow(self, stream: RedisStream) -> None:
        """Be told of what is appended to a stream. The caller reads what is there already."""
        if not stream.followed:
            stream.followed = True
            await self._pubsub.ssubscribe(keys.stream(stream.name))
            await self._courier.client.zadd(*self._presence(stream))

    def unfollow(self, stream: RedisStream) -> None:
        """Nobody here reads the stream any more."""
        if stream.followed:
            stream.followed = False
            self._spawn(self._unsubscribe(stream.name), "redis unsubscribe")

    async def _unsubscribe(self, name: str) -> None:
        try:
            await self._pubsub.sunsubscribe(keys.stream(name))
            await self._courier.client.zrem(keys.readers(name), self.node)
        except (RedisError, OSError, TimeoutError):
            self._courier.failed()

    async def tell_owner(self, name: str, stream: RedisStream) -> None:
        """Have the owner look at what is wanted; where there is none, take its place."""
        owner = await self._courier.client.get(keys.lease(name))
        if owner is None:
            await self._take_over(stream)
        else:
            await self._courier.client.spublish(keys.node(owner.decode()), name)

    def _presence(self, stream: RedisStream) -> tuple[str, dict[str, float]]:
        # Redis and this node need not agree on the time: the score is Redis' clock, of
        # which the last tick told.
        return keys.readers(stream.name), {self.node: self._redis_ms() + 2 * self._lease_ms}

    _redis_offset_ms = 0.0

    def _redis_ms(self) -> float:
        return self._clock() * 1000 + self._redis_offset_ms

    # Signals

    async def _listen(self) -> None:
        while True:
            try:
                async for message in self._pubsub.listen():
                    if message["type"] == "smessage":
                        await self._heard(message["channel"].decode(), message["data"])
            except (RedisError, OSError, TimeoutError):
                self._courier.failed()
            await asyncio.sleep(RETRY_PAUSE)

    async def _heard(self, channel: str, data: bytes) -> None:
        if channel == keys.node(self.node):
            stream = self._streams.get(data.decode())
            if stream is not None and stream.owned:
                stream.want_cancel()
            return
        stream = self._streams.get(channel.partition("{")[2].rstrip("}"))
        if stream is None or stream.owned:
            return
        if data == b"orphan":
            await self._take_over(stream)
        else:
            self._courier.read_soon(stream)

    # The tick

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            try:
                await self.tick()
                self._courier.worked()
            except (RedisError, OSError, TimeoutError):
                self._courier.failed()

    async def tick(self) -> None:
        """Renew, report, look. Raises `RedisError` where Redis does not answer."""
        seconds, micros = await self._courier.client.time()
        self._redis_offset_ms = seconds * 1000 + micros / 1000 - self._clock() * 1000
        for stream in list(self._streams.values()):
            if stream.owned:
                await self._renew(stream)
            elif stream.cursors and not stream.records.ended:
                await self.look_after(stream)
        for session in list(self._sessions):
            for key in (keys.session(session), keys.ids(session)):
                await self._courier.client.pexpire(key, self._keep_ms)

    async def _renew(self, stream: RedisStream) -> None:
        names = [f(stream.name) for f in (keys.stream, keys.log, keys.lease, keys.readers)]
        attempts = msgspec.json.encode(stream.attempts) if stream.attempts_changed else b""
        verdict, cancel, elsewhere = await self._courier.call(
            "renew", names, stream.epoch, self.node, self._lease_ms, self._keep_ms, attempts
        )
        stream.attempts_changed = False
        if verdict == b"fenced":
            stream.lose()
        elif verdict == b"missing":
            self._courier.write_again(stream)
        else:
            stream.elsewhere = elsewhere > 0
            stream.count_readers()
            if cancel:
                stream.want_cancel()

    async def look_after(self, stream: RedisStream) -> None:
        """Say that the stream is read here, see that it is there, and take it over where
        its owner is not. Raises `RedisError`."""
        await self._courier.client.zadd(*self._presence(stream))
        self._courier.read_soon(stream)
        status = await self._courier.client.hget(keys.stream(stream.name), "status")
        if status is None:
            stream.missed += 1
            if stream.missed >= MISSES:
                stream.let_go()
            return
        stream.missed = 0
        if status == b"running" and not await self._courier.client.exists(keys.lease(stream.name)):
            await self._take_over(stream)

    # Take-over

    def _may_take_over(self) -> bool:
        """Only a node that Redis has answered for a whole lease without a break: a Redis
        that hung must not make every stream look like an orphan."""
        since = self._courier.answering_since
        return since is not None and self._clock() - since >= self._lease_ms / 1000

    async def _take_over(self, stream: RedisStream) -> None:
        if self.orphan is None or not self._may_take_over():
            return
        names = [keys.stream(stream.name), keys.lease(stream.name)]
        epoch = await self._courier.call("take_over", names, self.node, self._lease_ms)
        if not epoch:
            return
        await self._courier.read_all(stream)
        facts = await self._courier.client.hgetall(keys.stream(stream.name))
        stream.adopt(int(epoch), _spec(stream.name, facts))
        self.orphan(_orphan(stream, facts, self._redis_ms(), self._lease_ms))


def _spec(name: str, facts: Mapping[bytes, bytes]) -> Spec:
    subject = facts[b"subject"].decode()
    return Spec(
        stream=name,
        session=facts[b"session"].decode(),
        id=facts[b"id"].decode(),
        subject=subject[1:] if subject else None,
        request=_request(facts) or ChatRequest("", ()),
        grace=float(facts[b"grace"]),
    )


def _request(facts: Mapping[bytes, bytes]) -> ChatRequest | None:
    packed = facts.get(b"request")
    return None if packed is None else msgspec.msgpack.decode(packed, type=ChatRequest)


def _orphan(
    stream: RedisStream, facts: Mapping[bytes, bytes], now_ms: float, lease_ms: int
) -> Orphan:
    assert stream.spec is not None
    alone_ms = now_ms - float(facts.get(b"renewed", b"0")) - lease_ms
    return Orphan(
        writer=stream,
        spec=stream.spec,
        request=_request(facts),
        chunks=stream.records.chunks(),
        attempts=_attempts.decode(facts.get(b"attempts", b"[]")),
        late=alone_ms > stream.spec.grace * 1000,
        cancelled=b"cancel" in facts,
    )
