"""How a stream comes to be in Redis: born, named by ids, and written anew where Redis
lost it while its owner lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from relay.request import ChatRequest
from relay.stores import redis_keys as keys
from relay.stores import refusals
from relay.stores.redis_calls import Calls
from relay.stores.redis_courier import Courier
from relay.stores.redis_entries import fields
from relay.stores.redis_stream import RedisStream
from relay.streamlog import Spec

MAX_IDS = 2_000
"""Ids that one session remembers, those of gone streams included; the oldest are
forgotten first, and may then name a new chat."""

COUNTS_LEASES = 6
"""Leases for which a stream counts as running in its session without being renewed."""

UNLIMITED = 1_000_000_000

ORPHAN_LEASES = 3
"""Leases, beyond its grace and the window, for which a stream under way is kept after its
owner's last word: the first runs out before another node may take it."""

SESSION_REFRESH = 300.0
"""Seconds after which a session that is in use is kept anew, or a quarter of what it is
kept for, where that is less."""

Facts = Mapping[str, str | bytes]
"""The fields of a stream that never change, as Redis keeps them."""


class Terms(NamedTuple):
    """Times in ms, sizes in bytes, and how many streams a session runs."""

    keep: int
    lease: int
    linger: int
    max_running: int
    max_request: int

    @property
    def refresh(self) -> float:
        """Seconds after which a session that is in use is kept anew."""
        return min(SESSION_REFRESH, self.keep / 4000)

    def under_way(self, facts: Facts) -> int:
        """How long a stream that runs is kept after its owner's last word, in ms: an orphan
        waits for a reader as long as a living owner would have had it read."""
        return self.keep + int(float(facts["grace"]) * 1000) + ORPHAN_LEASES * self.lease

    def session(self, facts: Facts | None = None) -> int:
        """How long a session is kept after it was last kept anew, in ms: one in use, and
        one of which a stream runs."""
        held = self.under_way(facts) if facts else self.keep + ORPHAN_LEASES * self.lease
        return held + int(self.refresh * 1000)


def owner_of(subject: str | None) -> str:
    """Nobody and somebody, told apart in a field that holds text."""
    return "" if subject is None else f"={subject}"


def subject_of(facts: Facts) -> str | None:
    """The subject that `owner_of` was given."""
    owner = str(facts["subject"])
    return owner[1:] if owner else None


def facts_of(spec: Spec, max_request: int) -> dict[str, str | bytes]:
    """What Redis is to keep of a stream. A request that is too large is left out: the
    answer then ends with its node."""
    session, conversation = keys.digest(spec.session), spec.request.conversation
    facts: dict[str, str | bytes] = {
        "subject": owner_of(spec.subject),
        "session": session,
        "id": spec.id,
        "grace": str(spec.grace),
        "fingerprint": spec.request.fingerprint(),
        "newest": keys.conversation(spec.subject, session, conversation) if conversation else "",
    }
    request = msgspec.msgpack.encode(spec.request)
    if len(request) <= max_request:
        facts["request"] = request
    return facts


def spec_of(name: str, facts: Facts) -> tuple[Spec, ChatRequest | None]:
    """A stream's birth as another node reads it; no request where none was kept. Its
    session is told by digest, because nothing else is kept of it."""
    packed = facts.get("request")
    request = None
    if isinstance(packed, bytes):
        request = msgspec.msgpack.decode(packed, type=ChatRequest)
    spec = Spec(
        stream=name,
        session=str(facts["session"]),
        id=str(facts["id"]),
        subject=subject_of(facts),
        request=request or ChatRequest("", ()),
        grace=float(facts["grace"]),
    )
    return spec, request


