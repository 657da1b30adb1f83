"""The finished streams that a memory log keeps, and the order in which they are dropped."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush

from relay.stores.memory.stream import MemoryStream


class Finished:
    """Finished streams, ordered by the time they ended.

    When memory is short, streams that have readers are dropped last. A reader may attach without a
    call to this class; call `left` when a stream's last reader leaves.
    """

    def __init__(self) -> None:
        self._ended: OrderedDict[MemoryStream, tuple[float, int]] = OrderedDict()
        self._count = 0
        self._unread: list[tuple[int, MemoryStream]] = []  # a heap; may hold some that have readers
        self._read: set[MemoryStream] = set()  # found to have readers, and taken off the heap

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, stream: MemoryStream, now: float) -> None:
        """Add a stream that ended at `now`."""
        self._count += 1
        self._ended[stream] = now, self._count
        heappush(self._unread, (self._count, stream))

    def remove(self, stream: MemoryStream) -> bool:
        """Remove a stream; False if it was not here."""
        if self._ended.pop(stream, None) is None:
            return False
        self._read.discard(stream)
        while self._unread and self._unread[0][1] not in self._ended:
            heappop(self._unread)
        return True

    def left(self, stream: MemoryStream) -> None:
        """The stream's last reader left: put it back in its place by time."""
        if stream in self._read:
            self._read.remove(stream)
            heappush(self._unread, (self._ended[stream][1], stream))

    def ended_at(self, stream: MemoryStream) -> float:
        """When the stream ended."""
        return self._ended[stream][0]

    def oldest(self) -> MemoryStream | None:
        """The stream that ended first."""
        return next(iter(self._ended), None)

    def next_to_go(self) -> MemoryStream | None:
        """The oldest stream without readers; if all have readers, the oldest."""
        while self._unread:
            stream = self._unread[0][1]
            if stream in self._ended and not stream.cursors:
                return stream
            heappop(self._unread)
            if stream in self._ended:
                self._read.add(stream)
        return self.oldest()
