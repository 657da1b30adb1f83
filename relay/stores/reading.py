"""Readers of one stream's records on this node, whatever keeps the stream."""

from __future__ import annotations

from collections.abc import Callable

from relay.core.errors import RelayError, StreamExpired
from relay.core.records import Chunk, Records


class Readable:
    """One stream's records here, and the cursors over them.

    `waiting` are the cursors to be woken by what follows. `gone` once the records are let
    go: a cursor that has not had them all is told so. `trouble` once the store can't keep
    its promise: every reader is told that instead.
    """

    __slots__ = ("cursors", "gone", "records", "trouble", "waiting")

    def __init__(self) -> None:
        self.records = Records()
        self.cursors: list[ReadCursor] = []  # few at a time: a set would weigh a fifth more
        self.gone = False
        self.trouble: RelayError | None = None
        self.waiting: list[ReadCursor] = []

    def wake(self) -> None:
        """Tell the readers at the head that there is more, each once."""
        waiting, self.waiting = self.waiting, []
        for cursor in waiting:
            cursor.at_head = False
            cursor.wake()

    def let_go(self) -> None:
        """Drop the records; readers learn it by their next `take`."""
        self.gone = True
        self.records = Records()
        self.wake()

    def entered(self, cursor: ReadCursor) -> None:
        """A reader came."""
        self.cursors.append(cursor)

    def left(self, cursor: ReadCursor) -> None:
        """A reader left."""
        self.cursors.remove(cursor)
        if cursor in self.waiting:
            self.waiting.remove(cursor)


class ReadCursor:
    """One reader's place in one stream: the `Cursor` of every store."""

    __slots__ = ("_of", "after", "at_head", "wake")

    def __init__(self, of: Readable, after: int, wake: Callable[[], None]) -> None:
        self._of = of
        self.after = after
        self.at_head = False
        self.wake = wake
        of.entered(self)

    def take(self, limit: int) -> Chunk | None:
        """What follows, merged up to `limit` bytes; None at the head. Raises `StreamExpired`, or
        the stream's `trouble`."""
        of = self._of
        if of.gone:
            raise StreamExpired
        records = of.records
        chunk = records.take(self.after, limit)
        if chunk is not None:
            self.after = chunk.last
        elif of.trouble is not None:
            raise of.trouble
        if self.after >= records.newest and not self.at_head and of.trouble is None:
            self.at_head = True
            of.waiting.append(self)
        return chunk

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self in self._of.cursors:
            self._of.left(self)
