"""What Redis knows of streams beside their records: whose they are, how far, and by which
names they are found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from relay.errors import StreamExpired
from relay.stores import redis_keys as keys
from relay.stores.redis_calls import Calls
from relay.stores.redis_claims import owner_of
from relay.stores.redis_stream import RedisStream
from relay.streamlog import Status, StreamInfo

Known = dict[str, str]
"""Fields of a stream: `_FACTS` but `erased`, which nothing that is known has."""

_FACTS = ("subject", "id", "next", "status", "fingerprint", "erased")


class Index:
    """Looks streams up; `streams` are those that this node holds. Waits for a Redis that is
    away, as `Calls.ask` does."""

    def __init__(self, calls: Calls, streams: Mapping[str, RedisStream]) -> None:
        self._calls = calls
        self._client = calls.client
        self._streams = streams

    async def known(self, name: str, subject: str | None) -> Known:
        """A stream of this subject. Raises `StreamExpired` for any other."""
        facts = await self._facts(name)
        if facts is None or facts["subject"] != owner_of(subject):
            raise StreamExpired
        return facts

    async def session_streams(self, session: str) -> list[StreamInfo]:
        """See `StreamLog.session_streams`."""
        digest = keys.digest(session)
        ids: list[bytes] = await self._ask(lambda: self._client.lrange(keys.order(digest), 0, -1))
        if not ids:
            return []
        claims = await self._ask(lambda: self._client.hmget(keys.ids(digest), ids))
        named = [
            (id.decode(), _stream_in(claim)) for id, claim in zip(ids, claims, strict=True) if claim
        ]
        facts = await self._calls.ask(lambda: self._all_facts([name for _, name in named]))
        return [
            info(id, name, known)
            for (id, name), known in zip(named, facts, strict=True)
            if known is not None
        ]

    async def find(self, session: str, id: str) -> str:
        """See `StreamLog.find`."""
        ids = keys.ids(keys.digest(session))
        claim = await self._ask(lambda: self._client.hget(ids, id))
        if claim is None:
            raise StreamExpired
        name = _stream_in(claim)
        if name not in self._streams and await self._facts(name) is None:
            raise StreamExpired
        return name

    async def newest(self, conversation: str, session: str, subject: str | None) -> str:
        """See `StreamLog.newest`."""
        digest = keys.conversation(subject, keys.digest(session), conversation)
        name = await self._ask(lambda: self._client.get(keys.newest(digest)))
        if name is None:
            raise StreamExpired
        await self.known(name.decode(), subject)
        return str(name.decode())

    async def _facts(self, name: str) -> Known | None:
        """What is known of a stream; None for one that is gone or erased."""
        held = self._streams.get(name)
        if held is not None and held.owned:
            return None if held.erased else _own_facts(held)
        return _decoded(await self._ask(lambda: self._client.hmget(keys.stream(name), _FACTS)))

    async def _all_facts(self, names: list[str]) -> list[Known | None]:
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(keys.stream(name), _FACTS)
            answers = await self._calls.checked(pipe)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [_decoded(values) for values in answers]

    async def _ask(self, call: Callable[[], Any]) -> Any:
        return await self._calls.ask(cast(Callable[[], Awaitable[Any]], call))


def info(id: str, name: str, known: Known) -> StreamInfo:
    """The same as a session lists it."""
    return StreamInfo(id, name, int(known["next"]) - 1, cast(Status, known["status"]))


def _own_facts(stream: RedisStream) -> Known:
    held: Mapping[str, str | bytes] = stream.facts
    facts = {name: str(held[name]) for name in ("subject", "id", "fingerprint")}
    return facts | {"next": str(len(stream.records)), "status": "running"}


def _decoded(values: list[bytes | None]) -> Known | None:
    if values[0] is None or values[_FACTS.index("erased")] is not None:
        return None
    return {
        name: value.decode()
        for name, value in zip(_FACTS, values, strict=True)
        if value is not None
    }


def _stream_in(claim: bytes) -> str:
    return claim.split()[0].decode()
