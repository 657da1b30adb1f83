"""One stream's records as an HTTP body, for every dialect that streams over HTTP.

A reader is a cursor. Its wake-up marks the response, and a marked response flushes once
a loop tick: it takes what lies behind the cursor, encodes it and writes it to the
transport in one piece. There is no task, timer or lock per token; while the transport is
full nothing is taken, so that a slow reader is only lag.

aiohttp tells a handler nothing when its client goes away (`handler_cancellation` is off),
and offers back-pressure only by awaiting. `Tap` therefore sits between transport and
protocol while an answer is under way: it passes everything on and tells the response of
what it has to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import HttpVersion11, web

from relay import defaults
from relay.dispatcher import Dispatcher
from relay.errors import RelayError
from relay.events import TERMINAL
from relay.records import MAX_FRAME_TEXT, Chunk
from relay.streamlog import Cursor, StreamLog

MAX_WRITE = 64 * 1024
"""Bytes that one flush takes at most, beside the envelopes: a long catch-up leaves the
loop to others in between."""


COMMENT = b":\n\n"
"""A comment of an event stream, which readers skip."""


STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
"""What every event stream is sent with: neither a cache nor nginx may hold it back."""


class Encoder(Protocol):
    """A dialect: a fold over a stream's chunks, from the one where its cursor began."""

    def encode(self, chunk: Chunk) -> bytes:
        """What the chunk becomes on the wire, its end included where it is terminal.
        Empty where the dialect has no word for it."""
        ...

    def fault(self, error: RelayError) -> bytes:
        """What ends a body whose records could not be read to their end."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. `heartbeat`: a silent body gets a comment so often. `write_timeout`: a
    reader that accepts nothing for so long is cut."""

    heartbeat: float = defaults.HEARTBEAT
    write_timeout: float = defaults.WRITE_TIMEOUT


@dataclass(frozen=True, slots=True)
class Service:
    """What an HTTP dialect stands on. `max_body` is in bytes (`MAX_FRAME_BYTES`)."""

    dispatcher: Dispatcher
    log: StreamLog
    pace: Pace
    max_body: int


