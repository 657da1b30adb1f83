"""Sessions, the ids that name streams in them, and lookups by name. Sessions in use on this node
are kept from expiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from relay.core.errors import StreamExpired
from relay.core.streamlog import StreamInfo, StreamStatus
from relay.stores import refusals
from relay.stores.redis import keys, scripts
from relay.stores.redis.connection import RedisConnection
from relay.stores.redis.courier import PendingWork
from relay.stores.redis.encoding import StreamFacts
from relay.stores.redis.scripts import ClaimAnswer, Command, RedisTerms, ScriptVerdict
from relay.stores.redis.stream import RedisStream

_KNOWN = ("subject", "id", "next", "status", "fingerprint", "erased")


class Claims:
    """Creates streams, links ids to them, and writes both anew after Redis lost them."""

    def __init__(
        self, connection: RedisConnection, pending: PendingWork, node: str, terms: RedisTerms
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._node = node
        self._terms = terms

    async def create(self, stream: str, facts: StreamFacts) -> ClaimAnswer:
        """Create a stream and claim its id in one round trip. `OK`; `TAKEN` if another node
        already owns the stream; else the answer to the claim, and the stream is removed."""
        terms, grace = self._terms, facts.grace
        make = scripts.create(
            *(stream, self._node, facts.fields()), lease=terms.lease, keep=terms.running(grace)
        )
        claim = self._claim(stream, facts, max_running=terms.max_running)

        async def once() -> ClaimAnswer:
            made, claimed = await self._connection.exchange_all([make, claim])
            if scripts.verdict(made) is ScriptVerdict.TAKEN:
                return ClaimAnswer(ScriptVerdict.TAKEN)
            return ClaimAnswer.decode(claimed)

        answer = await self._connection.ask(once, keeps=True)
        if answer.verdict not in (ScriptVerdict.OK, ScriptVerdict.TAKEN):
            self._pending.run_soon(("DEL", keys.stream(stream), keys.lease(stream)))
        elif facts.newest:
            kept = terms.session(grace)
            self._pending.run_soon(("SET", keys.newest(facts.newest), stream, "PX", kept))
        return answer

    async def link(self, session: str, id: str, stream: str, known: KnownStream) -> None:
        """Let an id of another session name a stream. Raises `RelayError(BAD_REQUEST)`, or
        `RelayError(FORBIDDEN)` for a session of another subject."""
        command = scripts.claim(
            *(keys.digest(session), id, stream, known.fingerprint, known.owner),
            keep=self._terms.keep,
            counts=0,
        )
        answer = ClaimAnswer.decode(
            await self._connection.ask(lambda: self._connection.run(command), keeps=True)
        )
        if answer.verdict is ScriptVerdict.FOREIGN:
            raise refusals.foreign_session()
        if answer.verdict is ScriptVerdict.HELD and keys.claimed(answer.detail)[0] != stream:
            raise refusals.other_stream(id)

    async def rewrite(self, stream: RedisStream) -> None:
        """Write a stream of this node and its claim anew. Raises `RedisError`."""
        epoch, in_flight, facts = stream.epoch, stream.in_flight, stream.facts
        commands = [self._rewriting(stream), self._claim(stream.name, facts)]
        if facts.newest:
            kept = self._terms.session(facts.grace)
            commands.append(("SET", keys.newest(facts.newest), stream.name, "PX", kept, "NX"))
        answer, *_ = await self._connection.exchange_all(commands)
        if stream.epoch != epoch or stream.fenced:
            return
        if scripts.verdict(answer) is ScriptVerdict.FENCED:
            stream.lose()
        elif in_flight is not None and stream.in_flight is in_flight:
            stream.acknowledged()

    def count(self, stream: RedisStream, *, anew: bool = False) -> Command:
        """The command with which a stream continues to count as running in its session. If it does
        not count any more, only `anew` adds it again."""
        session, counts = stream.facts.session, self._terms.counts
        return scripts.count(session, stream.name, counts=counts, anew=anew)

    def _rewriting(self, stream: RedisStream) -> Command:
        batches, terms = stream.whole(), self._terms
        status = batches[-1].status if batches else "running"
        running = status == "running"
        return scripts.rewrite(
            *(stream.name, stream.epoch, self._node, status),
            [(batch.next, batch.payload) for batch in batches],
            {**stream.facts.fields(), **stream.noted()},
            lease=terms.lease,
            keep=terms.running(stream.facts.grace) if running else terms.keep,
            age=stream.age_ms(),
        )

    def _claim(
        self, stream: str, facts: StreamFacts, *, max_running: int = scripts.UNLIMITED
    ) -> Command:
        return scripts.claim(
            *(facts.session, facts.id, stream, facts.fingerprint, facts.owner),
            max_running=max_running,
            keep=self._terms.session(facts.grace),
            counts=self._terms.counts,
        )


class UsedSession(NamedTuple):
    """A session in use on this node: its digest, its owner, and how long it is kept, in ms."""

    digest: str
    owner: str
    kept: int


class Sessions:
    """Keeps the sessions in use on this node: those with a connection here, and those with a
    running stream that this node writes."""

    def __init__(
        self,
        connection: RedisConnection,
        pending: PendingWork,
        clock: Callable[[], float],
        terms: RedisTerms,
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._clock = clock
        self._terms = terms
        self._joined: dict[str, tuple[int, str]] = {}
        self._refreshed: dict[str, float] = {}

    async def open(self, session: str, subject: str | None) -> bool:
        """Add a connection to a session; returns whether the session existed before. Raises
        `RelayError(FORBIDDEN)`."""
        digest, owner = keys.digest(session), keys.owner(subject)
        command = scripts.open_session(digest, owner, keep=self._terms.session())
        answer = await self._connection.ask(lambda: self._connection.run(command), keeps=True)
        verdict = scripts.verdict(answer)
        if verdict is ScriptVerdict.FOREIGN:
            raise refusals.foreign_session()
        count, _ = self._joined.get(digest, (0, owner))
        self._joined[digest] = (count + 1, owner)
        self._refreshed[digest] = self._clock()
        return verdict is ScriptVerdict.KNOWN

    def left(self, session: str) -> None:
        """A connection ended. After the last one, the session is kept for its window."""
        digest = keys.digest(session)
        count, owner = self._joined.pop(digest, (0, ""))
        if count > 1:
            self._joined[digest] = (count - 1, owner)
        else:
            self._leave(digest)

    def _leave(self, digest: str) -> None:  # the script skips a session with a running stream
        self._pending.run_soon(scripts.leave_session(digest, keep=self._terms.keep))

    def ending(self, stream: RedisStream) -> None:
        """A stream of this node gets its terminal record: it does not count as running any more,
        and the keys that name it are kept as long as the stream."""
        facts = stream.facts
        self._pending.run_soon(("ZREM", keys.running(facts.session), stream.name))
        if facts.session not in self._joined:
            self._leave(facts.session)
        if facts.newest:
            self._pending.run_soon(("PEXPIRE", keys.newest(facts.newest), self._terms.keep))

    def forgotten(self) -> None:
        """Redis lost its data: renew all sessions at the next tick."""
        self._refreshed.clear()

    def due(self, owned: Sequence[RedisStream]) -> list[UsedSession]:
        """The sessions to renew, including those of the streams that this node writes. The keys of
        their newest streams by conversation are renewed with them."""
        used = self._used(owned)
        now, pause = self._clock(), self._terms.refresh
        self._refreshed = {s: self._refreshed.get(s, 0.0) for s in used}
        due = [each for s, each in used.items() if now - self._refreshed[s] >= pause]
        self._keep_newest(owned, {each.digest for each in due})
        return due

    def refreshed(self, session: UsedSession) -> None:
        """A session was renewed."""
        self._refreshed[session.digest] = self._clock()

    def _used(self, owned: Sequence[RedisStream]) -> dict[str, UsedSession]:
        idle = self._terms.session()
        used = {s: UsedSession(s, owner, idle) for s, (_, owner) in self._joined.items()}
        for stream in owned:
            facts = stream.facts
            name, kept = facts.session, self._terms.session(facts.grace)
            if name not in used or used[name].kept < kept:
                used[name] = UsedSession(name, facts.owner, kept)
        return used

    def _keep_newest(self, owned: Sequence[RedisStream], sessions: set[str]) -> None:
        for stream in owned:
            facts = stream.facts
            if facts.newest and facts.session in sessions:
                kept = self._terms.session(facts.grace)
                self._pending.run_soon(("PEXPIRE", keys.newest(facts.newest), kept))


class KnownStream(NamedTuple):
    """What Redis knows of a stream that is neither dropped nor erased. `owner` is a subject as
    `keys.owner` writes it; `id` is its id in the session that started it."""

    owner: str
    id: str
    next_seq: int
    status: StreamStatus
    fingerprint: str

    def info(self, id: str, stream: str) -> StreamInfo:
        """The stream as listed by a session that names it `id`."""
        return StreamInfo(id, stream, self.next_seq - 1, self.status)


class Index:
    """Looks streams up; `held` are those that this node holds. Waits for a Redis that does not
    answer, as `RedisConnection.ask` does."""

    def __init__(self, connection: RedisConnection, held: Mapping[str, RedisStream]) -> None:
        self._connection = connection
        self._held = held

    async def known(self, name: str, subject: str | None) -> KnownStream:
        """A stream of this subject. Raises `StreamExpired` if it is another's or unknown."""
        known = await self._look_up(name)
        if known is None or known.owner != keys.owner(subject):
            raise StreamExpired
        return known

    async def session_streams(self, session: str) -> list[StreamInfo]:
        """The streams that the session's ids name, oldest first."""
        digest = keys.digest(session)
        ids: list[bytes] = await self._ask("LRANGE", keys.order(digest), 0, -1)
        if not ids:
            return []
        claims: list[bytes | None] = await self._ask("HMGET", keys.ids(digest), *ids)
        named = [
            (id.decode(), keys.claimed(claim)[0])
            for id, claim in zip(ids, claims, strict=True)
            if claim
        ]
        commands = [_look_up(stream) for _, stream in named]
        answers = await self._connection.ask(lambda: self._connection.exchange_all(commands))
        return [
            known.info(id, stream)
            for (id, stream), answer in zip(named, answers, strict=True)
            if (known := _decoded(answer)) is not None
        ]

    async def find(self, session: str, id: str) -> str:
        """The stream that `id` names within the session. Raises `StreamExpired`."""
        claim: bytes | None = await self._ask("HGET", keys.ids(keys.digest(session)), id)
        if claim is None:
            raise StreamExpired
        name, _ = keys.claimed(claim)
        if name not in self._held and await self._look_up(name) is None:
            raise StreamExpired
        return name

    async def newest(self, conversation: str, session: str, subject: str | None) -> str:
        """The newest stream of a conversation. Raises `StreamExpired`."""
        digest = keys.conversation(subject, keys.digest(session), conversation)
        name: bytes | None = await self._ask("GET", keys.newest(digest))
        if name is None:
            raise StreamExpired
        await self.known(name.decode(), subject)
        return name.decode()

    async def _look_up(self, name: str) -> KnownStream | None:
        held = self._held.get(name)
        if held is not None and held.owned:
            return None if held.erased else _own(held)
        return _decoded(await self._ask(*_look_up(name)))

    async def _ask(self, *command: str | int | bytes) -> Any:
        return await self._connection.ask(lambda: self._connection.run(command))


def _look_up(stream: str) -> Command:
    return ("HMGET", keys.stream(stream), *_KNOWN)


def _own(stream: RedisStream) -> KnownStream:
    facts = stream.facts
    return KnownStream(facts.owner, facts.id, len(stream.records), "running", facts.fingerprint)


def _decoded(values: Sequence[bytes | None]) -> KnownStream | None:
    *known, erased = values
    if known[0] is None or erased is not None:
        return None
    owner, id, next_seq, status, fingerprint = (str(value or b"", "utf-8") for value in known)
    return KnownStream(owner, id, int(next_seq), cast(StreamStatus, status), fingerprint)
