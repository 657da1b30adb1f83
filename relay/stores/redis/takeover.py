"""Takes over streams whose owner died."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from relay.core.streamlog import Orphan
from relay.stores.redis import keys, scripts
from relay.stores.redis.connection import RedisConnection
from relay.stores.redis.courier import Courier
from relay.stores.redis.encoding import StreamFacts, read_account
from relay.stores.redis.limits import RedisTerms
from relay.stores.redis.listener import HeldStreams
from relay.stores.redis.scripts import TakenOver
from relay.stores.redis.sessions import Claims
from relay.stores.redis.stream import RedisStream, unreadable


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
