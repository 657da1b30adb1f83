"""The streams that this node holds, and the connection on which it receives messages about streams
that other nodes write.

The node keeps a set of wanted channels. After every reconnect all of them are subscribed again,
and each confirmation is reported to the subscriber: messages published in between were missed, so
it has to check the streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from relay.stores.redis import keys
from relay.stores.redis.connection import (
    RETRY_PAUSE,
    TROUBLE,
    RedisConnection,
    end,
    in_groups,
    reason,
    unanswered,
)
from relay.stores.redis.courier import PendingWork
from relay.stores.redis.stream import RedisStream

PING_SECONDS = 3.0
"""Seconds between two pings on the connection."""

SILENCE = 10.0
"""Seconds without any message, pongs included, after which the connection counts as dead."""

CHANNELS_AT_ONCE = 512
"""Channels that one command subscribes or unsubscribes."""


class Channels:
    """The channels that this node listens to. `changed` is set when the set changes."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.wanted: dict[str, None] = {}
        self.left: dict[str, None] = {}

    def want(self, channel: str) -> None:
        """Listen to a channel; `Subscriber.joined` is called when the subscription began."""
        self.wanted[channel] = None
        self.left.pop(channel, None)
        self.changed.set()

    def leave(self, channel: str) -> None:
        """Stop listening to a channel."""
        if self.wanted.pop(channel, self) is None:
            self.left[channel] = None
            self.changed.set()


class HeldStreams:
    """The streams that this node writes or that have readers here, by name; also receives their
    events (`StreamHolder`)."""

    def __init__(
        self, node: str, clock: Callable[[], float], pending: PendingWork, channels: Channels
    ) -> None:
        self.by_name: dict[str, RedisStream] = {}
        self._node = node
        self._clock = clock
        self._pending = pending
        self._channels = channels

    def hold(self, name: str) -> RedisStream:
        """The stream of that name, held until it is idle. If it turns out not to be needed, call
        its `check_idle`."""
        held = self.by_name.get(name)
        if held is None or held.dead:
            held, former = RedisStream(name, self._clock, self), held
            if former is not None:
                self.unfollow(former)
            self.by_name[name] = held
        return held

    def follow(self, stream: RedisStream) -> None:
        """Subscribe to a stream's messages; it is read once the subscription began."""
        if not stream.followed:
            stream.followed = True
            self._channels.want(keys.stream(stream.name))

    def unfollow(self, stream: RedisStream) -> None:
        """Unsubscribe: the stream has no readers here, or this node writes it."""
        if stream.followed:
            stream.followed = False
            self._channels.leave(keys.stream(stream.name))
            self._pending.run_soon(("ZREM", keys.readers(stream.name), self._node))

    def give_up(self) -> None:
        """Redis did not answer for too long: end the streams that this node writes, and report the
        error to readers."""
        trouble = unanswered()
        for stream in list(self.by_name.values()):
            if stream.owned:
                stream.lose(trouble)
            elif stream.cursors and not stream.records.ended:
                stream.fail(trouble)

    def let_go(self) -> None:
        """Drop all streams; their readers are told that the records are gone."""
        for stream in list(self.by_name.values()):
            stream.let_go()
        self.by_name.clear()

    # Events of streams

    def write_soon(self, stream: RedisStream) -> None:
        """The stream has records to append."""
        self._pending.write_soon(stream)

    def left_alone(self, stream: RedisStream) -> None:
        """The stream has no reader or writer here."""
        if self.by_name.get(stream.name) is stream:
            del self.by_name[stream.name]
            self.unfollow(stream)

    def lost(self, stream: RedisStream) -> None:
        """This node may not write the stream any more; its readers here go on reading."""
        if stream.idle:
            self.left_alone(stream)
        elif not stream.dead:
            self.follow(stream)
            self._pending.read_soon(stream)


class Subscriber(Protocol):
    """Receives the messages published on the channels."""

    def heard(self, channel: str, data: bytes) -> None:
        """A message was published."""
        ...

    def joined(self, channel: str) -> None:
        """The subscription of a channel began, for the first time or after a reconnect."""
        ...


class StreamListener:
    """Keeps the channels subscribed, all on one connection."""

    def __init__(
        self, connection: RedisConnection, channels: Channels, subscriber: Subscriber
    ) -> None:
        self._client: Any = connection.client
        self._health = connection.health
        self._channels = channels
        self._subscriber = subscriber
        self._subscribed: set[str] = set()
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe the wanted channels and begin to listen. Raises `RedisError`."""
        await self._connect()
        self._listen(connected=True)

    def _listen(self, *, connected: bool) -> None:
        self._task = asyncio.create_task(self._run(connected=connected), name="redis listener")

    async def reconnect(self) -> None:
        """Disconnect even from a server that answers, because another one may have its address by
        now."""
        if self._task is not None:
            await end(self._task)
            self._listen(connected=False)

    async def stop(self) -> None:
        """Stop listening. Idempotent."""
        if self._task is not None:
            await end(self._task)
        await self._hang_up()

    async def _connect(self) -> None:
        self._subscribed.clear()
        self._channels.left.clear()
        self._pubsub = self._client.pubsub()
        await self._subscribe()

    async def _subscribe(self) -> None:
        """Subscribe and unsubscribe until the subscriptions are the wanted ones."""
        channels = self._channels
        channels.changed.clear()
        left, channels.left = list(channels.left), {}
        self._subscribed.difference_update(left)
        missing = [name for name in channels.wanted if name not in self._subscribed]
        for names in in_groups(missing, CHANNELS_AT_ONCE):
            await self._pubsub.ssubscribe(*names)
            self._subscribed.update(names)
        for names in in_groups(left, CHANNELS_AT_ONCE):
            await self._pubsub.sunsubscribe(*names)

    async def _run(self, *, connected: bool) -> None:
        if not connected:
            await self._reconnect()
        while True:
            talking = asyncio.create_task(self._talk())
            try:
                await self._hear()
            except TROUBLE as error:
                self._health.failed(reason(error))
            finally:
                await end(talking)
            await self._reconnect()

    async def _hear(self) -> None:
        while True:
            message = await self._pubsub.get_message(timeout=SILENCE)
            if message is None:
                raise TimeoutError
            if message["type"] == "smessage":
                self._subscriber.heard(message["channel"].decode(), message["data"])
            elif message["type"] == "ssubscribe":
                self._subscriber.joined(message["channel"].decode())

    async def _talk(self) -> None:
        """Update the subscriptions and ping. Failures are left to `_hear`, which notices them."""
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._channels.changed.wait()
                await self._subscribe()
            except TimeoutError:
                await self._pubsub.ping()

    async def _reconnect(self) -> None:
        while True:
            await asyncio.sleep(RETRY_PAUSE)
            try:
                await self._hang_up()
                await self._connect()
                return
            except TROUBLE as error:
                self._health.failed(reason(error))

    async def _hang_up(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await pubsub.aclose()
