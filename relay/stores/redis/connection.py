"""This node's connections to Redis: what the operator may set of them, and each call that is
made, with what becomes of those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError, ResponseError

from relay.stores.redis.health import TROUBLE, StoreHealth, Unfit, reason, unanswered, unfit
from relay.stores.redis.scripts import Command, LuaScript

CALL_TIMEOUT = 3.0
"""Seconds that one call to Redis may take before it counts as unanswered."""

CALLS_AT_ONCE = 48
"""Calls beside the round trips that may wait for Redis at one time; each holds a
connection, the others queue here."""

RETRY_PAUSE = 0.1
"""Seconds between tries while Redis does not answer."""

CANCEL_AGAIN = 0.05
"""Seconds after which a task that outlived its cancellation is cancelled again."""

_T = TypeVar("_T")


def redis_client(url: str) -> redis.Redis:
    """A client as `RedisLog` wants it: bytes, no retries of its own, and a bound on how
    long one call may take. `url` as redis-py takes it, `redis://`, `rediss://`, `unix://`."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CALL_TIMEOUT,
        socket_timeout=CALL_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


class RedisConnection:
    """One node's calls. `moved` is set when Redis turned out to be a replica: connections on
    which nothing is written may still lead there, until `leave` is called."""

    def __init__(self, client: redis.Redis, health: StoreHealth) -> None:
        self.client: Any = client
        self.health = health
        self.moved = False
        self._room = asyncio.Semaphore(CALLS_AT_ONCE)

    async def start(self) -> None:
        """Check that this server will do, and load the scripts. Raises `RedisError`, or
        `Unfit`."""
        try:
            info = await self.client.info()
        except NoPermissionError:  # then the first call that fails tells
            info = {}
        if said := unfit(info):
            raise Unfit(said)
        await self._load()
        self.health.answered()

    async def ask(self, call: Callable[[], Awaitable[_T]], *, keeps: bool = False) -> _T:
        """Make a call, and again while Redis does not answer, until the node's patience
        ends; so `call` must be one that may run twice. `keeps` for one that needs Redis'
        memory. Raises `RelayError(INTERNAL)`, retryable."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + self.health.patience
        while True:
            try:
                async with self._room:
                    answer = await call()
            except TROUBLE as error:
                await self.troubled(error)
                if self.health.gave_up or loop.time() > latest:
                    raise unanswered() from None
            else:
                self.health.kept() if keeps else self.health.answered()
                return answer
            await asyncio.sleep(RETRY_PAUSE)

    async def run(self, command: Command) -> Any:
        """Run one command, once. Raises `RedisError` where Redis does not answer."""
        try:
            return await self.client.execute_command(*command)
        except NoScriptError:
            await self._load()
            return await self.client.execute_command(*command)

    async def exchange(self, commands: Iterable[Command]) -> list[Any]:
        """Run commands with one round trip; each may fail alone, and its answer is then a
        `ResponseError`. Raises `RedisError` where Redis does not answer."""
        async with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, NoScriptError) or (
                isinstance(answer, Exception) and not isinstance(answer, ResponseError)
            ):
                raise answer
        return answers

    async def exchange_all(self, commands: Iterable[Command]) -> list[Any]:
        """The same for commands that are worth nothing alone. Raises `RedisError` where one
        of them failed."""
        answers = await self.exchange(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def troubled(self, error: BaseException) -> None:
        """Take note of a call that failed. A restarted Redis has no scripts, which is no
        trouble; one that became a replica has to be left for its new primary."""
        if isinstance(error, NoScriptError):
            try:
                await self._load()
            except TROUBLE as further:
                error = further
            else:
                return
        if isinstance(error, ResponseError):
            self.health.refused(reason(error))
        else:
            self.health.failed(reason(error))
        if isinstance(error, ReadOnlyError):
            self.moved = True
            await self._hang_up()

    async def leave(self) -> None:
        """Make every connection anew, because another server may have the address by now."""
        self.moved = False
        await self.client.connection_pool.update_active_connections_for_reconnect()
        await self._hang_up()

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self.client.aclose()

    async def _hang_up(self) -> None:
        await self.client.connection_pool.disconnect(inuse_connections=False)

    async def _load(self) -> None:
        for script in LuaScript:
            await self.client.script_load(script.text)


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
