"""A stream as the body of an HTTP response, or read whole for an answer in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import HttpVersion11, web
from aiohttp.http import StreamWriter

from relay.answering.dispatcher import Dispatcher
from relay.answering.timerwheel import TimerWheel
from relay.core.records import MAX_FRAME_TEXT, Chunk
from relay.core.streamlog import Cursor, StreamLog
from relay.edges.delivery.framing import CHUNKS, UNFRAMED
from relay.edges.delivery.link import link_of
from relay.edges.delivery.outlet import Encoder, Heartbeat, Outlet, Pace

COMMENTS = Heartbeat(b":\n\n", in_silence=True)
"""A comment of an event stream, which readers ignore."""

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
"""Headers of every event stream: neither caches nor nginx may hold it back."""

Attach: TypeAlias = Callable[[Callable[[], None]], Awaitable[Cursor]]
"""Attaches a cursor, which calls the given wake-up, to a stream."""


@dataclass(frozen=True, slots=True)
class HttpService:
    """What an HTTP dialect needs. `wheel` keeps the deadlines of its connections; `max_body` is in
    bytes (`MAX_FRAME_BYTES`)."""

    dispatcher: Dispatcher
    log: StreamLog
    pace: Pace
    wheel: TimerWheel
    max_body: int


class HttpBody:
    """Delivers one stream to one HTTP client. Create it and await `deliver`; the handler returns
    its result."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        encoder: Encoder,
        service: HttpService,
    ) -> None:
        self._request = request
        self._response = response
        self._encoder = encoder
        self._service = service
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.whole = False
        """Whether the body was written to its end."""

    async def deliver(self, attach: Attach) -> web.StreamResponse:
        """Send the headers once the cursor is attached, then records until the terminal one; ends
        early if the client disconnects.

        Raises what `attach` raises, and `ConnectionError` if the client disconnected before that.
        """
        outlet = self._outlet()
        try:
            reader = outlet.new_reader("", self._encoder)
            with closing(await attach(reader.wake)) as cursor:
                await self._send_headers()
                outlet.deliver(reader, cursor)
                outlet.keep_alive()
                outlet.flush()
                await self._over
            if self.whole:
                await self._response.write_eof()
        finally:
            outlet.close()
        return self._response

    def _outlet(self) -> Outlet:
        request, service = self._request, self._service
        if request.transport is None:
            raise ConnectionResetError("the client is gone")
        return Outlet(
            request.transport,
            link_of(request),
            framing=CHUNKS if request.version >= HttpVersion11 else UNFRAMED,
            heartbeat=COMMENTS,
            pace=service.pace,
            wheel=service.wheel,
            ended=self._ended,
            lost=self._stop,
        )

    async def _send_headers(self) -> None:
        writer = await self._response.prepare(self._request)
        if isinstance(writer, StreamWriter):
            writer.chunked = False  # the outlet writes chunks, the last one included

    def _ended(self, id: str) -> None:
        self.whole = True
        self._stop()

    def _stop(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


class _Waiting:
    """Wakes a request that waits for a whole stream, on new records or if its client
    disconnects."""

    def __init__(self) -> None:
        self.awake = asyncio.Event()
        self.lost = False

    def on_writable(self) -> None:
        """Does nothing: nothing is written yet."""

    def on_lost(self) -> None:
        """The client disconnected."""
        self.lost = True
        self.awake.set()


async def read_whole(request: web.Request, attach: Attach, fold: Callable[[Chunk], None]) -> bool:
    """Pass a stream to `fold`, for an answer that is sent in one piece at its end.

    True once the terminal chunk was folded, False if the client disconnected before. Raises
    `RelayError` if the records are gone.
    """
    link, waiting = link_of(request), _Waiting()
    cursor = await attach(waiting.awake.set)
    link.listener = waiting
    try:
        while not waiting.lost and request.transport is not None:
            waiting.awake.clear()
            while chunk := cursor.take(MAX_FRAME_TEXT):
                fold(chunk)
                if chunk.terminal:
                    return True
            await waiting.awake.wait()
        return False
    finally:
        cursor.close()
        link.listener = None
