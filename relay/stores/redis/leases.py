"""Which node owns a stream: its lease, its readers' presence, and who takes over an orphan.

One tick every third of the lease renews and looks at all streams, with one round trip for a
few hundred of them; what can't wait for a tick is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import ResponseError

from relay.core.streamlog import Orphan
from relay.stores.redis import keys, scripts
from relay.stores.redis.connection import RETRY_PAUSE, TROUBLE, RedisConnection, end
from relay.stores.redis.courier import Courier, PendingWork
from relay.stores.redis.encoding import StreamFacts, read_account
from relay.stores.redis.listener import Channels, HeldStreams, StreamListener
from relay.stores.redis.scripts import Command, Look, RedisTerms, Renewal, ScriptVerdict, TakenOver
from relay.stores.redis.sessions import Claims, Sessions, UsedSession
from relay.stores.redis.stream import RedisStream, unreadable

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


class _Errand(NamedTuple):
    """A command of a tick. `take` is given its answer, and returns the stream that turned out
    to be an orphan, if it is one."""

    command: Command
    take: Callable[[Any], RedisStream | None]


class Takeover:
    """Takes streams over for one node and gives each to `on_orphan`; while that is None, it
    takes nothing over."""

    def __init__(
        self,
        connection: RedisConnection,
        streams: HeldStreams,
        courier: Courier,
        claims: Claims,
        *,
        node: str,
        clock: Callable[[], float],
        terms: RedisTerms,
    ) -> None:
        self.on_orphan: Callable[[Orphan], None] | None = None
        self._connection = connection
        self._streams = streams
        self._courier = courier
        self._claims = claims
        self._node = node
        self._clock = clock
        self._lease = terms.lease

    async def take_over(self, stream: RedisStream) -> bool:
        """Take a stream without an owner, unless this node may not, or another was first.
        Raises `RedisError` where Redis does not answer; the next look tries again."""
        may = self.on_orphan is not None and self._connection.health.may_take_over
        if stream.adopting or stream.owned or stream.dead or not may:
            stream.check_idle()
            return False
        stream.adopting = True
        try:
            return await self._adopt(stream)
        finally:
            stream.adopting = False
            stream.check_idle()

    async def _adopt(self, stream: RedisStream) -> bool:
        command = scripts.take_over(stream.name, self._node, lease=self._lease)
        taken = TakenOver(*await self._connection.run(command))
        accepted = self._clock() - taken.age_ms / 1000
        if not taken.epoch:
            return False
        await self._courier.read_all(stream, from_start=True)
        held = await self._connection.run(("HGETALL", keys.stream(stream.name)))
        if held.get(b"epoch") != b"%d" % taken.epoch and held:
            return False  # the lease ran out meanwhile, and another node was there
        if stream.trouble is not None:
            await self._release(stream, taken.epoch)
            return False
        if stream.gone or int(held.get(b"next", -1)) != len(stream.records):
            await self._give_up_on(stream, taken.epoch)
            return True
        try:
            facts = StreamFacts.read(held)
            orphan = self._orphan(stream, facts, held, taken, accepted)
        except (KeyError, ValueError, msgspec.MsgspecError):  # of a later version
            stream.fail(unreadable())
            await self._release(stream, taken.epoch)
            return False
        self._streams.unfollow(stream)
        stream.own(taken.epoch, facts, accepted)
        await self._connection.exchange([self._claims.count(stream, anew=True)])
        self._give(stream, orphan)
        return True

    def _orphan(
        self,
        stream: RedisStream,
        facts: StreamFacts,
        held: Mapping[bytes, bytes],
        taken: TakenOver,
        accepted: float,
    ) -> Orphan:
        return Orphan(
            stream,
            facts.spec(stream.name),
            stream.records.chunks(),
            read_account(held, stream.read_epoch),
            accepted,
            last_sign_ms=max(0, taken.age_ms - taken.alone_ms),
            late=taken.alone_ms - self._lease > facts.grace * 1000,
            cancelled=b"cancel" in held,
        )

    def _give(self, stream: RedisStream, orphan: Orphan) -> None:
        if self.on_orphan is None or not stream.owned:
            stream.lose()
            return
        try:
            self.on_orphan(orphan)
        except Exception as error:  # a defect in one stream must not end the node's keeping
            stream.lose()
            told = {"message": "a stream could not be taken over", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)

    async def _release(self, stream: RedisStream, epoch: int) -> None:
        await self._connection.run(scripts.release(stream.name, epoch, self._node))

    async def _give_up_on(self, stream: RedisStream, epoch: int) -> None:
        """Redis lost records that it counts, and nobody lives who has them."""
        await self._connection.run(scripts.give_up(stream.name, epoch))
        stream.let_go()


class LeaseKeeper:
    """Renews the leases of the streams that this node writes, looks after those that it
    reads, and has orphans taken over."""

    def __init__(
        self,
        connection: RedisConnection,
        pending: PendingWork,
        channels: Channels,
        streams: HeldStreams,
        claims: Claims,
        sessions: Sessions,
        takeover: Takeover,
        *,
        node: str,
        clock: Callable[[], float],
        terms: RedisTerms,
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._channels = channels
        self._streams = streams
        self._claims = claims
        self._sessions = sessions
        self._takeover = takeover
        self._node = node
        self._clock = clock
        self._terms = terms
        self._ending: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = StreamListener(connection, channels, self)

    async def start(self) -> None:
        """Subscribe and begin to tick. Raises `RedisError`."""
        self._channels.want(keys.node(self._node))
        await self._listener.start()
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

    async def follow(self, stream: RedisStream) -> None:
        """Be told of what is appended to a stream of another node, and see how it is doing.
        The caller reads what is there already. Raises `RedisError`."""
        self._streams.follow(stream)
        await self.look_after(stream)

    def see_it_end(self, name: str, owner: str) -> None:
        """A client wants a stream of another node to end: tell the owner, and take its
        place where it does not live."""
        if owner and owner != self._node:
            self._pending.run_soon(("SPUBLISH", keys.node(owner), name))
        self._ending[name] = self._clock() + END_LEASES * self._terms.lease / 1000

    # What is published: `listener.Subscriber`

    def heard(self, channel: str, data: bytes) -> None:
        """A client wants a stream of this node to end, or another node has news of its own."""
        if channel == keys.node(self._node):
            stream = self._streams.by_name.get(data.decode())
            if stream is not None and stream.owned:
                stream.want_cancel()
            return
        stream = self._streams.by_name.get(keys.stream_of(channel))
        if stream is None or stream.owned:
            return
        if data == scripts.ORPHANED:
            self._spawn(self._look_once(stream), "redis look")
        else:
            self._pending.read_soon(stream)

    def joined(self, channel: str) -> None:
        """What was published before a subscription began is not heard: look."""
        stream = self._streams.by_name.get(keys.stream_of(channel))
        if stream is not None and not stream.owned:
            self._pending.read_soon(stream)

    # The tick

    async def _tick_for_ever(self) -> None:
        pause = self._terms.lease / 3000
        while True:
            await asyncio.sleep(pause)
            try:
                await self.tick()
                pause = self._terms.lease / 3000
            except TROUBLE as error:
                await self._connection.troubled(error)
                pause = RETRY_PAUSE
            except Exception as error:  # a defect in one stream must not end all leases
                told = {"message": "a look after the streams met a defect", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)

    async def tick(self) -> None:
        """Renew, report, look. Raises `RedisError` where Redis does not answer."""
        now = self._clock()
        self._ending = {name: until for name, until in self._ending.items() if until > now}
        owned = [s for s in self._streams.by_name.values() if s.owned]
        watched = [
            s
            for s in self._streams.by_name.values()
            if not s.owned and s.cursors and not s.records.ended and not s.dead
        ]
        await self._mark()
        sessions = self._sessions.due(owned)
        for group in _groups([*owned, *watched, *self._ending, *sessions]):
            await self._visit(group)

    async def _mark(self) -> None:
        """See whether Redis kept what this node gave it, and keeps what it is given. One
        that came back empty has no sessions either."""
        try:
            there = await self._connection.run(
                scripts.mark(self._node, lasts=MARKER_LEASES * self._terms.lease)
            )
        except ResponseError as error:  # what needs no memory still works
            await self._connection.troubled(error)
            return
        self._connection.health.kept()
        if self._connection.moved:
            await self._connection.leave()
            await self._listener.reconnect()
        if not there:
            self._sessions.forgotten()

    async def _visit(self, group: list[RedisStream | str | UsedSession]) -> None:
        """One round trip: streams owned and watched, names of streams that are to end, and
        sessions with their owners."""
        errands = [errand for item in group for errand in self._errands(item)]
        answers = await self._connection.exchange(errand.command for errand in errands)
        orphans: dict[str, RedisStream] = {}
        for errand, answer in zip(errands, answers, strict=True):
            if isinstance(answer, ResponseError):
                await self._connection.troubled(answer)
            elif orphan := errand.take(answer):
                orphans[orphan.name] = orphan
        await asyncio.gather(*map(self._take_over, orphans.values()))

    def _errands(self, item: RedisStream | str | UsedSession) -> list[_Errand]:
        if isinstance(item, UsedSession):
            return [self._session(item)]
        if isinstance(item, str):
            return [self._end(item)]
        if item.owned:
            return [self._renewal(item), _Errand(self._claims.count(item), _ignore)]
        return [self._watch(item)]

    def _session(self, session: UsedSession) -> _Errand:
        def take(answer: Any) -> None:
            self._sessions.refreshed(session)

        command = scripts.open_session(session.digest, session.owner, keep=session.kept)
        return _Errand(command, take)

    # Streams of this node

    def _renewal(self, stream: RedisStream) -> _Errand:
        epoch, terms = stream.epoch, self._terms

        def take(answer: Any) -> None:
            if stream.epoch == epoch and stream.owned:
                self._renewed(stream, Renewal.decode(answer))

        command = scripts.renew(
            *(stream.name, epoch, self._node, len(stream.records), stream.noted()),
            lease=terms.lease,
            keep=terms.running(stream.facts.grace),
            linger=terms.linger,
        )
        return _Errand(command, take)

    def _renewed(self, stream: RedisStream, renewal: Renewal) -> None:
        if renewal.verdict is ScriptVerdict.FENCED:
            stream.lose()
        elif renewal.verdict is ScriptVerdict.MISSING:
            self._pending.rewrite_soon(stream)
        else:
            stream.erased = renewal.erased
            stream.elsewhere = renewal.elsewhere > 0
            stream.count_readers()
            if renewal.cancelled:
                stream.want_cancel()

    # Streams of other nodes

    def _watch(self, stream: RedisStream) -> _Errand:
        had = len(stream.records)

        def take(answer: Any) -> RedisStream | None:
            return stream if self._watched(stream, had, Look.decode(answer)) else None

        return _Errand(self._watching(stream), take)

    def _watching(self, stream: RedisStream) -> Command:
        return scripts.watch(stream.name, self._node, holds=PRESENCE_LEASES * self._terms.lease)

    def _watched(self, stream: RedisStream, had: int, look: Look) -> bool:
        """What a look at a stream showed; whether it is an orphan. `had` is how many records
        were here when it was asked: more may have come before its answer."""
        if stream.owned or stream.dead:
            return False
        lacking = not look.status or look.next_seq < had
        stream.missed = stream.missed + 1 if lacking else 0
        if stream.missed >= MISSES:
            stream.let_go()
        elif not lacking and look.next_seq > len(stream.records):
            self._pending.read_soon(stream)
        if look.running and 0 < look.lease_ms < self._terms.lease / 2:
            self._look_later(stream, look.lease_ms)
        return look.orphaned

    def _look_later(self, stream: RedisStream, lease_ms: int) -> None:
        """Its owner is late: look again the moment that the lease would run out."""
        if not stream.look_due:
            stream.look_due = True
            loop = asyncio.get_running_loop()
            loop.call_later(lease_ms / 1000 + 0.005, self._look_due, stream)

    def _look_due(self, stream: RedisStream) -> None:
        stream.look_due = False
        if stream.cursors and not stream.dead and not stream.owned:
            self._spawn(self._look_once(stream), "redis look")

    async def _look_once(self, stream: RedisStream) -> None:
        try:
            await self.look_after(stream)
        except TROUBLE as error:  # the next tick looks again
            await self._connection.troubled(error)

    async def look_after(self, stream: RedisStream) -> None:
        """Say that the stream is read here, see that it is there, and take it over where
        its owner is not. Raises `RedisError`."""
        had = len(stream.records)
        look = Look.decode(await self._connection.run(self._watching(stream)))
        if self._watched(stream, had, look):
            await self._take_over(stream)

    def _end(self, name: str) -> _Errand:
        def take(answer: Any) -> RedisStream | None:
            look = Look.decode(answer)
            if not look.running:
                self._ending.pop(name, None)
            return self._streams.hold(name) if look.orphaned else None

        return _Errand(scripts.watch(name, self._node, holds=0), take)

    async def _take_over(self, stream: RedisStream) -> None:
        if await self._takeover.take_over(stream):
            self._ending.pop(stream.name, None)


def _ignore(answer: Any) -> None:
    """Of an answer that tells nothing."""


def _groups(items: list[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(items), STREAMS_A_TRIP):
        yield items[at : at + STREAMS_A_TRIP]
