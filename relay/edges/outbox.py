"""What goes out on one WebSocket: one writer, one write a loop tick.

A stream's cursor wakes its reader, a woken reader is marked, and a connection with marked
readers flushes once in the next turn of the loop: everything that has come for it
meanwhile leaves in a single write to the transport. Nothing is taken from a cursor while
the transport is full, so text that a client does not read stays in the log, where it is
kept once anyway, and a client that comes to itself gets it in merged frames.

Data frames are built here and not by aiohttp, whose senders are coroutines. aiohttp writes
its own control frames (ping, pong, close) to the same transport, whole and at once, so the
two never cut into each other.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from relay.errors import RelayError
from relay.events import TERMINAL
from relay.protocol.codec import encode, encode_chunk, encode_id, error_frame
from relay.records import MAX_FRAME_TEXT
from relay.streamlog import Cursor

HIGH_WATER = 64 * 1024
"""Bytes the transport holds before its connection counts as full."""

LOW_WATER = 16 * 1024
"""Bytes down to which a full one has to drain before more is taken."""

MAX_WRITE = 64 * 1024
"""Bytes after which one flush lets other connections have their turn."""

MAX_UNSENT = 128 * 1024
"""Bytes that the kernel may hold unsent (`TCP_NOTSENT_LOWAT`): what lies there can't be
merged any more, and a ping has to wait behind it."""

MAX_REPLIES = 64 * 1024
"""Bytes of replies waiting behind a full transport, after which a client that asks but
does not read is no longer listened to."""

_TEXT = 0x81
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack
_SHORT_HEADS = [bytes((_TEXT, length)) for length in range(126)]


def text_frame_head(length: int) -> bytes:
    """The head of an unmasked, whole text frame (RFC 6455 §5.2)."""
    if length < 126:
        return _SHORT_HEADS[length]
    if length < 65_536:
        return _MEDIUM(_TEXT, 126, length)
    return _LONG(_TEXT, 127, length)


class Flow(Protocol):
    """The connection's protocol, as aiohttp has it."""

    @property
    def writing_paused(self) -> bool:
        """Whether the transport holds more than `HIGH_WATER`."""
        ...


class Reader:
    """One stream that the connection reads. Its `wake` goes to `StreamLog.attach`."""

    __slots__ = ("_mark", "cursor", "id", "id_json", "marked")

    def __init__(self, id: str, mark: Callable[[Reader], None]) -> None:
        self.id = id
        self.id_json = encode_id(id)
        self.cursor: Cursor | None = None
        self.marked = False
        self._mark = mark

    def wake(self) -> None:
        """There is more to take."""
        if not self.marked:
            self.marked = True
            self._mark(self)

    def close(self) -> None:
        """Stop reading."""
        if self.cursor is not None:
            self.cursor.close()
            self.cursor = None


