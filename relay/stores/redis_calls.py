"""Calls to Redis that somebody waits for, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError, ResponseError

from relay.stores import redis_keys as keys
from relay.stores.redis_listener import RETRY_PAUSE
from relay.stores.redis_pulse import Pulse
from relay.stores.redis_trouble import TROUBLE, Unfit, reason, unanswered, unfit

CALLS_AT_ONCE = 48
"""Calls beside the round trips that may wait for Redis at one time; each holds a
connection, the others queue here."""

SCRIPTS = (
    *("create", "claim", "open_session", "leave_session", "append", "rewrite"),
    *("renew", "count", "watch", "take_over", "give_up", "release", "want_end", "mark"),
)

_T = TypeVar("_T")


class Calls:
    """One node's calls. `moved` is set when Redis was met as a replica: connections on which
    nothing is written may still lead there, until `leave` is called."""

    def __init__(self, client: Any, pulse: Pulse) -> None:
        self.client = client
        self.pulse = pulse
        self.digests: dict[str, str] = {}
        self.moved = False
        self._room = asyncio.Semaphore(CALLS_AT_ONCE)

    async def start(self) -> None:
        """See that the server will do, and load the scripts. Raises `RedisError`, or
        `Unfit`."""
        try:
            info = await self.client.info()
        except NoPermissionError:  # then the first call that fails tells
            info = {}
        if said := unfit(info):
            raise Unfit(said)
        await self._load()
        self.pulse.answered()

    async def ask(self, call: Callable[[], Awaitable[_T]], *, keeps: bool = False) -> _T:
        """Make a call, and again while Redis does not answer, until the node's patience
        ends; so `call` must be one that may run twice. `keeps` for one that needs Redis'
        memory. Raises `RelayError(INTERNAL)`, retryable."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + self.pulse.patience
        while True:
            try:
                async with self._room:
                    answer = await call()
            except TROUBLE as error:
                await self.troubled(error)
                if self.pulse.gave_up or loop.time() > latest:
                    raise unanswered() from None
            else:
                self.pulse.kept() if keeps else self.pulse.answered()
                return answer
            await asyncio.sleep(RETRY_PAUSE)

    async def call(self, script: str, names: list[str], *args: str | int | bytes) -> Any:
        """Run one script, once. Raises `RedisError` where Redis does not answer."""
        try:
            return await self.client.evalsha(self.digests[script], len(names), *names, *args)
        except NoScriptError:
            await self._load()
            return await self.client.evalsha(self.digests[script], len(names), *names, *args)

    def queue(self, pipe: Any, script: str, names: list[str], *args: str | int | bytes) -> None:
        """Add a script to a pipeline; give its answers to `checked`."""
        pipe.evalsha(self.digests[script], len(names), *names, *args)

    async def checked(self, pipe: Any) -> list[Any]:
        """Run a pipeline whose commands may fail one by one: an answer may be a
        `ResponseError`. Raises `RedisError` where Redis does not answer."""
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, NoScriptError) or (
                isinstance(answer, Exception) and not isinstance(answer, ResponseError)
            ):
                raise answer
        return answers

    async def troubled(self, error: BaseException) -> None:
        """Take note of a call that failed. A restarted Redis has no scripts, which is no
        trouble; one that became a replica has to be left for the one that rules."""
        if isinstance(error, NoScriptError):
            try:
                await self._load()
            except TROUBLE as further:
                error = further
            else:
                return
        if isinstance(error, ResponseError):
            self.pulse.refused(reason(error))
        else:
            self.pulse.failed(reason(error))
        if isinstance(error, ReadOnlyError):
            self.moved = True
            await self._hang_up()

    async def leave(self) -> None:
        """Make every connection anew, because what rules has the address by now."""
        self.moved = False
        await self.client.connection_pool.update_active_connections_for_reconnect()
        await self._hang_up()

    async def _hang_up(self) -> None:
        await self.client.connection_pool.disconnect(inuse_connections=False)

    async def _load(self) -> None:
        for name in SCRIPTS:
            self.digests[name] = await self.client.script_load(keys.script(name))
