"""The stream log in Redis (7 or later, or Valkey): any node serves any stream.

Streams live in Redis; a node holds those that it writes or that somebody reads here.
`redis_courier` carries records both ways, `redis_keeper` keeps leases and takes over.
What is kept where, and for how long: docs/scaling.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from relay.errors import Code, RelayError, StreamExpired
from relay.stores import redis_keys as keys
from relay.stores.reading import ReadCursor
from relay.stores.redis_courier import Courier
from relay.stores.redis_keeper import Keeper
from relay.stores.redis_stream import RedisStream
from relay.streamlog import (
    Created,
    Cursor,
    Existing,
    Orphan,
    Spec,
    Status,
    StreamInfo,
    StreamLog,
    Writer,
)

MAX_KEPT_REQUEST = 1024 * 1024
"""Bytes of a request that Redis keeps for a take-over; the answer to a larger one ends
with its node."""

ERASE_LINGER = 30.0
"""Seconds that an erased stream stays for the readers who are attached to it."""

CALL_TIMEOUT = 3.0
"""Seconds that one call to Redis may take before it counts as unanswered."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """How long things are kept, in seconds, and how many streams a session runs."""

    resume_window: float = 3_600.0
    lease_seconds: float = 10.0
    max_streams_per_session: int = 32
    max_kept_request: int = MAX_KEPT_REQUEST


def redis_client(url: str) -> redis.Redis:
    """A client as `RedisLog` wants it: bytes, no retries of its own, and a bound on how
    long one call may take. `url` as redis-py takes it, `redis://`, `rediss://`, `unix://`."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CALL_TIMEOUT,
        socket_timeout=CALL_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


