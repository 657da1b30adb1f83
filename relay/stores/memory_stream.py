"""One stream and its readers, as this process's memory keeps them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from relay.errors import StreamExpired
from relay.events import Attempt, Record
from relay.records import Chunk, Records, encode, split_long
from relay.streamlog import Spec, Status, StreamInfo, Writer

STREAM_OVERHEAD = 2_048
"""Bytes a kept stream is counted for beside its records: names, index entries, objects."""


@dataclass(slots=True)
class MemorySession:
    """What a client takes up again: its ids, and the streams that they name."""

    name: str
    subject: str | None
    joined: bool
    """Whether a connection ever took part: if not, the session goes with its streams."""
    connections: int = 0
    running: int = 0
    ids: dict[str, MemoryStream] = field(default_factory=dict)
    tombstones: OrderedDict[str, None] = field(default_factory=OrderedDict)


class MemoryStream:
    """One stream and all that is known of it; also its `Writer`, since one process has
    one writer and no epoch but the first."""

    __slots__ = (
        "_clock",
        "_ended",
        "attempts",
        "cancel_callback",
        "cancel_wanted",
        "conversation",
        "cursors",
        "erasing",
        "fingerprint",
        "gone",
        "names",
        "records",
        "session",
        "spec_id",
        "stream",
        "subject",
        "unread_since",
        "waiting",
    )

    epoch = 1

    def __init__(
        self,
        spec: Spec,
        session: MemorySession,
        clock: Callable[[], float],
        ended: Callable[[MemoryStream], None],
    ) -> None:
        self.stream = spec.stream
        self.session = session
        self.spec_id = spec.id
        self.subject = spec.subject
        self.fingerprint = spec.request.fingerprint()
        self.conversation: tuple[str, str, str] | None = None
        self.records = Records()
        self.names: list[tuple[MemorySession, str]] = []
        self.cursors: set[MemoryCursor] = set()
        self.waiting: list[MemoryCursor] = []
        self.unread_since: float | None = clock()
        self.attempts: Sequence[Attempt] = ()
        self.cancel_wanted = False
        self.cancel_callback: Callable[[], None] | None = None
        self.erasing = False
        self.gone = False
        self._clock = clock
        self._ended = ended

    @property
    def size(self) -> int:
        """Bytes that the stream counts for."""
        return self.records.size + STREAM_OVERHEAD

    @property
    def status(self) -> Status:
        """Running, or how it ended."""
        if not self.records.ended:
            return "running"
        last = self.records.take(len(self.records) - 2)
        return "done" if last and last.kind == "done" else "error"

    def append(self, records: Sequence[Record]) -> None:
        """See `Writer.append`. Wakes the readers at the head."""
        if self.records.ended:
            raise RuntimeError("nothing may follow a terminal record")
        for record in split_long(records):
            self.records.append(*encode(record))
        if self.records.ended:
            self._ended(self)
        self._wake()

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for cursor in waiting:
            cursor.wake()

    async def settled(self) -> None:
        """In memory a record is safe when it is appended."""

    def keep_attempts(self, attempts: Sequence[Attempt]) -> None:
        """See `Writer.keep_attempts`."""
        self.attempts = attempts

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """See `Writer.on_cancel`."""
        if self.cancel_wanted:
            callback()
        else:
            self.cancel_callback = callback

    def want_cancel(self) -> None:
        """Tell the owner, once."""
        callback, self.cancel_callback = self.cancel_callback, None
        self.cancel_wanted = True
        if callback and not self.records.ended:
            callback()

    def enter(self, cursor: MemoryCursor) -> None:
        """A reader came."""
        self.cursors.add(cursor)
        self.unread_since = None

    def leave(self, cursor: MemoryCursor) -> None:
        """A reader left; a second time changes nothing."""
        if cursor not in self.cursors:
            return
        self.cursors.discard(cursor)
        if cursor in self.waiting:
            self.waiting.remove(cursor)
        if not self.cursors:
            self.unread_since = self._clock()


class MemoryCursor:
    """One reader's place in one stream."""

    __slots__ = ("_let_go", "_stream", "after", "wake")

    def __init__(
        self,
        stream: MemoryStream,
        after: int,
        wake: Callable[[], None],
        let_go: Callable[[MemoryStream], None],
    ) -> None:
        self._stream = stream
        self._let_go = let_go
        self.after = after
        self.wake = wake
        stream.enter(self)

    def take(self, limit: int) -> Chunk | None:
        """See `Cursor.take`."""
        stream = self._stream
        if stream.gone:
            raise StreamExpired
        chunk = stream.records.take(self.after, limit)
        if chunk is None:
            stream.waiting.append(self)
        else:
            self.after = chunk.last
        return chunk

    def close(self) -> None:
        """See `Cursor.close`."""
        self._stream.leave(self)
        if self._stream.erasing:
            self._let_go(self._stream)


def info(stream: MemoryStream, id: str) -> StreamInfo:
    """A stream as the session lists it that names it `id`."""
    return StreamInfo(id, stream.stream, len(stream.records) - 1, stream.status)


def _is_writer(stream: MemoryStream) -> Writer:
    """Holds `MemoryStream` to the `Writer` protocol where types are checked."""
    return stream