class Outbox:
    """The one writer of a connection's data frames.

    `drain` waits until the transport is no longer full (aiohttp's `drain`); `flow` tells
    whether it is. `ended` is called with the id of a reader that has had its last record.
    A client that accepts nothing for `write_timeout` seconds is cut.
    """

    __slots__ = (
        "_closed",
        "_drain",
        "_ended",
        "_flow",
        "_loop",
        "_marked",
        "_readers",
        "_replies",
        "_reply_bytes",
        "_scheduled",
        "_stall",
        "_stall_timer",
        "_transport",
        "_write_timeout",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        drain: Callable[[], Coroutine[Any, Any, None]],
        flow: Flow,
        ended: Callable[[str], None],
        write_timeout: float,
    ) -> None:
        self._transport = transport
        self._drain = drain
        self._flow = flow
        self._ended = ended
        self._write_timeout = write_timeout
        self._loop = asyncio.get_running_loop()
        self._readers: dict[str, Reader] = {}
        self._marked: list[Reader] = []
        self._replies: list[bytes] = []
        self._reply_bytes = 0
        self._scheduled = False
        self._closed = False
        self._stall: asyncio.Task[None] | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        _bound_buffers(transport)

    @property
    def stalled(self) -> bool:
        """Whether the client has to read before more is sent."""
        return self._stall is not None

    # Filling

    def send(self, payload: bytes) -> None:
        """Send a frame that is no record, ahead of every record not yet taken."""
        if self._closed:
            return
        self._replies += (text_frame_head(len(payload)), payload)
        self._reply_bytes += len(payload)
        self._schedule()

    def reader(self, id: str) -> Reader:
        """A reader to attach a cursor for; give both to `read` then."""
        return Reader(id, self._mark)

    def read(self, reader: Reader, cursor: Cursor) -> None:
        """Deliver what `cursor` yields, in place of what was read under the same id."""
        if self._closed:
            cursor.close()
            return
        self._drop(reader.id)
        reader.cursor = cursor
        self._readers[reader.id] = reader
        reader.wake()

    async def room(self) -> None:
        """Wait until replies have room again."""
        while self._stall is not None and self._reply_bytes > MAX_REPLIES:
            await asyncio.wait({self._stall})

    def finish(self) -> None:
        """Write the replies that wait, and nothing after them."""
        if not self._closed and not self._transport.is_closing():
            self._transport.write(b"".join(self._take_replies()))
        self.close()

    def close(self) -> None:
        """Let go of every cursor and write no more. Idempotent."""
        self._closed = True
        for id in list(self._readers):
            self._drop(id)
        self._marked.clear()
        self._take_replies()
        self._end_stall_timer()

    def _drop(self, id: str) -> None:
        if reader := self._readers.pop(id, None):
            reader.close()

    # Emptying

    def _mark(self, reader: Reader) -> None:
        self._marked.append(reader)
        if not self._scheduled and self._stall is None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _schedule(self) -> None:
        if not self._scheduled and self._stall is None and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._closed or self._stall is not None or self._transport.is_closing():
            return
        parts = self._take_replies() if self._replies else []
        self._take_records(parts)
        if not parts:
            return
        # Joined rather than writelines: some releases of Python 3.12 and 3.13 forget to
        # tell the protocol that the buffer is full there (CVE-2024-12254).
        self._transport.write(b"".join(parts))
        if self._flow.writing_paused:
            self._begin_stall()
        elif self._marked or self._replies:
            self._schedule()

    def _take_replies(self) -> list[bytes]:
        replies, self._replies = self._replies, []
        self._reply_bytes = 0
        return replies

    def _take_records(self, parts: list[bytes]) -> None:
        """Take a chunk from each marked reader in turn, for as long as the write is not
        too large. A reader at its head is unmarked: its cursor wakes it again."""
        room, marked = MAX_WRITE, self._marked
        while marked and room > 0:
            reader = marked.pop(0)
            if payload := self._next_frame(reader):
                size = len(payload)
                parts.append(_SHORT_HEADS[size] if size < 126 else text_frame_head(size))
                parts.append(payload)
                room -= size
            if reader.cursor is None or reader.cursor.at_head:
                reader.marked = False
            else:
                marked.append(reader)

    def _next_frame(self, reader: Reader) -> bytes:
        """What a reader's client is sent next; empty where there is nothing."""
        if reader.cursor is None:
            return b""
        try:
            chunk = reader.cursor.take(MAX_FRAME_TEXT)
        except RelayError as error:
            self._end(reader)
            return encode(error_frame(error, reader.id))
        if chunk is None:
            return b""
        if chunk.kind in TERMINAL:
            self._end(reader)
        return encode_chunk(reader.id_json, chunk)

    def _end(self, reader: Reader) -> None:
        self._drop(reader.id)
        self._ended(reader.id)

    # Waiting for the client to read: one task a stall, none a frame

    def _begin_stall(self) -> None:
        self._stall = self._loop.create_task(self._drain())
        self._stall.add_done_callback(self._end_stall)
        self._watch(self._transport.get_write_buffer_size())

    def _watch(self, left: int) -> None:
        self._stall_timer = self._loop.call_later(self._write_timeout, self._check, left)

    def _check(self, left: int) -> None:
        """Slow is not dead: only a client that took nothing at all is cut."""
        still = self._transport.get_write_buffer_size()
        if still >= left:
            self._transport.abort()
        else:
            self._watch(still)

    def _end_stall(self, stall: asyncio.Task[None]) -> None:
        self._stall = None
        self._end_stall_timer()
        if not stall.cancelled() and stall.exception() is None:
            self._schedule()

    def _end_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


def _bound_buffers(transport: asyncio.Transport) -> None:
    transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, option, MAX_UNSENT)
