"""Readers of one stream's records on this node, the same for every store."""

from __future__ import annotations

from collections.abc import Callable

from relay.core.errors import RelayError, StreamExpired
from relay.core.records import Chunk, Records


class Readable:
    """The records of one stream on this node, and the cursors over them.

    `waiting` are the cursors to wake when records are added. `gone`: the records were dropped, and
    a cursor that has not read them all raises `StreamExpired`. `trouble`: the store can't deliver
    any more, and every reader gets this error instead.
    """

    __slots__ = ("cursors", "gone", "records", "trouble", "waiting")

    def __init__(self) -> None:
        self.records = Records()
        self.cursors: list[ReadCursor] = []  # a set would take more memory for so few
        self.gone = False
        self.trouble: RelayError | None = None
        self.waiting: list[ReadCursor] = []

    def wake(self) -> None:
        """Wake the readers that wait for more, each once."""
        waiting, self.waiting = self.waiting, []
        for cursor in waiting:
            cursor.at_head = False
            cursor.wake()

    def let_go(self) -> None:
        """Drop the records. Readers notice it in their next `take`."""
        self.gone = True
        self.records = Records()
        self.wake()

    def entered(self, cursor: ReadCursor) -> None:
        """A reader attached."""
        self.cursors.append(cursor)

    def left(self, cursor: ReadCursor) -> None:
        """A reader left."""
        self.cursors.remove(cursor)
        if cursor in self.waiting:
            self.waiting.remove(cursor)


class ReadCursor:
    """One reader's position in one stream: the `Cursor` of every store."""

    __slots__ = ("_of", "after", "at_head", "wake")

    def __init__(self, of: Readable, after: int, wake: Callable[[], None]) -> None:
        self._of = of
        self.after = after
        self.at_head = False
        self.wake = wake
        of.entered(self)

    def take(self, limit: int) -> Chunk | None:
        """The next records, merged up to `limit` bytes; None if there are none yet. Raises
        `StreamExpired`, or the stream's `trouble`."""
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
