"""The engine that delivers records: one writer a connection, one write a loop tick.

A cursor wakes its reader, a woken reader is marked, and an outlet with marked readers flushes once
in the next turn of the loop: all records that came meanwhile leave in a single write to the
transport. There is no task, timer or lock per token. While the transport is full nothing is taken
from a cursor, so text that a client does not read stays in the log, where it is kept anyway, and a
slow client catches up in merged pieces.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from math import inf
from typing import Protocol

from relay.answering.timerwheel import NO_CHAT, TimerWheel
from relay.core.errors import RelayError
from relay.core.events import TERMINAL
from relay.core.records import MAX_FRAME_TEXT, Chunk
from relay.core.streamlog import Cursor
from relay.edges.delivery.framing import Framing
from relay.edges.delivery.link import Link

HIGH_WATER = 64 * 1024
"""Bytes in the transport's buffer from which on its connection counts as full."""

LOW_WATER = 16 * 1024
"""Bytes to which a full buffer has to drain before more is taken."""

MAX_WRITE = 64 * 1024
"""Bytes after which one flush stops, so that other connections get their turn."""

MAX_UNSENT = 128 * 1024
"""Bytes that the kernel may hold unsent (`TCP_NOTSENT_LOWAT`). They can't be merged any more, and
a ping has to wait behind them."""

MAX_REPLIES = 64 * 1024
"""Bytes of replies waiting behind a full transport. Beyond it nothing more is read from a client
that sends requests but does not read."""

LOOKS = 4
"""How often in an interval the outlet checks for silence and for accepted bytes, if a heartbeat is
sent only in silence."""

ROUNDING = 0.001
"""Seconds of error allowed in the difference of two times."""


