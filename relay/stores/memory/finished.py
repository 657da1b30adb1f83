"""The finished streams that a memory log keeps, and the order in which they go."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush

from relay.stores.memory.stream import MemoryStream


class Finished:
    """Finished streams in the order of their ends.

    When room is short, those that somebody still reads go last. A reader may come to a stream
    without telling; call `left` when a stream's last one leaves.
    """

    def __init__(self) -> None:
        self._ended: OrderedDict[MemoryStream, tuple[float, int]] = OrderedDict()
        self._count = 0
        self._unread: list[tuple[int, MemoryStream]] = []  # a heap; also of some that are read
        self._read: set[MemoryStream] = set()  # those that were found to be, and left the heap

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, stream: MemoryStream, now: float) -> None:
        """It has ended, at `now`."""
        self._count += 1
        self._ended[stream] = now, self._count
        heappush(self._unread, (self._count, stream))

    def remove(self, stream: MemoryStream) -> bool:
        """It is kept no longer; False where it was not."""
        if self._ended.pop(stream, None) is None:
            return False
        self._read.discard(stream)
        while self._unread and self._unread[0][1] not in self._ended:
            heappop(self._unread)
        return True

    def left(self, stream: MemoryStream) -> None:
        """Its last reader left: it has its old place again."""
        if stream in self._read:
            self._read.remove(stream)
            heappush(self._unread, (self._ended[stream][1], stream))

    def ended_at(self, stream: MemoryStream) -> float:
        """When it ended."""
        return self._ended[stream][0]

    def oldest(self) -> MemoryStream | None:
        """The one that ended first."""
        return next(iter(self._ended), None)

    def next_to_go(self) -> MemoryStream | None:
        """The oldest that nobody reads; the oldest where somebody reads each of them."""
        while self._unread:
            stream = self._unread[0][1]
            if stream in self._ended and not stream.cursors:
                return stream
            heappop(self._unread)
            if stream in self._ended:
                self._read.add(stream)
        return self.oldest()
