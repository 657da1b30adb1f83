"""Takes over streams whose owner died."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from msgspec import structs

from relay.account import Account
from relay.events import EndedAttempt
from relay.stores import redis_keys as keys
from relay.stores.redis_calls import Calls
from relay.stores.redis_claims import Claims, spec_of
from relay.stores.redis_courier import Courier
from relay.stores.redis_stream import RedisStream, unreadable
from relay.streamlog import Orphan

_attempts = msgspec.json.Decoder(tuple[EndedAttempt, ...])
_accounts = msgspec.json.Decoder(Account)
_TEXT = ("subject", "session", "id", "grace", "fingerprint", "newest")


class Heir:
    """Takes streams over for one node and gives each to `orphan`; None takes nothing over.
    `unfollow` is told of one that this node only read until then."""

    def __init__(
        self,
        calls: Calls,
        courier: Courier,
        claims: Claims,
        *,
        node: str,
        clock: Callable[[], float],
        lease_ms: int,
        unfollow: Callable[[RedisStream], None],
    ) -> None:
        self.orphan: Callable[[Orphan], None] | None = None
        self._calls = calls
        self._courier = courier
        self._claims = claims
        self._node = node
        self._clock = clock
        self._lease_ms = lease_ms
        self._unfollow = unfollow

    async def take_over(self, stream: RedisStream) -> bool:
        """Take a stream without an owner, unless this node may not, or another was first.
        Raises `RedisError` where Redis does not answer; the next look tries again."""
        may = self.orphan is not None and self._calls.pulse.may_take_over
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
        names = [keys.stream(stream.name), keys.lease(stream.name)]
        answer = await self._calls.call("take_over", names, self._node, self._lease_ms)
        epoch, alone_ms, age_ms = answer
        accepted = self._clock() - age_ms / 1000
        if not epoch:
            return False
        await self._courier.read_all(stream, from_start=True)
        held = await self._calls.client.hgetall(keys.stream(stream.name))
        if held.get(b"epoch") != b"%d" % epoch and held:
            return False  # the lease ran out meanwhile, and another node was there
        if stream.trouble is not None:
            await self._calls.call("release", names, epoch, self._node)
            return False
        if stream.gone or int(held.get(b"next", -1)) != len(stream.records):
            await self._give_up_on(stream, epoch)
            return True
        try:
            facts = _facts(held)
            orphan = Orphan(
                stream,
                *spec_of(stream.name, facts),
                stream.records.chunks(),
                _account(held, stream.read_epoch),
                accepted,
                last_sign_ms=max(0, age_ms - alone_ms),
                late=alone_ms - self._lease_ms > float(facts["grace"]) * 1000,
                cancelled=b"cancel" in held,
            )
        except (KeyError, ValueError, msgspec.MsgspecError):  # of a later version
            stream.fail(unreadable())
            await self._calls.call("release", names, epoch, self._node)
            return False
        self._unfollow(stream)
        stream.own(int(epoch), facts, accepted)
        async with self._calls.client.pipeline(transaction=False) as pipe:
            self._claims.queue_count(pipe, stream, anew=True)
            await self._calls.checked(pipe)
        self._give(stream, orphan)
        return True

    def _give(self, stream: RedisStream, orphan: Orphan) -> None:
        if self.orphan is None or not stream.owned:
            stream.lose()
            return
        try:
            self.orphan(orphan)
        except Exception as error:  # a defect in one stream must not end the node's keeping
            stream.lose()
            told = {"message": "a stream could not be taken over", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)

    async def _give_up_on(self, stream: RedisStream, epoch: int) -> None:
        """Redis lost records that it counts, and nobody lives who has them."""
        names = [f(stream.name) for f in (keys.stream, keys.log, keys.lease)]
        await self._calls.call("give_up", names, epoch)
        stream.let_go()


def _account(held: Mapping[bytes, bytes], written_by: int) -> Account:
    """What the owner noted, whose epoch the last records are of. What an owner before it
    noted of its calls says nothing of this one's: so it is where a node of an earlier version,
    which notes attempts only, owned the stream in between."""
    account = _accounts.decode(held.get(b"account", b"{}"))
    calls = account.calls if account.epoch >= written_by else None
    return structs.replace(
        account, attempts=_attempts.decode(held.get(b"attempts", b"[]")), calls=calls
    )


def _facts(held: Mapping[bytes, bytes]) -> dict[str, str | bytes]:
    facts: dict[str, str | bytes] = {name: held[name.encode()].decode() for name in _TEXT}
    if b"request" in held:
        facts["request"] = held[b"request"]
    return facts
