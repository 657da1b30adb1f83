"""The connections to Redis and its health: makes every call, handles those that fail, and says what
is wrong in words that an operator can act on, without an address or a password.

A Redis may answer and still not store what it is given, for example when it is full or became a
replica, so the two are tracked separately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import redis.asyncio as redis
from loguru import logger
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer

from relay.core.errors import Code, RelayError
from relay.stores.redis.scripts import Command, LuaScript

CALL_TIMEOUT = 3.0
"""Seconds that one call to Redis may take before it counts as unanswered."""

CALLS_AT_ONCE = 48
"""Calls that may wait for Redis at one time, in addition to the round trips of records. Each uses a
connection; further calls queue here."""

RETRY_PAUSE = 0.1
"""Seconds between two attempts while Redis does not answer."""

CANCEL_AGAIN = 0.05
"""Seconds after which a task that did not end when it was cancelled is cancelled again."""

SAME_TROUBLE = 10.0
"""Seconds without trouble after which the same trouble is logged again. A Redis that is almost full
keeps changing between refusing and storing."""

OLDEST = 7
"""The oldest major version of Redis with what the relay needs (sharded publish)."""

_T = TypeVar("_T")

TROUBLE = (RedisError, OSError, TimeoutError)
"""The exceptions of a failed call to Redis."""

_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (BusyLoadingError, "is loading its data (LOADING)"),
    (AuthenticationError, "refuses the user or password of REDIS_URL (NOAUTH, WRONGPASS)"),
    (NoPermissionError, "does not let the user of REDIS_URL do all it has to (NOPERM)"),
    (ReadOnlyError, "is a replica and keeps nothing (READONLY)"),
    (OutOfMemoryError, "is full and keeps nothing (OOM, maxmemory)"),
    (MaxConnectionsError, "is asked more at once than this server has connections for"),
    (MovedError, "is one node of a cluster (MOVED)"),
    (MasterDownError, "is a replica that lost its primary (MASTERDOWN)"),
    (ClusterDownError, "is one node of a cluster (CLUSTERDOWN)"),
    (NoAnswer, "does not answer in time"),
    (TimeoutError, "does not answer in time"),
    (NoConnection, "can't be reached"),
    (OSError, "can't be reached"),
)
_BY_FIRST_WORD = {
    "MISCONF": "can't save to its disk and keeps nothing (MISCONF)",
    "NOREPLICAS": "lacks replicas that it must write to and keeps nothing (NOREPLICAS)",
}


class Unfit(Exception):
    """The relay can't work with this server, however long it waits; the text says why."""


def reason(error: BaseException) -> str:
    """What went wrong, in words that follow "Redis"."""
    while isinstance(error, NoConnection) and isinstance(error.__cause__, RedisError):
        error = error.__cause__  # the error that the client got while it connected
    for kind, said in _REASONS:
        if isinstance(error, kind):
            return said
    word = str(error).partition(" ")[0]
    if isinstance(error, ResponseError) and word.isalpha() and word.isupper():
        return _BY_FIRST_WORD.get(word, f"refuses what it is asked ({word})")
    return f"failed ({type(error).__name__})"


def unfit(info: Mapping[str, Any]) -> str | None:
    """Why the relay can't work with a server that gives this `INFO`, in words that follow "Redis";
    None if it can. A node of a cluster has only some of the streams, and a command there
    subscribes to channels of one slot only."""
    if int(info.get("cluster_enabled", 0)):
        return "is one node of a cluster; the relay wants one server, replicas of it beside"
    version = str(info.get("redis_version", ""))
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST:
        return f"has version {version}; the relay wants {OLDEST} or later, or Valkey"
    return None


def unanswered() -> RelayError:
    """The error for clients when Redis fails for too long."""
    return RelayError(Code.INTERNAL, "the relay's store does not answer; try again", retryable=True)