class Encoder(Protocol):
    """A dialect: encodes a stream's chunks in order, from the one where its cursor began."""

    def encode(self, chunk: Chunk) -> bytes:
        """The chunk's message on the wire, with the stream's end if the chunk is terminal. Empty
        if the dialect has no message for it."""
        ...

    def fault(self, error: RelayError) -> bytes:
        """The message that ends a stream whose records could not be read to their end."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds. `heartbeat`: the pause between two heartbeats. `write_timeout`: a client
    that accepts nothing for so long is disconnected."""

    heartbeat: float
    write_timeout: float


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A dialect's message that shows the connection is alive, sent at every interval or only after
    an interval of silence."""

    message: bytes
    in_silence: bool


class StreamReader:
    """One stream that a connection reads. Pass its `wake` to `StreamLog.attach`."""

    __slots__ = ("_outlet", "cursor", "encoder", "id", "marked")

    def __init__(self, outlet: Outlet, id: str, encoder: Encoder) -> None:
        self.id = id
        self.encoder = encoder
        self.cursor: Cursor | None = None
        self.marked = False
        self._outlet = outlet

    def wake(self) -> None:
        """There are new records: mark this reader."""
        if not self.marked:
            self.marked = True
            self._outlet.mark(self)

    def close(self) -> None:
        """Stop reading."""
        if self.cursor is not None:
            self.cursor.close()
            self.cursor = None


class Outlet:
    """The only writer of a connection's messages, until `close`.

    `framing` turns messages into bytes; `link` reports when the transport is full, has room again
    or is lost. `ended` is called with the id of a reader that has its last record, just before
    that is written. `lost` is called at most once, when the client disconnected or will read no
    more. A client that accepts nothing for `pace.write_timeout` is disconnected. Heartbeats begin
    with `keep_alive`.
    """

    __slots__ = (
        "_accepted",
        "_accepted_at",
        "_closed",
        "_due",
        "_ended",
        "_framing",
        "_full",
        "_heartbeat",
        "_kept_alive",
        "_link",
        "_loop",
        "_lost",
        "_marked",
        "_pace",
        "_readers",
        "_replies",
        "_reply_bytes",
        "_room_waiter",
        "_scheduled",
        "_spoke_at",
        "_transport",
        "_wheel",
        "_written",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        link: Link,
        *,
        framing: Framing,
        heartbeat: Heartbeat,
        pace: Pace,
        wheel: TimerWheel,
        ended: Callable[[str], None],
        lost: Callable[[], None] | None = None,
    ) -> None:
        self._transport = transport
        self._link = link
        self._framing = framing
        self._heartbeat = heartbeat
        self._pace = pace
        self._wheel = wheel
        self._ended = ended
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._readers: dict[str, StreamReader] = {}
        self._marked: list[StreamReader] = []
        self._replies: list[bytes] = []
        self._reply_bytes = 0
        self._room_waiter: asyncio.Future[None] | None = None
        self._scheduled = False
        self._closed = False
        self._full = False
        self._kept_alive = False
        self._written = 0
        self._accepted = -transport.get_write_buffer_size()
        self._accepted_at = self._spoke_at = 0.0
        self._due = inf
        _bound_buffers(transport)
        link.listener = self
        if link.writing_paused:
            self._fill()

    @property
    def context(self) -> Context:
        """An empty context: a deadline here belongs to no chat."""
        return NO_CHAT

    @property
    def full(self) -> bool:
        """Whether the client has to read before more is sent."""
        return self._full

    # Filling

    def send(self, message: bytes) -> None:
        """Send a message that is no record, ahead of every record that was not taken yet."""
        if self._closed:
            return
        self._replies.append(message)
        self._reply_bytes += len(message)
        self._schedule()

    def new_reader(self, id: str, encoder: Encoder) -> StreamReader:
        """A reader to attach a cursor for; pass both to `deliver` then. `id` identifies it among
        the readers of this connection."""
        return StreamReader(self, id, encoder)

    def deliver(self, reader: StreamReader, cursor: Cursor) -> None:
        """Deliver what `cursor` yields. Replaces an earlier reader with the same id."""
        if self._closed:
            cursor.close()
            return
        self._drop(reader.id)
        reader.cursor = cursor
        self._readers[reader.id] = reader
        reader.wake()

    async def wait_for_room(self) -> None:
        """Wait until more replies may be queued."""
        while self._full and not self._closed and self._reply_bytes > MAX_REPLIES:
            self._room_waiter = self._loop.create_future()
            await self._room_waiter

    def finish(self) -> None:
        """Write the waiting replies, and nothing after them."""
        if self._replies and not self._closed and not self._transport.is_closing():
            self._transport.write(self._framing.frame(self._take_replies(), last=False))
        self.close()

    def close(self) -> None:
        """Close every cursor and write no more. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for id in list(self._readers):
            self._drop(id)
        self._marked.clear()
        self._take_replies()
        self._disarm()
        self._make_room()
        if self._link.listener is self:
            self._link.listener = None

    def _drop(self, id: str) -> None:
        if reader := self._readers.pop(id, None):
            reader.close()

    # Emptying

    def mark(self, reader: StreamReader) -> None:
        """`reader` has more to take: flush in the next turn of the loop."""
        self._marked.append(reader)
        self._schedule()

    def _schedule(self) -> None:
        if not (self._scheduled or self._full or self._closed):
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the replies and records that wait, as much as fits in one write."""
        self._scheduled = False
        if self._closed or self._full or self._transport.is_closing():
            return
        messages = self._take_replies() if self._replies else []
        try:
            self._take_records(messages)
        except Exception:  # a programming error: end the connection, so that the client notices
            self._transport.abort()
            raise
        if messages:
            self._write(messages, last=not self._readers)
        if not self._full and (self._marked or self._replies):
            self._schedule()

    def _write(self, messages: list[bytes], *, last: bool) -> None:
        # Joined rather than writelines: some releases of Python 3.12 and 3.13 forget to
        # tell the protocol that the buffer is full there (CVE-2024-12254).
        data = self._framing.frame(messages, last=last)
        self._written += len(data)
        if self._heartbeat.in_silence:
            self._spoke_at = self._wheel.clock()
        self._transport.write(data)
        if self._link.writing_paused:
            self._fill()

    def _take_replies(self) -> list[bytes]:
        replies, self._replies = self._replies, []
        self._reply_bytes = 0
        return replies

    def _take_records(self, messages: list[bytes]) -> None:
        """Take a chunk from each marked reader in turn, until the write is large enough. A reader
        without more records is unmarked: its cursor wakes it again."""
        room, marked = MAX_WRITE, self._marked
        while marked and room > 0:
            reader = marked.pop(0)
            if message := self._next_message(reader):
                messages.append(message)
                room -= len(message)
            if reader.cursor is None or reader.cursor.at_head:
                reader.marked = False
            else:
                marked.append(reader)

    def _next_message(self, reader: StreamReader) -> bytes:
        """The next message of a reader; empty if there is none."""
        if reader.cursor is None:
            return b""
        try:
            chunk = reader.cursor.take(MAX_FRAME_TEXT)
        except RelayError as error:
            self._end(reader)
            return reader.encoder.fault(error)
        if chunk is None:
            return b""
        if chunk.kind in TERMINAL:
            self._end(reader)
        return reader.encoder.encode(chunk)

    def _end(self, reader: StreamReader) -> None:
        self._drop(reader.id)
        self._ended(reader.id)

    # Events of the link

    def on_writable(self) -> None:
        """The transport's buffer has drained."""
        self._full = False
        self._make_room()
        if self._marked or self._replies:
            self._schedule()

    def on_lost(self) -> None:
        """The client disconnected, or will read no more."""
        self._full = False
        self._make_room()
        lost, self._lost = self._lost, None
        if lost is not None:
            lost()

    def _make_room(self) -> None:
        room, self._room_waiter = self._room_waiter, None
        if room is not None and not room.done():
            room.set_result(None)

    # Deadlines: one entry in the wheel for heartbeats and for clients that do not read

    def keep_alive(self) -> None:
        """Send heartbeats from here on, the first after an interval."""
        if not self._kept_alive and not self._closed:
            self._kept_alive = True
            self._spoke_at = self._accepted_at = self._wheel.clock()
            self._arm(self._spoke_at)

    def tick(self) -> None:
        """Disconnect a client that accepts nothing, and send a heartbeat if one is needed."""
        self._due = inf
        if self._closed or self._transport.is_closing():
            return
        now = self._wheel.clock()
        if self._stalled_for(now) >= self._pace.write_timeout - ROUNDING:
            self._transport.abort()
            return
        if self._kept_alive and not self._full and self._beats(now):
            self._spoke_at = now
            self._write([self._heartbeat.message], last=False)
        self._arm(now)

    def _beats(self, now: float) -> bool:
        return now - self._spoke_at >= self._pace.heartbeat - ROUNDING

    def _fill(self) -> None:
        """The transport is full: from this moment its client has to accept something in time."""
        now = self._wheel.clock()
        self._full = True
        self._accepted = self._written - self._transport.get_write_buffer_size()
        self._accepted_at = now
        self._arm(now)

    def _stalled_for(self, now: float) -> float:
        """Seconds for which bytes wait and none was accepted, as far as calls of this method could
        see. A slow client is not a dead one: any accepted byte counts."""
        unsent = self._transport.get_write_buffer_size()
        accepted = self._written - unsent
        if not unsent or accepted > self._accepted:
            self._accepted, self._accepted_at = accepted, now
        return now - self._accepted_at

    def _arm(self, now: float) -> None:
        """Schedule `tick` for the next moment at which something has to be checked."""
        due = now + self._pause() if self._kept_alive else inf
        if self._full:
            due = min(due, self._accepted_at + self._pace.write_timeout)
        if due < self._due:
            self._disarm()
            self._due = due
            self._wheel.join(self, due)

    def _pause(self) -> float:
        if not self._heartbeat.in_silence:
            return self._pace.heartbeat
        return min(self._pace.heartbeat, self._pace.write_timeout) / LOOKS

    def _disarm(self) -> None:
        if self._due < inf:
            self._wheel.leave(self, self._due)
            self._due = inf


def _bound_buffers(transport: asyncio.Transport) -> None:
    transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, option, MAX_UNSENT)
