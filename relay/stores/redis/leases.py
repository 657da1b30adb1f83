"""Which node owns a stream: renews leases, reports where streams are read, and takes over orphans.

A tick every third of a lease does this for all streams, with one round trip for a few hundred of
them. News that can't wait for a tick is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import ResponseError

from relay.core.streamlog import Orphan
from relay.stores.redis import keys, scripts
from relay.stores.redis.connection import RETRY_PAUSE, TROUBLE, RedisConnection, end, in_groups
from relay.stores.redis.courier import Courier, PendingWork
from relay.stores.redis.encoding import StreamFacts, read_account
from relay.stores.redis.listener import Channels, HeldStreams, StreamListener
from relay.stores.redis.scripts import Command, Look, RedisTerms, Renewal, ScriptVerdict, TakenOver
from relay.stores.redis.sessions import Claims, Sessions, UsedSession
from relay.stores.redis.stream import RedisStream, unreadable

MISSES = 3
"""Ticks in a row at which Redis lacks a followed stream, or records that this node has, before its
readers are told that it is gone. Its owner has this time to write it again."""

STREAMS_A_TRIP = 256
"""Streams that a tick handles in one round trip."""

PRESENCE_LEASES = 2
"""Leases after which a node's report that it reads a stream expires."""

END_LEASES = 3
"""Leases for which a node makes sure that a stream ends after a client cancelled it."""

MARKER_LEASES = 6
"""Leases after which a node's mark expires. One that is missing earlier shows that Redis lost its
data."""


class _Errand(NamedTuple):
    """A command of a tick. `take` handles its answer, and returns the stream if it turned out to be
    an orphan."""

    command: Command
    take: Callable[[Any], RedisStream | None]


class Takeover:
    """Takes orphaned streams over for one node and passes each to `on_orphan`. While that is None,
    it takes nothing over."""

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
        """Take over a stream without an owner, unless this node may not or another was faster;
        returns whether it was taken over, or dropped because its records were lost. Raises
        `RedisError` if Redis does not answer; the next look tries again."""
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
            return False  # the lease expired meanwhile, and another node took the stream over
        if stream.trouble is not None:
            await self._release(stream, taken.epoch)
            return False
        if stream.gone or int(held.get(b"next", -1)) != len(stream.records):
            await self._give_up_on(stream, taken.epoch)
            return True
        try:
            facts = StreamFacts.read(held)
            orphan = self._orphan(stream, facts, held, taken, accepted)
        except (KeyError, ValueError, msgspec.MsgspecError):  # written by a later version
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
        except Exception as error:  # a defect in one stream must not stop this node
            stream.lose()
            told = {"message": "a stream could not be taken over", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)

    async def _release(self, stream: RedisStream, epoch: int) -> None:
        await self._connection.run(scripts.release(stream.name, epoch, self._node))

    async def _give_up_on(self, stream: RedisStream, epoch: int) -> None:
        """Drop a stream of which Redis lost records that no living node has."""
        await self._connection.run(scripts.give_up(stream.name, epoch))
        stream.let_go()


class LeaseKeeper:
    """Renews the leases of the streams that this node writes, watches the streams that it reads,
    and has orphans taken over."""

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
        """Subscribe and start to tick. Raises `RedisError`."""
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
        """Subscribe to a stream of another node and check its state. The caller reads the records
        that are already there. Raises `RedisError`."""
        self._streams.follow(stream)
        await self.look_after(stream)

    def see_it_end(self, name: str, owner: str) -> None:
        """Make sure that a stream of another node ends, because a client cancelled it: tell the
        owner, and take the stream over if the owner is gone."""
        if owner and owner != self._node:
            self._pending.run_soon(("SPUBLISH", keys.node(owner), name))
        self._ending[name] = self._clock() + END_LEASES * self._terms.lease / 1000

    # Published messages (`listener.Subscriber`)

    def heard(self, channel: str, data: bytes) -> None:
        """Handle a message: a client cancelled a stream of this node, or another node's stream has
        changed."""
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
        """Read the stream, because messages from before the subscription were missed."""
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
            except Exception as error:  # a defect in one stream must not cost all leases
                told = {"message": "the tick that renews leases failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)

    async def tick(self) -> None:
        """Renew the leases, report what is read here, and check the streams of other nodes. Raises
        `RedisError` if Redis does not answer."""
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
        items: list[RedisStream | str | UsedSession] = [*owned, *watched, *self._ending, *sessions]
        for group in in_groups(items, STREAMS_A_TRIP):
            await self._visit(group)

    async def _mark(self) -> None:
        """Check that Redis still has this node's mark, and renew it, which shows that Redis stores
        what it is given. If the mark is gone, so are the sessions."""
        try:
            there = await self._connection.run(
                scripts.mark(self._node, lasts=MARKER_LEASES * self._terms.lease)
            )
        except ResponseError as error:  # calls that store nothing still work
            await self._connection.troubled(error)
            return
        self._connection.health.kept()
        if self._connection.moved:
            await self._connection.leave()
            await self._listener.reconnect()
        if not there:
            self._sessions.forgotten()

    async def _visit(self, group: list[RedisStream | str | UsedSession]) -> None:
        """Handle, in one round trip, owned and watched streams, names of streams that have to end,
        and sessions that are used."""
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
        """Handle the state of a watched stream; returns whether it is an orphan. `had` is how many
        records were here when the state was asked for: more may have arrived since."""
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
        """Look again when the lease would expire, because its owner is late to renew it."""
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
        except TROUBLE as error:  # the next tick tries again
            await self._connection.troubled(error)

    async def look_after(self, stream: RedisStream) -> None:
        """Report that the stream is read here, check its state, and take it over if its owner is
        gone. Raises `RedisError`."""
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
    """Handle an answer without information."""