class Claims:
    """Births, claims and rewritings, for one node."""

    def __init__(self, calls: Calls, courier: Courier, node: str, terms: Terms) -> None:
        self._calls = calls
        self._courier = courier
        self._node = node
        self._terms = terms

    async def bear(self, spec: Spec, facts: Facts) -> tuple[bytes, bytes]:
        """Make a stream and claim its id, with one round trip; answers as `claim.lua`, and
        'taken' where somebody else owns it by now. Whatever is not 'ok' leaves no stream."""

        async def once() -> tuple[bytes, bytes]:
            async with self._calls.client.pipeline(transaction=False) as pipe:
                self._queue_birth(pipe, spec.stream, facts)
                self._queue_claim(pipe, spec.stream, facts, limit=self._terms.max_running)
                born, claim = await self._calls.checked(pipe)
            for answer in (born, claim):
                if isinstance(answer, Exception):
                    raise answer
            return (b"taken", b"") if born == b"taken" else (claim[0], claim[1])

        verdict, held = await self._calls.ask(once, keeps=True)
        if verdict not in (b"ok", b"taken"):
            name = spec.stream
            self._courier.run_errand("DEL", keys.stream(name), keys.lease(name))
        elif facts["newest"]:
            key = keys.newest(str(facts["newest"]))
            kept = self._terms.session(facts)
            self._courier.run_errand("SET", key, spec.stream, "PX", kept)
        return verdict, held

    async def link(self, session: str, id: str, stream: str, facts: Facts) -> None:
        """Let an id of another session name a stream. Raises `RelayError(BAD_REQUEST)`."""
        digest = keys.digest(session)
        claim = f"{stream} {facts['fingerprint']!s}"
        verdict, held = await self._calls.ask(
            lambda: self._calls.call(
                *("claim", _claim_keys(digest), id, claim, str(facts["subject"]), UNLIMITED),
                *(self._terms.keep, stream, 0, MAX_IDS),
            ),
            keeps=True,
        )
        if verdict == b"foreign":
            raise refusals.foreign_session()
        if verdict == b"held" and held.decode().split()[0] != stream:
            raise refusals.other_stream(id)

    async def rewrite(self, stream: RedisStream) -> None:
        """Write a stream anew, claim and all. Raises `RedisError`."""
        batches = stream.whole()
        entries = [field for batch in batches for field in (batch.next, batch.payload)]
        status = batches[-1].status if batches else "running"
        epoch, in_flight, terms = stream.epoch, stream.in_flight, self._terms
        async with self._calls.client.pipeline(transaction=False) as pipe:
            self._calls.queue(
                *(pipe, "rewrite", _stream_keys(stream.name), epoch, self._node),
                *(
                    terms.lease,
                    terms.under_way(stream.facts) if status == "running" else terms.keep,
                ),
                *(status, stream.age_ms(), len(batches), *entries),
                *(*fields(stream.facts), *fields(stream.noted())),
            )
            self._queue_claim(pipe, stream.name, stream.facts, limit=UNLIMITED)
            if stream.facts["newest"]:
                key = keys.newest(str(stream.facts["newest"]))
                pipe.set(key, stream.name, px=terms.session(stream.facts), nx=True)
            verdict, *others = await self._calls.checked(pipe)
        for answer in (verdict, *others):
            if isinstance(answer, Exception):
                raise answer
        if stream.epoch != epoch or stream.fenced:
            return
        if verdict == b"fenced":
            stream.lose()
        elif in_flight is not None and stream.in_flight is in_flight:
            stream.acknowledged()

    def queue_count(self, pipe: Any, stream: RedisStream, *, anew: bool = False) -> None:
        """Let a stream go on counting as its session's, unless it ceased to."""
        key = keys.running(str(stream.facts["session"]))
        counts = COUNTS_LEASES * self._terms.lease
        self._calls.queue(pipe, "count", [key], stream.name, counts, int(anew))

    def _queue_birth(self, pipe: Any, name: str, facts: Facts) -> None:
        names = [keys.stream(name), keys.lease(name)]
        times = (self._terms.lease, self._terms.under_way(facts))
        self._calls.queue(pipe, "create", names, self._node, *times, *fields(facts))

    def _queue_claim(self, pipe: Any, name: str, facts: Facts, *, limit: int) -> None:
        self._calls.queue(
            *(pipe, "claim", _claim_keys(str(facts["session"])), str(facts["id"])),
            *(f"{name} {facts['fingerprint']!s}", str(facts["subject"]), limit),
            *(self._terms.session(facts), name, COUNTS_LEASES * self._terms.lease, MAX_IDS),
        )


def _claim_keys(digest: str) -> list[str]:
    return [f(digest) for f in (keys.session, keys.ids, keys.order, keys.running)]


def _stream_keys(name: str) -> list[str]:
    return [f(name) for f in (keys.stream, keys.log, keys.lease)]
