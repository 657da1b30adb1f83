"""The stream log in memory.

Streams and sessions expire only in `sweep`, which the server calls about once a second; there is
no task or timer here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from relay.core.errors import Code, RelayError, StreamExpired
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
from relay.stores.memory.finished import Finished
from relay.stores.memory.stream import MemorySession, MemoryStream, info
from relay.stores.reading import ReadCursor

TOMBSTONE_BYTES = 256
"""Bytes that an id counts for after its stream is gone."""

SESSION_BYTES = 1_536
"""Bytes that a session counts for while no connection uses it."""

MAX_TOMBSTONES = 1_000
"""Ids of gone streams that one session remembers; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How long and how much is kept: seconds, bytes, and running streams a session."""

    resume_window: float
    retained_bytes: int
    max_streams_per_session: int


class MemoryLog(StreamLog):
    """Streams and sessions of one process.

    `clock` gives seconds, monotonic. Call `sweep` about once a second.
    """

    def __init__(self, limits: MemoryLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._streams: dict[str, MemoryStream] = {}
        self._finished = Finished()
        self._sessions: dict[str, MemorySession] = {}
        self._empty: OrderedDict[str, float] = OrderedDict()
        self._newest: dict[tuple[str, str, str], MemoryStream] = {}
        self._kept_bytes = 0

    @property
    def retained_bytes(self) -> int:
        """Bytes that finished streams, tombstones and unused sessions count for."""
        return self._kept_bytes

    @property
    def running(self) -> int:
        """Streams that have no terminal record yet."""
        return len(self._streams) - len(self._finished)

    # Sessions

    @override
    async def open_session(self, session: str, subject: str | None) -> bool:
        found = self._sessions.get(session)
        held = found or self._add_session(session, subject, joined=True)
        if held.subject != subject:
            raise refusals.foreign_session()
        held.joined = True
        held.connections += 1
        if self._empty.pop(session, None) is not None:
            self._kept_bytes -= SESSION_BYTES
        return found is not None

    @override
    async def leave_session(self, session: str) -> None:
        held = self._sessions.get(session)
        if held is None:
            return
        held.connections -= 1
        if held.connections == 0:
            self._empty[session] = self._clock()
            self._kept_bytes += SESSION_BYTES
            self._make_room()

    @override
    async def session_streams(self, session: str) -> list[StreamInfo]:
        held = self._sessions.get(session)
        return [info(stream, id) for id, stream in held.ids.items()] if held else []

    def _add_session(self, name: str, subject: str | None, *, joined: bool) -> MemorySession:
        session = self._sessions[name] = MemorySession(name, subject, joined)
        return session

    # Streams

    @override
    async def create(self, spec: Spec) -> Created | Existing:
        session = self._sessions.get(spec.session)
        if session is None:
            session = self._add_session(spec.session, spec.subject, joined=False)
        if held := _named(session, spec.id):
            if not held.asks(spec.request):
                raise refusals.other_content(spec.id)
            return Existing(held.stream)
        self._check_room(session)
        return Created(self._add_stream(spec, session))

    def _check_room(self, session: MemorySession) -> None:
        if session.running >= self._limits.max_streams_per_session:
            raise refusals.too_many(session.running)

    def _add_stream(self, spec: Spec, session: MemorySession) -> MemoryStream:
        stream = MemoryStream(spec, session, self._clock, self)
        self._streams[spec.stream] = stream
        session.running += 1
        self._name(session, spec.id, stream)
        if spec.request.conversation:
            stream.conversation = _scope(spec.subject, session.name, spec.request.conversation)
            self._newest[stream.conversation] = stream
        return stream

    def _name(self, session: MemorySession, id: str, stream: MemoryStream) -> None:
        session.ids[id] = stream
        stream.names.append((session, id))

    @override
    async def link(self, session: str, id: str, stream: str, subject: str | None) -> None:
        target = self._owned(stream, subject)
        held = self._sessions.get(session) or self._add_session(session, subject, joined=False)
        named = _named(held, id)
        if named is None:
            self._name(held, id, target)
        elif named is not target:
            raise refusals.other_stream(id)

    @override
    async def find(self, session: str, id: str) -> str:
        held = self._sessions.get(session)
        named = _named(held, id) if held else None
        if named is None:
            raise StreamExpired
        return named.stream

    @override
    async def newest(self, conversation: str, session: str, subject: str | None) -> str:
        stream = self._newest.get(_scope(subject, session, conversation))
        if stream is None:
            raise StreamExpired
        return stream.stream

    @override
    async def attach(
        self, stream: str, after: int, wake: Callable[[], None], subject: str | None
    ) -> Cursor:
        target = self._owned(stream, subject)
        if not -1 <= after < len(target.records):
            raise RelayError(Code.BAD_REQUEST, f"after: the stream never reached {after}")
        return ReadCursor(target, after, wake)

    @override
    async def info(self, stream: str, subject: str | None) -> StreamInfo:
        target = self._owned(stream, subject)
        return info(target, target.spec_id)

    @override
    async def cancel(self, stream: str, subject: str | None) -> None:
        self._owned(stream, subject).want_cancel()

    @override
    async def erase(self, stream: str, subject: str | None) -> None:
        target = self._owned(stream, subject)
        target.erasing = True
        target.want_cancel()
        self._let_go_if_erased(target)

    @override
    def on_orphan(self, callback: Callable[[Orphan], None] | None) -> None:
        """Never calls it: streams end with this process, so there are no orphans."""

    @override
    async def hand_over(self, writer: Writer) -> bool:
        return False

    @override
    async def close(self) -> None:
        for stream in list(self._streams.values()):
            self._drop(stream)
        self._sessions.clear()
        self._empty.clear()

    def _owned(self, stream: str, subject: str | None) -> MemoryStream:
        found = self._streams.get(stream)
        if found is None or found.erasing or found.subject != subject:
            raise StreamExpired
        return found

    # Retention

    @override
    def sweep(self) -> None:
        """Drop what has expired. Looks only at the oldest entries."""
        limit = self._clock() - self._limits.resume_window
        while (stream := self._finished.oldest()) and self._finished.ended_at(stream) <= limit:
            self._drop(stream)
        while self._empty and next(iter(self._empty.values())) <= limit:
            self._end_session(next(iter(self._empty)))

    def ended(self, stream: MemoryStream) -> None:
        """A stream got its terminal record."""
        stream.session.running -= 1
        self._finished.add(stream, self._clock())
        self._kept_bytes += stream.size
        self._let_go_if_erased(stream)
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest, streams and unused sessions alike, until the limit is kept; streams
        with readers go last. The most recent stream always stays."""
        while self._kept_bytes > self._limits.retained_bytes:
            stream = self._finished.next_to_go() if len(self._finished) > 1 else None
            if self._empty and self._session_goes_before(stream):
                self._end_session(next(iter(self._empty)))
            elif stream is not None:
                self._drop(stream)
            else:
                return

    def _session_goes_before(self, stream: MemoryStream | None) -> bool:
        if stream is None or stream.cursors:
            return True
        return next(iter(self._empty.values())) <= self._finished.ended_at(stream)

    def left_alone(self, stream: MemoryStream) -> None:
        """The last reader of a stream left."""
        self._finished.left(stream)
        self._let_go_if_erased(stream)

    def _let_go_if_erased(self, stream: MemoryStream) -> None:
        if stream.erasing and stream.records.ended and not stream.cursors:
            self._drop(stream)

    def _drop(self, stream: MemoryStream) -> None:
        if stream.gone:
            return
        del self._streams[stream.stream]
        if self._finished.remove(stream):
            self._kept_bytes -= stream.size
        if stream.conversation and self._newest.get(stream.conversation) is stream:
            del self._newest[stream.conversation]
        for session, id in stream.names:
            self._bury(session, id)
        stream.let_go()

    def _bury(self, session: MemorySession, id: str) -> None:
        del session.ids[id]
        if not session.joined:
            if not session.ids:
                self._sessions.pop(session.name, None)
            return
        session.tombstones[id] = None
        self._kept_bytes += TOMBSTONE_BYTES
        if len(session.tombstones) > MAX_TOMBSTONES:
            session.tombstones.popitem(last=False)
            self._kept_bytes -= TOMBSTONE_BYTES

    def _end_session(self, name: str) -> None:
        del self._empty[name]
        self._kept_bytes -= SESSION_BYTES
        session = self._sessions.pop(name)
        self._kept_bytes -= TOMBSTONE_BYTES * len(session.tombstones)
        for id, stream in session.ids.items():
            stream.names.remove((session, id))


def _named(session: MemorySession, id: str) -> MemoryStream | None:
    """The stream that an id names, None if there is none. Raises for an id whose stream was
    dropped."""
    if id in session.tombstones:
        raise StreamExpired
    return session.ids.get(id)


def _scope(subject: str | None, session: str, conversation: str) -> tuple[str, str, str]:
    """The key under which a conversation is looked up: within its subject, or without one within
    the session."""
    return (
        ("session", session, conversation)
        if subject is None
        else ("subject", subject, conversation)
    )
