"""The stream log in Redis: connects its parts."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import redis.asyncio as redis
from redis.exceptions import BusyLoadingError
from typing_extensions import override

from relay.core.errors import Code, Fenced, RelayError
from relay.core.streamlog import (
    Created,
    Cursor,
    Existing,
    Orphan,
    Spec,
    StreamInfo,
    StreamLog,
    Writer,
)
from relay.stores import refusals
from relay.stores.reading import ReadCursor
from relay.stores.redis import keys, scripts
from relay.stores.redis.connection import (
    CALL_TIMEOUT,
    RETRY_PAUSE,
    TROUBLE,
    RedisConnection,
    StoreHealth,
    Unfit,
    reason,
)
from relay.stores.redis.courier import Courier, PendingWork
from relay.stores.redis.encoding import StreamFacts
from relay.stores.redis.leases import LeaseKeeper, Takeover
from relay.stores.redis.listener import Channels, HeldStreams
from relay.stores.redis.scripts import EndWanted, RedisTerms, ScriptVerdict
from relay.stores.redis.sessions import Claims, Index, Sessions
from relay.stores.redis.stream import RedisStream

MAX_PAUSE = 15.0
"""Seconds that delivery waits for a Redis that does not answer, or keeps nothing, before
readers are told and upstreams closed."""

MAX_KEPT_REQUEST = 1024 * 1024
"""Bytes of a request that Redis keeps for a take-over; an answer to a larger one ends with its
node."""

ERASE_LINGER = 30.0
"""Seconds that an erased stream is kept for readers that are still attached."""


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """How long things are kept, in seconds, and how many streams a session may run. `max_pause` is
    how long readers wait for a Redis that does not answer."""

    resume_window: float
    lease_seconds: float
    max_streams_per_session: int
    max_kept_request: int = MAX_KEPT_REQUEST
    max_pause: float = MAX_PAUSE

    @property
    def terms(self) -> RedisTerms:
        """The limits in the units of the scripts."""
        linger = max(ERASE_LINGER, 3 * self.lease_seconds)
        return RedisTerms(
            keep=max(1_000, int(self.resume_window * 1000)),
            lease=int(self.lease_seconds * 1000),
            linger=int(linger * 1000),
            max_running=self.max_streams_per_session,
            max_request=self.max_kept_request,
        )


class RedisLog(StreamLog):
    """Streams and sessions of all nodes on one Redis.

    Await `start` before use and `close` at the end. `client` must return bytes and must not retry
    by itself, since `RedisConnection` does.
    """

    def __init__(
        self,
        client: redis.Redis,
        limits: RedisLimits,
        clock: Callable[[], float],
    ) -> None:
        self.node = node = secrets.token_hex(8)
        self._clock = clock
        self._terms = terms = limits.terms
        pending, channels = PendingWork(), Channels()
        self._streams = HeldStreams(node, clock, pending, channels)
        self._health = StoreHealth(
            clock,
            lease=limits.lease_seconds,
            patience=max(0.0, limits.max_pause - CALL_TIMEOUT),
            give_up=self._streams.give_up,
        )
        self._connection = connection = RedisConnection(client, self._health)
        self._index = Index(connection, self._streams.by_name)
        self._claims = Claims(connection, pending, node, terms)
        self._sessions = Sessions(connection, pending, clock, terms)
        self._courier = Courier(connection, pending, terms, self._claims, self._sessions)
        self._takeover = Takeover(
            *(connection, self._streams, self._courier, self._claims),
            node=node,
            clock=clock,
            terms=terms,
        )
        self._keeper = LeaseKeeper(
            *(connection, pending, channels, self._streams),
            *(self._claims, self._sessions, self._takeover),
            node=node,
            clock=clock,
            terms=terms,
        )

    @property
    def healthy(self) -> bool:
        """Whether Redis answers and keeps the data it is given."""
        return self._health.healthy

    async def start(self) -> None:
        """Connect. Waits the same time for a Redis that is loading as for one that does not
        answer. Raises `ConnectionError` if that fails. Its text is what is wrong, to be put after
        "a Redis that"; it holds no address or password."""
        try:
            await self._connect()
        except Unfit as error:
            raise ConnectionError(str(error)) from None
        except TROUBLE as error:
            raise ConnectionError(reason(error)) from None

    async def _connect(self) -> None:
        while True:
            try:
                await self._connection.start()
                break
            except BusyLoadingError as error:
                self._health.failed(reason(error))
                if self._health.gave_up:
                    raise
            await asyncio.sleep(RETRY_PAUSE)
        self._courier.start()
        await self._keeper.start()

    @override
    async def close(self) -> None:
        await self._courier.stop()
        await self._keeper.stop()
        self._health.stop()
        self._streams.let_go()
        await self._connection.close()

    async def tick(self) -> None:
        """Do at once what the keeper does every third of a lease."""
        await self._keeper.tick()

    async def rest(self) -> None:
        """Wait until no work for Redis is pending."""
        await self._courier.rest()

    @override
    def sweep(self) -> None:
        """Does nothing: keys expire by themselves."""

    @override
    def on_orphan(self, callback: Callable[[Orphan], None] | None) -> None:
        self._takeover.on_orphan = callback

    # Sessions

    @override
    async def open_session(self, session: str, subject: str | None) -> bool:
        return await self._sessions.open(session, subject)

    @override
    async def leave_session(self, session: str) -> None:
        self._sessions.left(session)

    @override
    async def session_streams(self, session: str) -> list[StreamInfo]:
        return await self._index.session_streams(session)

    # Streams

    @override
    async def create(self, spec: Spec) -> Created | Existing:
        facts = StreamFacts.of(spec, self._terms.max_request)
        verdict, detail = await self._claims.create(spec.stream, facts)
        if verdict is ScriptVerdict.OK:
            stream = self._streams.hold(spec.stream)
            stream.own(1, facts, self._clock())
            return Created(stream)
        if verdict is ScriptVerdict.FULL:
            raise refusals.too_many(int(detail))
        if verdict is ScriptVerdict.FOREIGN:
            raise refusals.foreign_session()
        if verdict is ScriptVerdict.TAKEN:
            return Existing(spec.stream)
        return await self._existing(spec, detail)

    async def _existing(self, spec: Spec, claim: bytes) -> Existing:
        name, fingerprint = keys.claimed(claim)
        if fingerprint != spec.request.fingerprint():
            raise refusals.other_content(spec.id)
        await self._index.known(name, spec.subject)
        return Existing(name)

    @override
    async def link(self, session: str, id: str, stream: str, subject: str | None) -> None:
        await self._claims.link(session, id, stream, await self._index.known(stream, subject))

    @override
    async def find(self, session: str, id: str) -> str:
        return await self._index.find(session, id)

    @override
    async def newest(self, conversation: str, session: str, subject: str | None) -> str:
        return await self._index.newest(conversation, session, subject)

    @override
    async def attach(
        self, stream: str, after: int, wake: Callable[[], None], subject: str | None
    ) -> Cursor:
        known = await self._index.known(stream, subject)
        held = self._streams.hold(stream)
        last = max(held.reach, known.next_seq)
        if not -1 <= after < last:
            held.check_idle()
            raise RelayError(Code.BAD_REQUEST, f"after: the stream never reached {after}")
        cursor = ReadCursor(held, after, wake)
        try:
            await self._catch_up(held, running=known.status == "running")
        except BaseException:
            cursor.close()
            raise
        return cursor

    async def _catch_up(self, stream: RedisStream, *, running: bool) -> None:
        """Read what Redis has of a stream that has a reader here, and follow it."""
        if running and not stream.owned and not stream.records.ended:
            await self._connection.ask(lambda: self._keeper.follow(stream))
        if not stream.owned and not stream.records.ended:
            await self._connection.ask(lambda: self._courier.read_all(stream))

    @override
    async def info(self, stream: str, subject: str | None) -> StreamInfo:
        known = await self._index.known(stream, subject)
        return known.info(known.id, stream)

    @override
    async def cancel(self, stream: str, subject: str | None) -> None:
        known = await self._index.known(stream, subject)
        if known.status == "running":
            await self._want_end(stream, erase=False)

    @override
    async def erase(self, stream: str, subject: str | None) -> None:
        """If the stream has been read, its records are dropped `ERASE_LINGER` after its end."""
        await self._index.known(stream, subject)
        await self._want_end(stream, erase=True)

    async def _want_end(self, stream: str, *, erase: bool) -> None:
        command = scripts.want_end(stream, erase=erase, linger=self._terms.linger)
        answer = await self._connection.ask(lambda: self._connection.run(command))
        status, owner = EndWanted.decode(answer)
        held = self._streams.by_name.get(stream)
        if held is not None and held.owned:
            held.erased = held.erased or erase
            held.want_cancel()
        elif status == "running":
            self._keeper.see_it_end(stream, owner)

    @override
    async def hand_over(self, writer: Writer) -> bool:
        """The upstream is closed first, so that all its events are in the log when another node
        reads it."""
        stream = self._streams.by_name.get(writer.stream)
        if stream is None or stream is not writer or not stream.owned or not self.healthy:
            return False
        stream.stop_driver()
        command = scripts.release(stream.name, stream.epoch, self.node)
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await stream.settled()
                await self._connection.run(command)
        except (Fenced, RelayError, *TROUBLE):
            pass  # the lease runs out by itself
        if stream.owned:
            stream.lose()
        return True
