"""One stream and one session, as this process's memory keeps them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relay.core.account import Account
from relay.core.events import Record
from relay.core.records import Chunk
from relay.core.request import ChatRequest
from relay.core.streamlog import Cursor, Spec, StreamInfo, StreamStatus, Writer
from relay.stores.reading import Readable, ReadCursor

STREAM_OVERHEAD = 2_048
"""Bytes that a stream counts for in addition to its records: names, index entries, objects."""


@dataclass(slots=True)
class MemorySession:
    """What a client takes up again: its ids, and the streams that they name."""

    name: str
    subject: str | None
    joined: bool
    """Whether a connection ever used the session. If none did, the session is dropped with its
    streams."""
    connections: int = 0
    running: int = 0
    ids: dict[str, MemoryStream] = field(default_factory=dict)
    tombstones: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Shelf(Protocol):
    """The log that keeps the streams; a stream reports these events to it."""

    def ended(self, stream: MemoryStream) -> None:
        """The stream got its terminal record."""
        ...

    def left_alone(self, stream: MemoryStream) -> None:
        """The stream's last reader left."""
        ...


class MemoryStream(Readable):
    """One stream with everything known about it. It is also its `Writer`, since one process has
    only one writer."""

    __slots__ = (
        "_asked",
        "_cancel_callback",
        "_clock",
        "_fingerprint",
        "_shelf",
        "cancel_wanted",
        "conversation",
        "erasing",
        "names",
        "session",
        "spec_id",
        "stream",
        "subject",
        "unread_since",
    )

    def __init__(
        self, spec: Spec, session: MemorySession, clock: Callable[[], float], shelf: Shelf
    ) -> None:
        super().__init__()
        self.stream = spec.stream
        self.session = session
        self.spec_id = spec.id
        self.subject = spec.subject
        self._asked: ChatRequest | None = spec.request
        self._fingerprint = ""
        self.conversation: tuple[str, str, str] | None = None
        self.names: list[tuple[MemorySession, str]] = []
        self.unread_since: float | None = clock()
        self.cancel_wanted = False
        self.erasing = False
        self._cancel_callback: Callable[[], None] | None = None
        self._clock = clock
        self._shelf = shelf

    @property
    def size(self) -> int:
        """Bytes that the stream counts for."""
        return self.records.size + STREAM_OVERHEAD

    @property
    def status(self) -> StreamStatus:
        """Running, or how it ended."""
        if not self.records.ended:
            return "running"
        last = self.records.take(len(self.records) - 2)
        return "done" if last and last.kind == "done" else "error"

    def asks(self, request: ChatRequest) -> bool:
        """Whether `request` asks the same as the chat that started the stream."""
        return request.fingerprint() == self._digest()

    def _digest(self) -> str:
        """The chat's fingerprint, made when it is first needed so that a new chat does not wait
        for it. The chat itself is dropped then."""
        if self._asked is not None:
            self._fingerprint, self._asked = self._asked.fingerprint(), None
        return self._fingerprint

    def append(self, records: Sequence[Record]) -> None:
        """Add records, in order; cursors see them at once. Raises `RuntimeError` after a terminal
        record."""
        kept = self.records
        if kept.ended:
            raise RuntimeError("no record may follow a terminal record")
        kept.extend(records)
        if kept.ended:
            self._cancel_callback = None  # free the writer's objects
            self._digest()
            self._shelf.ended(self)
        if self.waiting:
            self.wake()

    def chunks(self) -> Sequence[Chunk]:
        """Everything appended so far."""
        return self.records.chunks()

    def keep_account(self, account: Callable[[], Account]) -> None:
        """Does nothing: no other node can take over a stream in memory."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when a client wants the stream to end."""
        if self.cancel_wanted:
            callback()
        else:
            self._cancel_callback = callback

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Never calls `callback`: no other node can write a stream in memory."""

    def want_cancel(self) -> None:
        """Ask the owner to end the stream; only the first call has an effect."""
        callback, self._cancel_callback = self._cancel_callback, None
        self.cancel_wanted = True
        if callback and not self.records.ended:
            callback()

    def entered(self, cursor: ReadCursor) -> None:
        """A reader attached."""
        super().entered(cursor)
        self.unread_since = None

    def left(self, cursor: ReadCursor) -> None:
        """A reader left."""
        super().left(cursor)
        if not self.cursors:
            self.unread_since = self._clock()
            self._shelf.left_alone(self)


def info(stream: MemoryStream, id: str) -> StreamInfo:
    """A stream as listed by a session that names it `id`."""
    return StreamInfo(id, stream.stream, len(stream.records) - 1, stream.status)


def _held_to_protocols(stream: MemoryStream, cursor: ReadCursor) -> tuple[Writer, Cursor]:
    """Lets the type checker compare both classes with their protocols."""
    return stream, cursor