class Tap(asyncio.Protocol):
    """Listens to one connection on its way to aiohttp's own protocol.

    `on_lost` is called once, when the client is gone or has said that it will read no
    more; `on_writable` when the transport's buffer has drained. Call `remove` when the
    response is over.
    """

    def __init__(
        self,
        request: web.Request,
        on_lost: Callable[[], None],
        on_writable: Callable[[], None] = lambda: None,
    ) -> None:
        self._inner = request.protocol
        self.transport = request.transport
        self._on_lost = on_lost
        self._on_writable = on_writable
        self.lost = False
        self.full = self._inner.writing_paused
        if self.transport is None or self.transport.is_closing():
            self._lose()
        else:
            self.transport.set_protocol(self)

    def remove(self) -> None:
        """Give the connection back to aiohttp for its next request. Idempotent."""
        if self.transport is not None and self.transport.get_protocol() is self:
            self.transport.set_protocol(self._inner)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._inner.data_received(data)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. aiohttp lets the transport close then."""
        self._inner.eof_received()
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._inner.connection_lost(exc)
        self._lose()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.full = True
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.full = False
        self._inner.resume_writing()
        self._on_writable()


async def read_whole(
    request: web.Request,
    attach: Callable[[Callable[[], None]], Awaitable[Cursor]],
    fold: Callable[[Chunk], None],
) -> bool:
    """Feed a stream to `fold`, for an answer that is sent in one piece at its end.

    `attach` makes the cursor for a wake-up. True when the terminal chunk was folded, False
    where the client went away before. Raises `RelayError` where the records are gone.
    """
    awake = asyncio.Event()
    cursor = await attach(awake.set)
    tap = Tap(request, awake.set)
    try:
        while not tap.lost:
            awake.clear()
            while chunk := cursor.take(MAX_FRAME_TEXT):
                fold(chunk)
                if chunk.terminal:
                    return True
            await awake.wait()
        return False
    finally:
        cursor.close()
        tap.remove()


class HttpStream:
    """Delivers one stream to one HTTP client.

    Make it, hand `wake` to `StreamLog.attach`, and await `deliver` with the cursor; its
    result is what the handler returns. `heartbeat` is what the dialect's readers ignore.
    """

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        encoder: Encoder,
        pace: Pace,
        heartbeat: bytes = COMMENT,
    ) -> None:
        self._request = request
        self._response = response
        self._encoder = encoder
        self._pace = pace
        self._heartbeat = heartbeat
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._wire: _Wire | None = None
        self._marked = self._whole = False

    def wake(self) -> None:
        """There is more behind the cursor: flush in the course of this tick."""
        if self._wire and not self._marked:
            self._marked = True
            self._loop.call_soon(self._flush)

    @property
    def whole(self) -> bool:
        """Whether the body was written to its end."""
        return self._whole

    async def deliver(self, cursor: Cursor) -> web.StreamResponse:
        """Send the headers at once, then records until the terminal one; ends early where
        the client goes away. Closes the cursor in any case.

        Raises `ConnectionError` where the client was gone before.
        """
        try:
            await self._response.prepare(self._request)
            self._cursor = cursor
            self._wire = _Wire(self._request, self._stop, self._on_writable)
            self._tick(self._wire)
            self._flush()
            await self._over
            cursor.close()
            if self._whole:
                await self._response.write_eof()
        finally:
            cursor.close()
            self._let_go()
        return self._response

    def _let_go(self) -> None:
        self._stop()
        if self._wire:
            self._timer.cancel()
            self._wire.remove()

    def _stop(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _on_writable(self) -> None:
        if not self._cursor.at_head:
            self.wake()

    def _flush(self) -> None:
        self._marked = False
        wire = self._wire
        if wire is None or wire.full or self._over.done():
            return
        try:
            data = self._take()
        except Exception as error:  # a callback's exception would leave the client hanging
            self._over.set_exception(error)
            return
        if data:
            wire.write(data)
        if self._whole:
            self._stop()
        elif not self._cursor.at_head and not wire.full:
            self.wake()

    def _take(self) -> bytes:
        """What follows, encoded, up to `MAX_WRITE`."""
        pieces: list[bytes] = []
        room = MAX_WRITE
        while room > 0 and not self._whole:
            try:
                chunk = self._cursor.take(min(room, MAX_FRAME_TEXT))
            except RelayError as error:
                pieces.append(self._encoder.fault(error))
                self._whole = True
                break
            if chunk is not None:
                pieces.append(self._encoder.encode(chunk))
                room -= len(chunk.body)
                self._whole = chunk.kind in TERMINAL
            if self._cursor.at_head:
                break
        return b"".join(pieces)

    def _tick(self, wire: _Wire) -> None:
        """The response's one timer: heartbeats where it is silent, an end where its reader
        accepts nothing."""
        if wire.stalled_for() >= self._pace.write_timeout:
            wire.abort()
        elif wire.silent_for() >= self._pace.heartbeat and not wire.full and not self._whole:
            wire.write(self._heartbeat)
        period = min(self._pace.heartbeat, self._pace.write_timeout) / 4
        self._timer = self._loop.call_later(period, self._tick, wire)


class _Wire(Tap):
    """A tapped connection that carries the body of one response."""

    def __init__(
        self,
        request: web.Request,
        on_lost: Callable[[], None],
        on_writable: Callable[[], None],
    ) -> None:
        self._clock = asyncio.get_running_loop().time
        self._chunked = request.version >= HttpVersion11
        self._written = self._accepted = 0
        self._spoke_at = self._accepted_at = self._clock()
        super().__init__(request, on_lost, on_writable)

    def write(self, data: bytes) -> None:
        """Send `data`, which is not empty, as one chunk of the body (RFC 9112 §7.1)."""
        if self.lost or self.transport is None:
            return
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        self._written += len(framed)
        self._spoke_at = self._clock()
        self.transport.write(framed)

    def abort(self) -> None:
        """Cut the connection without waiting for what is unsent."""
        if self.transport is not None:
            self.transport.abort()

    def silent_for(self) -> float:
        """Seconds since the last write."""
        return self._clock() - self._spoke_at

    def stalled_for(self) -> float:
        """Seconds for which bytes wait and none was accepted, as far as calls of this
        method could see."""
        unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        accepted = self._written - unsent
        if not unsent or accepted != self._accepted:
            self._accepted, self._accepted_at = accepted, self._clock()
        return self._clock() - self._accepted_at