class RedisLog(StreamLog):
    """Streams and sessions of all nodes on one Redis.

    Await `start` before use and `close` at the end. `client` must return bytes and must
    not retry by itself: the courier does.
    """

    def __init__(
        self,
        client: redis.Redis,
        limits: RedisLimits,
        clock: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._client = client
        self._keep_ms = int(limits.resume_window * 1000)
        self._streams: dict[str, RedisStream] = {}
        self._courier = Courier(client, clock, keep_ms=self._keep_ms, rewrite=self._rewrite)
        self._keeper = Keeper(
            self._courier,
            clock,
            streams=self._streams,
            lease_ms=int(limits.lease_seconds * 1000),
            keep_ms=self._keep_ms,
        )

    @property
    def healthy(self) -> bool:
        """Whether Redis answers."""
        return self._courier.healthy

    async def start(self) -> None:
        """Connect. Raises `RedisError` where that fails."""
        await self._courier.start()
        await self._keeper.start()

    async def close(self) -> None:
        """See `StreamLog.close`."""
        await self._courier.stop()
        await self._keeper.stop()
        for stream in list(self._streams.values()):
            stream.let_go()
        await self._client.aclose()

    async def tick(self) -> None:
        """What the keeper does every third of a lease, at once."""
        await self._keeper.tick()

    def sweep(self) -> None:
        """See `StreamLog.sweep`: keys expire by themselves."""

    def on_orphan(self, callback: Callable[[Orphan], None] | None) -> None:
        """See `StreamLog.on_orphan`."""
        self._keeper.orphan = callback

    # Sessions

    async def open_session(self, session: str, subject: str | None) -> bool:
        """See `StreamLog.open_session`."""
        names = [keys.session(session), keys.ids(session)]
        verdict = await self._ask(
            self._courier.call("open_session", names, _subject(subject), self._keep_ms)
        )
        if verdict == b"foreign":
            raise RelayError(Code.FORBIDDEN, "this session belongs to somebody else")
        self._keeper.joined(session)
        return bool(verdict == b"known")

    async def leave_session(self, session: str) -> None:
        """See `StreamLog.leave_session`."""
        self._keeper.left(session)

    async def session_streams(self, session: str) -> list[StreamInfo]:
        """See `StreamLog.session_streams`."""
        claims: dict[bytes, bytes] = await self._ask(self._client.hgetall(keys.ids(session)))
        found = []
        for id, claim in claims.items():
            name = claim.split()[0].decode()
            if known := await self._facts(name):
                found.append(_info(id.decode(), name, known))
        return found

    # Streams

    async def create(self, spec: Spec) -> Created | Existing:
        """See `StreamLog.create`."""
        await self._make(spec)
        verdict, value = await self._claim(spec.session, spec.id, spec, counted=True)
        if verdict == b"ok":
            await self._name_newest(spec)
            return Created(self._own(spec))
        await self._ask(self._client.delete(keys.stream(spec.stream), keys.lease(spec.stream)))
        if verdict == b"full":
            raise RelayError(
                Code.TOO_MANY_STREAMS,
                f"{value.decode()} streams of this session run already; "
                "wait for one to end or cancel it",
                retryable=True,
            )
        return await self._held(spec, verdict, value)

    async def _make(self, spec: Spec) -> None:
        fields: list[str | int | bytes] = [
            *("subject", _subject(spec.subject), "session", spec.session, "id", spec.id),
            *("grace", str(spec.grace), "conversation", spec.request.conversation or ""),
            *("fingerprint", spec.request.fingerprint()),
        ]
        request = msgspec.msgpack.encode(spec.request)
        if len(request) <= self._limits.max_kept_request:
            fields += ["request", request]
        names = [keys.stream(spec.stream), keys.lease(spec.stream)]
        lease_ms = int(self._limits.lease_seconds * 1000)
        await self._ask(
            self._courier.call("create", names, self._keeper.node, lease_ms, self._keep_ms, *fields)
        )

    async def _claim(
        self, session: str, id: str, spec: Spec, *, counted: bool
    ) -> tuple[bytes, bytes]:
        claim = f"{spec.stream} {spec.request.fingerprint()}"
        return await self._write_claim(session, id, claim, spec.subject, spec.stream, counted)

    async def _write_claim(
        self, session: str, id: str, claim: str, subject: str | None, stream: str, counted: bool
    ) -> tuple[bytes, bytes]:
        verdict, value = await self._ask(
            self._courier.call(
                "claim",
                [keys.session(session), keys.ids(session), keys.running(session)],
                id,
                claim,
                _subject(subject),
                self._limits.max_streams_per_session,
                self._keep_ms,
                stream,
                int(counted),
            )
        )
        return verdict, value

    async def _held(self, spec: Spec, verdict: bytes, claim: bytes) -> Existing:
        if verdict == b"foreign":
            raise RelayError(Code.FORBIDDEN, "this session belongs to somebody else")
        name, fingerprint = claim.decode().split()
        if fingerprint != spec.request.fingerprint():
            raise RelayError(
                Code.BAD_REQUEST, f"id: {spec.id} already names a chat of other content"
            )
        await self._known(name, spec.subject)
        return Existing(name)

    async def _name_newest(self, spec: Spec) -> None:
        if spec.request.conversation:
            key = keys.conversation(spec.subject, spec.session, spec.request.conversation)
            await self._ask(self._client.set(key, spec.stream, px=self._keep_ms))

    def _own(self, spec: Spec) -> Writer:
        stream = self._stream(spec.stream)
        stream.spec, stream.epoch = spec, 1
        return stream

    async def link(self, session: str, id: str, stream: str, subject: str | None) -> None:
        """See `StreamLog.link`."""
        known = await self._known(stream, subject)
        claim = f"{stream} {known['fingerprint']}"
        verdict, held = await self._write_claim(session, id, claim, subject, stream, False)
        if verdict == b"held" and held.decode().split()[0] != stream:
            raise RelayError(Code.BAD_REQUEST, f"id: {id} already names another stream")

    async def find(self, session: str, id: str) -> str:
        """See `StreamLog.find`."""
        claim = await self._ask(self._client.hget(keys.ids(session), id))
        if claim is None:
            raise StreamExpired
        name: str = claim.decode().split()[0]
        if await self._facts(name) is None:
            raise StreamExpired
        return name

    async def newest(self, conversation: str, session: str, subject: str | None) -> str:
        """See `StreamLog.newest`."""
        name = await self._ask(self._client.get(keys.conversation(subject, session, conversation)))
        if name is None:
            raise StreamExpired
        await self._known(name.decode(), subject)
        return str(name.decode())

    async def attach(
        self, stream: str, after: int, wake: Callable[[], None], subject: str | None
    ) -> Cursor:
        """See `StreamLog.attach`."""
        known = await self._known(stream, subject)
        held = self._stream(stream)
        last = len(held.records) if held.owned else int(known["next"])
        if not -1 <= after < max(last, len(held.records)):
            self._forget_if_unused(held)
            raise RelayError(Code.BAD_REQUEST, f"after: the stream never reached {after}")
        cursor = ReadCursor(held, after, wake)
        if not held.owned and not held.records.ended:
            await self._ask(self._keeper.follow(held))
            await self._ask(self._courier.read_all(held))
            await self._ask(self._keeper.look_after(held))
        return cursor

    async def info(self, stream: str, subject: str | None) -> StreamInfo:
        """See `StreamLog.info`."""
        known = await self._known(stream, subject)
        return _info(known["id"], stream, known)

    async def cancel(self, stream: str, subject: str | None) -> None:
        """See `StreamLog.cancel`."""
        known = await self._known(stream, subject)
        if known["status"] == "running":
            await self._cancel(stream)

    async def _cancel(self, stream: str) -> None:
        held = self._streams.get(stream)
        await self._ask(self._client.hset(keys.stream(stream), "cancel", 1))
        if held is not None and held.owned:
            held.want_cancel()
        else:
            await self._ask(self._keeper.tell_owner(stream, self._stream(stream)))

    async def erase(self, stream: str, subject: str | None) -> None:
        """See `StreamLog.erase`. Records go `ERASE_LINGER` after the end."""
        known = await self._known(stream, subject)
        key = keys.stream(stream)
        await self._ask(self._client.hset(key, "erased", 1))
        if known["status"] == "running":
            await self._cancel(stream)
        for name in (key, keys.log(stream)):
            await self._ask(self._client.pexpire(name, int(ERASE_LINGER * 1000)))

    async def hand_over(self, writer: Writer) -> bool:
        """See `StreamLog.hand_over`."""
        stream = self._streams.get(writer.stream)
        if stream is None or not stream.owned or not self.healthy:
            return False
        await writer.settled()
        stream.lose()
        await self._ask(self._client.delete(keys.lease(stream.name)))
        await self._ask(self._client.spublish(keys.stream(stream.name), "orphan"))
        return True

    # What is held here

    def _stream(self, name: str) -> RedisStream:
        held = self._streams.get(name)
        if held is None or held.gone:
            held = self._streams[name] = RedisStream(
                name, self._clock, flush=self._courier.write_soon, left=self._forget_if_unused
            )
        return held

    def _forget_if_unused(self, stream: RedisStream) -> None:
        if stream.cursors or stream.owned or stream.has_more:
            return
        if self._streams.pop(stream.name, None) is not None:
            self._keeper.unfollow(stream)

    async def _facts(self, name: str) -> dict[str, str] | None:
        """What Redis knows of a stream; None for one that is gone or erased."""
        wanted = ("subject", "id", "next", "status", "fingerprint", "erased")
        values = await self._ask(self._client.hmget(keys.stream(name), wanted))
        if values[0] is None or values[5] is not None:
            return None
        return {
            field: value.decode()
            for field, value in zip(wanted, values, strict=True)
            if value is not None
        }

    async def _known(self, name: str, subject: str | None) -> dict[str, str]:
        facts = await self._facts(name)
        if facts is None or facts["subject"] != _subject(subject):
            raise StreamExpired
        return facts

    async def _rewrite(self, stream: RedisStream) -> None:
        """Redis came back without this node's stream: write it anew, claim and all."""
        spec = stream.spec
        if spec is None:
            stream.lose()
            return
        await self._client.delete(keys.stream(spec.stream), keys.log(spec.stream))
        await self._make(spec)
        await self._client.hset(keys.stream(spec.stream), "epoch", stream.epoch)
        await self._claim(spec.session, spec.id, spec, counted=True)
        await self._name_newest(spec)
        whole = stream.whole()
        channel = keys.stream(stream.name)
        await self._courier.call(
            "append",
            [channel, keys.log(stream.name), keys.lease(stream.name)],
            *(stream.epoch, 0, whole.count, whole.payload, self._keep_ms, whole.status, channel),
        )
        stream.acknowledged()

    async def _ask(self, answer: Awaitable[_T] | Any) -> Any:
        """Await Redis; where it does not answer, say so in the client's terms."""
        try:
            return await answer
        except (RedisError, OSError, TimeoutError):
            self._courier.failed()
            raise RelayError(
                Code.INTERNAL, "the relay's store does not answer; try again", retryable=True
            ) from None


def _subject(subject: str | None) -> str:
    """Nobody and somebody, told apart in a field that holds text."""
    return "" if subject is None else f"={subject}"


def _info(id: str, name: str, facts: dict[str, str]) -> StreamInfo:
    status: Status = (
        "running"
        if facts["status"] == "running"
        else "done"
        if facts["status"] == "done"
        else "error"
    )
    return StreamInfo(id, name, int(facts["next"]) - 1, status)
