"""Hears what Redis publishes for this node, on one connection for all streams.

What is wanted is a set of channels. Whenever the connection is made anew all of them are
subscribed again, and each confirmation is told: what was published in between is not
heard, so the hearer has to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from redis.exceptions import RedisError

RETRY_PAUSE = 0.1
"""Seconds between tries while Redis does not answer."""

PING_SECONDS = 3.0
"""The pause between two pings on the connection."""

SILENCE = 10.0
"""Seconds without any message, pongs included, after which the connection counts as dead."""

CHANNELS_AT_ONCE = 512
"""Channels that one command subscribes or leaves."""

CANCEL_AGAIN = 0.05
"""Seconds after which a task that outlived its cancellation is cancelled again."""


class Listener:
    """`heard` is called with a channel and what was published there; `joined` with each
    channel whose subscription began, `failed` with what cost the connection."""

    def __init__(
        self,
        client: Any,
        *,
        heard: Callable[[str, bytes], None],
        joined: Callable[[str], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._client = client
        self._heard = heard
        self._joined = joined
        self._failed = failed
        self._wanted: dict[str, None] = {}
        self._left: dict[str, None] = {}
        self._subscribed: set[str] = set()
        self._changed = asyncio.Event()
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, channel: str) -> None:
        """Subscribe the first channel and begin to listen. Raises `RedisError`."""
        self._wanted[channel] = None
        await self._connect()
        self._listen(connected=True)

    def _listen(self, *, connected: bool) -> None:
        self._task = asyncio.create_task(self._run(connected=connected), name="redis listener")

    async def reconnect(self) -> None:
        """Leave a server that answers, because another one may have its address by now."""
        if self._task is not None:
            await end(self._task)
            self._listen(connected=False)

    async def stop(self) -> None:
        """Stop listening. Idempotent."""
        if self._task is not None:
            await end(self._task)
        await self._hang_up()

    def want(self, channel: str) -> None:
        """Listen to a channel; `joined` tells when that began."""
        self._wanted[channel] = None
        self._left.pop(channel, None)
        self._changed.set()

    def leave(self, channel: str) -> None:
        """Listen to a channel no more."""
        if self._wanted.pop(channel, self) is None:
            self._left[channel] = None
            self._changed.set()

    async def _connect(self) -> None:
        self._subscribed.clear()
        self._left.clear()
        self._pubsub = self._client.pubsub()
        await self._subscribe()

    async def _subscribe(self) -> None:
        """Bring the subscriptions in step with what is wanted."""
        self._changed.clear()
        left, self._left = list(self._left), {}
        self._subscribed.difference_update(left)
        missing = [name for name in self._wanted if name not in self._subscribed]
        for names in _groups(missing):
            await self._pubsub.ssubscribe(*names)
            self._subscribed.update(names)
        for names in _groups(left):
            await self._pubsub.sunsubscribe(*names)

    async def _run(self, *, connected: bool) -> None:
        if not connected:
            await self._reconnect()
        while True:
            talking = asyncio.create_task(self._talk())
            try:
                await self._hear()
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
            finally:
                await end(talking)
            await self._reconnect()

    async def _hear(self) -> None:
        while True:
            message = await self._pubsub.get_message(timeout=SILENCE)
            if message is None:
                raise TimeoutError
            if message["type"] == "smessage":
                self._heard(message["channel"].decode(), message["data"])
            elif message["type"] == "ssubscribe":
                self._joined(message["channel"].decode())

    async def _talk(self) -> None:
        """Subscribe what is wanted since, and ping. What fails here is noticed by `_hear`."""
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._changed.wait()
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
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)

    async def _hang_up(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await pubsub.aclose()


def _groups(names: list[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while group := list(islice(rest, CHANNELS_AT_ONCE)):
        yield group


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they have ended. The Redis client may turn a cancellation that
    meets it in the middle of a reply into an error of its own, which a retry loop takes
    for a failed call: once is not enough."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()
