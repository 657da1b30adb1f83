"""The stream log in Redis (7 or later, or Valkey): any node serves any stream.

Streams live in Redis; a node holds those that it writes or that somebody reads here.
`redis_courier` carries records both ways, `redis_keeper` keeps leases, `redis_takeover`
takes over, `redis_claims` brings streams into being, `redis_index` looks them up, and
`redis_calls` makes every other call. What is kept where, and for how long: docs/scaling.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis.asyncio as redis
from redis.exceptions import BusyLoadingError

from relay.errors import Code, Fenced, RelayError
from relay.stores import redis_keys as keys
from relay.stores import refusals
from relay.stores.reading import ReadCursor
from relay.stores.redis_calls import Calls
from relay.stores.redis_claims import Claims, facts_of, owner_of
from relay.stores.redis_courier import Courier
from relay.stores.redis_index import Index, info
from relay.stores.redis_keeper import Keeper, new_node
from relay.stores.redis_limits import CALL_TIMEOUT, RedisLimits, redis_client
from relay.stores.redis_listener import RETRY_PAUSE
from relay.stores.redis_pulse import Pulse
from relay.stores.redis_sessions import Sessions
from relay.stores.redis_stream import RedisStream
from relay.stores.redis_takeover import Heir
from relay.stores.redis_trouble import TROUBLE, Unfit, reason, unanswered
from relay.streamlog import (
    Created,
    Cursor,
    Existing,
    Orphan,
    Spec,
    StreamInfo,
    StreamLog,
    Writer,
)

__all__ = ["RedisLimits", "RedisLog", "redis_client"]


class RedisLog(StreamLog):
    """Streams and sessions of all nodes on one Redis.

    Await `start` before use and `close` at the end. `client` must return bytes and must
    not retry by itself: `redis_calls` does.
    """

    def __init__(
        self,
        client: redis.Redis,
        limits: RedisLimits,
        clock: Callable[[], float],
    ) -> None:
        self.node = new_node()
        self._clock = clock
        self._client = client
        self._terms = terms = limits.terms
        self._streams: dict[str, RedisStream] = {}
        self._pulse = Pulse(
            clock,
            lease=limits.lease_seconds,
            patience=max(0.0, limits.max_pause - CALL_TIMEOUT),
            give_up=self._give_up,
        )
        self._calls = Calls(client, self._pulse)
        self._courier = Courier(
            self._calls,
            keep_ms=terms.keep,
            linger_ms=terms.linger,
            rewrite=lambda stream: self._claims.rewrite(stream),
            ending=lambda stream: self._sessions.ending(stream),
        )
        self._index = Index(self._calls, self._streams)
        self._claims = Claims(self._calls, self._courier, self.node, terms)
        self._sessions = Sessions(self._calls, self._courier, clock, terms)
        self._heir = Heir(
            self._calls,
            self._courier,
            self._claims,
            node=self.node,
            clock=clock,
            lease_ms=terms.lease,
            unfollow=lambda stream: self._keeper.unfollow(stream),
        )
        self._keeper = Keeper(
            self._calls,
            self._courier,
            clock,
            terms,
            node=self.node,
            streams=self._streams,
            stream_of=self._stream,
            claims=self._claims,
            sessions=self._sessions,
            heir=self._heir,
        )

    @property
    def healthy(self) -> bool:
        """Whether Redis answers, and keeps what it is given."""
        return self._pulse.healthy

    async def start(self) -> None:
        """Connect. Waits for a Redis that is loading as long as for one that is away. Raises
        `ConnectionError` where it fails: what is wrong, to follow the words "a Redis that";
        no address, no password."""
        try:
            await self._connect()
        except Unfit as error:
            raise ConnectionError(str(error)) from None
        except TROUBLE as error:
            raise ConnectionError(reason(error)) from None

    async def _connect(self) -> None:
        while True:
            try:
                await self._calls.start()
                break
            except BusyLoadingError as error:
                self._pulse.failed(reason(error))
                if self._pulse.gave_up:
                    raise
            await asyncio.sleep(RETRY_PAUSE)
        self._courier.start()
        await self._keeper.start()

    async def close(self) -> None:
        """See `StreamLog.close`."""
        await self._courier.stop()
        await self._keeper.stop()
        self._pulse.stop()
        for stream in list(self._streams.values()):
            stream.let_go()
        self._streams.clear()
        await self._client.aclose()

    async def tick(self) -> None:
        """What the keeper does every third of a lease, at once."""
        await self._keeper.tick()

    async def rest(self) -> None:
        """Wait until nothing is on its way to Redis."""
        await self._courier.rest()

    def sweep(self) -> None:
        """See `StreamLog.sweep`: keys expire by themselves."""

    def on_orphan(self, callback: Callable[[Orphan], None] | None) -> None:
        """See `StreamLog.on_orphan`."""
        self._heir.orphan = callback

    # Sessions

    async def open_session(self, session: str, subject: str | None) -> bool:
        """See `StreamLog.open_session`."""
        digest, owner = keys.digest(session), owner_of(subject)
        names = [keys.session(digest), keys.ids(digest), keys.order(digest)]
        verdict = await self._calls.ask(
            lambda: self._calls.call("open_session", names, owner, self._terms.session()),
            keeps=True,
        )
        if verdict == b"foreign":
            raise refusals.foreign_session()
        self._sessions.joined(digest, owner)
        return bool(verdict == b"known")

    async def leave_session(self, session: str) -> None:
        """See `StreamLog.leave_session`."""
        self._sessions.left(keys.digest(session))

    async def session_streams(self, session: str) -> list[StreamInfo]:
        """See `StreamLog.session_streams`."""
        return await self._index.session_streams(session)

    # Streams

    async def create(self, spec: Spec) -> Created | Existing:
        """See `StreamLog.create`."""
        facts = facts_of(spec, self._terms.max_request)
        verdict, value = await self._claims.bear(spec, facts)
        if verdict == b"ok":
            stream = self._stream(spec.stream)
            stream.own(1, facts, self._clock())
            return Created(stream)
        if verdict == b"full":
            raise refusals.too_many(int(value))
        if verdict == b"foreign":
            raise refusals.foreign_session()
        if verdict == b"taken":
            return Existing(spec.stream)
        return await self._held(spec, value)

    async def _held(self, spec: Spec, claim: bytes) -> Existing:
        name, fingerprint = claim.decode().split()
        if fingerprint != spec.request.fingerprint():
            raise refusals.other_content(spec.id)
        await self._index.known(name, spec.subject)
        return Existing(name)

    async def link(self, session: str, id: str, stream: str, subject: str | None) -> None:
        """See `StreamLog.link`."""
        await self._claims.link(session, id, stream, await self._index.known(stream, subject))

    async def find(self, session: str, id: str) -> str:
        """See `StreamLog.find`."""
        return await self._index.find(session, id)

    async def newest(self, conversation: str, session: str, subject: str | None) -> str:
        """See `StreamLog.newest`."""
        return await self._index.newest(conversation, session, subject)

    async def attach(
        self, stream: str, after: int, wake: Callable[[], None], subject: str | None
    ) -> Cursor:
        """See `StreamLog.attach`."""
        known = await self._index.known(stream, subject)
        held = self._stream(stream)
        last = max(held.reach, int(known["next"]))
        if not -1 <= after < last:
            held.check_idle()
            raise RelayError(Code.BAD_REQUEST, f"after: the stream never reached {after}")
        cursor = ReadCursor(held, after, wake)
        try:
            await self._catch_up(held, running=known["status"] == "running")
        except BaseException:
            cursor.close()
            raise
        return cursor

    async def _catch_up(self, stream: RedisStream, *, running: bool) -> None:
        """Bring what Redis has of a stream that is read here, and follow it."""
        if running and not stream.owned and not stream.records.ended:
            await self._calls.ask(lambda: self._keeper.follow(stream))
        if not stream.owned and not stream.records.ended:
            await self._calls.ask(lambda: self._courier.read_all(stream))

    async def info(self, stream: str, subject: str | None) -> StreamInfo:
        """See `StreamLog.info`."""
        known = await self._index.known(stream, subject)
        return info(known["id"], stream, known)

    async def cancel(self, stream: str, subject: str | None) -> None:
        """See `StreamLog.cancel`."""
        known = await self._index.known(stream, subject)
        if known["status"] == "running":
            await self._want_end(stream, erase=False)

    async def erase(self, stream: str, subject: str | None) -> None:
        """See `StreamLog.erase`. Where it was read, records go `ERASE_LINGER` after the end."""
        await self._index.known(stream, subject)
        await self._want_end(stream, erase=True)

    async def _want_end(self, stream: str, *, erase: bool) -> None:
        names = [f(stream) for f in (keys.stream, keys.log, keys.lease, keys.readers)]
        status, owner = await self._calls.ask(
            lambda: self._calls.call("want_end", names, int(erase), self._terms.linger)
        )
        held = self._streams.get(stream)
        if held is not None and held.owned:
            held.erased = held.erased or erase
            held.want_cancel()
        elif status == b"running":
            self._keeper.see_it_end(stream, owner.decode())

    async def hand_over(self, writer: Writer) -> bool:
        """See `StreamLog.hand_over`. The upstream is closed first, so that what it said is
        all in the log when another node reads it."""
        stream = self._streams.get(writer.stream)
        if stream is None or stream is not writer or not stream.owned or not self.healthy:
            return False
        stream.stop_driver()
        names, epoch = [keys.stream(stream.name), keys.lease(stream.name)], stream.epoch
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await stream.settled()
                await self._calls.call("release", names, epoch, self.node)
        except (Fenced, RelayError, *TROUBLE):
            pass  # the lease runs out by itself
        if stream.owned:
            stream.lose()
        return True

    # What is held here: `redis_stream.Node`

    def write_soon(self, stream: RedisStream) -> None:
        """See `Node.write_soon`."""
        self._courier.write_soon(stream)

    def left_alone(self, stream: RedisStream) -> None:
        """See `Node.left_alone`."""
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]
            self._keeper.unfollow(stream)

    def lost(self, stream: RedisStream) -> None:
        """See `Node.lost`: those who read it here go on reading."""
        if stream.idle:
            self.left_alone(stream)
        elif not stream.dead:
            self._keeper.listen(stream)
            self._courier.read_soon(stream)

    def _stream(self, name: str) -> RedisStream:
        held = self._streams.get(name)
        if held is None or held.dead:
            held, former = RedisStream(name, self._clock, self), held
            if former is not None:
                self._keeper.unfollow(former)
            self._streams[name] = held
        return held

    def _give_up(self) -> None:
        """Redis was away for too long: end what is written here, and tell who reads here."""
        trouble = unanswered()
        for stream in list(self._streams.values()):
            if stream.owned:
                stream.lose(trouble)
            elif stream.cursors and not stream.records.ended:
                stream.fail(trouble)