class StoreHealth:
    """Whether Redis works. Report each answer and each failure to it; it calls `give_up` if a
    trouble lasts longer than `patience`.

    `clock` gives seconds, monotonic; `lease` and `patience` are in seconds. Each trouble is
    logged here once, and so is its end.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        lease: float,
        patience: float,
        give_up: Callable[[], None],
    ) -> None:
        self.gave_up = False
        self.refusing = False
        self.patience = patience
        self._clock = clock
        self._lease = lease
        self._give_up = give_up
        self._answering_since: float | None = None
        self._answered_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._troubled_since = 0.0
        self._calm_since = float("-inf")
        self._reason = ""
        self._told: set[str] = set()
        self._worth_telling = False

    @property
    def healthy(self) -> bool:
        """Whether Redis answers and stores what it is given."""
        return self._timer is None and not self.gave_up

    @property
    def may_take_over(self) -> bool:
        """Whether Redis has answered for a whole lease without a break. After a break, a missing
        lease does not show that its owner is gone: the owner may have been unable to renew it."""
        since = self._answering_since
        return since is not None and self._clock() - since >= self._lease

    def answered(self) -> None:
        """Report that Redis answered. A pause between two answers counts as a break if it was long
        enough for leases to expire, whichever of the two sides had stopped."""
        now = self._clock()
        if self.refusing:
            return
        if self._answering_since is None or now - self._answered_at > self._lease * 2 / 3:
            self._answering_since = now
        self._answered_at = now
        self._recover()

    def kept(self) -> None:
        """Report that Redis answered and stored something."""
        self.refusing = False
        self.answered()

    def failed(self, reason: str) -> None:
        """Report a call without an answer. `reason` says why, in words that follow "Redis"."""
        self._trouble(reason)

    def refused(self, reason: str) -> None:
        """Report that Redis refused a call."""
        self.refusing = True
        self._trouble(reason)

    def stop(self) -> None:
        """Never call `give_up` again. Idempotent."""
        self._calm()

    def _trouble(self, reason: str) -> None:
        self._answering_since = None  # leases may not have been renewed
        self._reason = reason
        if self.healthy:
            self._begin_trouble()
        if reason not in self._told:
            self._told.add(reason)
            self._worth_telling = True
            logger.warning("Redis {}: records that it has not acknowledged wait", reason)

    def _begin_trouble(self) -> None:
        self._troubled_since = self._clock()
        self._worth_telling = False
        if self._troubled_since - self._calm_since > SAME_TROUBLE:
            self._told.clear()
        self._timer = asyncio.get_running_loop().call_later(self.patience, self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        self.gave_up = self._worth_telling = True
        logger.error(
            "Redis {}, for {:.0f} s: running answers end with an error that says to try again",
            self._reason,
            self._lasted(),
        )
        self._give_up()

    def _recover(self) -> None:
        if not self.healthy:
            self._calm_since = self._clock()
            if self._worth_telling:
                logger.info("Redis recovered after {:.1f} s", self._lasted())
        self._calm()

    def _lasted(self) -> float:
        return self._clock() - self._troubled_since

    def _calm(self) -> None:
        self.gave_up = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def redis_client(url: str) -> redis.Redis:
    """A client as `RedisLog` needs it: it returns bytes, does not retry, and limits the time of a
    call. `url` begins with `redis://`, `rediss://` or `unix://`. Raises `ValueError` for any
    other."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CALL_TIMEOUT,
        socket_timeout=CALL_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


class RedisConnection:
    """One node's calls to Redis. `moved` is set once Redis turned out to be a replica: until
    `leave` is called, connections that only read may still lead there."""

    def __init__(self, client: redis.Redis, health: StoreHealth) -> None:
        self.client: Any = client
        self.health = health
        self.moved = False
        self._room = asyncio.Semaphore(CALLS_AT_ONCE)

    async def start(self) -> None:
        """Check that the relay can work with this server, and load the scripts. Raises
        `RedisError`, or `Unfit`."""
        try:
            info = await self.client.info()
        except NoPermissionError:  # the first call that fails will show what is missing
            info = {}
        if said := unfit(info):
            raise Unfit(said)
        await self._load()
        self.health.answered()

    async def ask(self, call: Callable[[], Awaitable[_T]], *, keeps: bool = False) -> _T:
        """Make a call, and repeat it while Redis does not answer, until the node's patience ends:
        `call` must be safe to run twice. `keeps`: the call stores something. Raises
        `RelayError(INTERNAL)`, retryable."""
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
        """Run one command, once. Raises `RedisError` if Redis refuses it or does not answer."""
        try:
            return await self.client.execute_command(*command)
        except NoScriptError:
            await self._load()
            return await self.client.execute_command(*command)

    async def exchange(self, commands: Iterable[Command]) -> list[Any]:
        """Run commands in one round trip. Each may fail by itself: its answer is then a
        `ResponseError`. Raises `RedisError` if Redis does not answer."""
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
        """As `exchange`, for commands that are only useful together: raises `RedisError` if one of
        them fails."""
        answers = await self.exchange(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def troubled(self, error: BaseException) -> None:
        """Report a call that failed. A restarted Redis has lost the scripts: they are loaded again,
        and that is no trouble. One that became a replica has to be left for its new primary."""
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
        """Open every connection again, because another server may have the address by now."""
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


def in_groups(items: list[_T], size: int) -> Iterator[list[_T]]:
    """The items in groups of at most `size`, each for one round trip."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they have ended. Once is not enough: the Redis client may turn a
    cancellation in the middle of a reply into an error of its own, which a retry loop takes for a
    failed call."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()
