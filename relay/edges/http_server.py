"""aiohttp's server with the relay's error format, and with the rules of RFC 6455 that it lacks.

Input that is not a valid request, or that aiohttp refuses before any middleware sees it, is
answered with JSON like every other error. The answer never contains a byte of the input, which
could be a token.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, cast

from aiohttp import web
from aiohttp.http import WebSocketReader
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from relay.access.guard import SECURITY_HEADERS, SERVER
from relay.core.errors import Code, RelayError
from relay.edges.delivery.link import LinkListener
from relay.edges.http import HttpError, error_response, from_http_exception, shape_for
from relay.edges.rfc6455 import REFUSED_FRAME, FrameGate

MAX_URL = 8_192
"""Bytes of a request's path and query."""

MAX_HEADER = 8_190
"""Bytes of a header's name, and of its value. It differs from `MAX_URL` because aiohttp's error
states only the limit, by which the two cases are told apart."""


_Handling: TypeAlias = Coroutine[Any, Any, tuple[web.StreamResponse, bool]]


class HttpRunner(web.AppRunner):
    """Runs an application as `web.AppRunner` does, on connections that are `HttpConnection`s.

    `options` are those of `web.AppRunner`.
    """

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(
            app, access_log=None, max_line_size=MAX_URL, max_field_size=MAX_HEADER, **options
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _HttpServer(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )


class _HttpServer(web.Server):
    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self.without_tasks = _WithoutTasks(self._loop)

    def __call__(self) -> web.RequestHandler:
        return HttpConnection(self, loop=self._loop, **self._kwargs)


class HttpConnection(web.RequestHandler):
    """One connection, from its first byte; after an upgrade it carries a WebSocket. `listener` is
    notified of its events, see `relay.edges.delivery.link`."""

    __slots__ = ("_body", "listener")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._body: StreamReader = EMPTY_PAYLOAD
        self.listener: LinkListener | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a connection."""
        super().connection_made(transport)
        if sys.version_info < (3, 12) and isinstance(self._manager, _HttpServer):
            self._loop = cast(asyncio.AbstractEventLoop, self._manager.without_tasks)

    # Events for the listener

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        super().resume_writing()
        if self.listener is not None:
            self.listener.on_writable()

    def eof_received(self) -> None:
        """The client closed its sending side. aiohttp lets the transport close then."""
        super().eof_received()
        if self.listener is not None:
            self.listener.on_lost()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client disconnected."""
        super().connection_lost(exc)
        if self.listener is not None:
            self.listener.on_lost()

    # Received bytes

    def data_received(self, data: bytes) -> None:
        """Take received bytes. If aiohttp's parser fails in a body, it drops the body, and the
        handler would wait for the rest."""
        queued = len(self._messages)
        super().data_received(data)
        if len(self._messages) > queued:
            self._fail_broken_body()

    def _fail_broken_body(self) -> None:
        """If the previous request's body is incomplete, the message behind it can only be a parser
        failure. Drop that message and fail the body: the request's own handler then answers."""
        body, self._body = self._body, self._messages[-1][1]
        if not body.is_eof():
            self._messages.pop()
            body.set_exception(web.RequestPayloadError())
            body.feed_eof()
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response if no request could be read, or if no middleware could handle the error."""
        super().handle_error(request, status, exc, message)  # logs; raises in mid-response
        response = error_response(_unreadable(exc) if status == 400 else _FAILED)
        response.headers.update(SECURITY_HEADERS | {"Server": SERVER})
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; errors of aiohttp's own are converted to the relay's format."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            assert isinstance(request, web.Request)  # an application's requests are
            resp = from_http_exception(resp, shape_for(request))
        return await super().finish_response(request, resp, start_time)

    def set_parser(
        self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None
    ) -> None:
        """Switch from HTTP to WebSocket frames."""
        super().set_parser(_GatedReader(parser), data_received_cb)  # type: ignore[arg-type]


class _WithoutTasks:
    """The event loop as `RequestHandler.start` uses it to make a task of each request. In Python
    3.11 that costs a turn of the loop before the first token, and half a kilobyte for a running
    stream; from 3.12 on aiohttp starts the task at once. Here the request is handled in its
    connection's task."""

    __slots__ = ("call_at", "create_future", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.call_at = loop.call_at
        self.create_future = loop.create_future
        self.time = loop.time

    def create_task(self, handling: _Handling) -> _Handling:
        """Returns what `start` awaits in place of a task."""
        return handling


_FAILED = RelayError(Code.INTERNAL, "internal error")


def _unreadable(error: BaseException | None) -> RelayError:
    if not isinstance(error, LineTooLong):
        message = "this is not valid HTTP: the first line, a header or a length is wrong"
        return HttpError(400, Code.BAD_REQUEST, message)
    if error.args[1] == MAX_URL:
        return HttpError(414, Code.TOO_LARGE, f"the URL is longer than {MAX_URL} bytes")
    return HttpError(431, Code.TOO_LARGE, f"a header is longer than {MAX_HEADER} bytes")


class _GatedReader:
    """aiohttp's frame reader behind a `FrameGate`. For a frame that breaks a rule the reader gets
    a frame that it refuses itself. So the error comes in order, after earlier frames, which may
    not have been read yet."""

    __slots__ = ("_gate", "_reader")

    def __init__(self, reader: WebSocketReader) -> None:
        self._gate = FrameGate()
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take received bytes; the first value is True when no more is wanted."""
        if self._gate.broken:
            return True, b""
        admitted = self._gate.admit(bytes(data))
        if self._gate.broken:
            admitted += REFUSED_FRAME
        return self._reader.feed_data(admitted) if admitted else (False, b"")

    def feed_eof(self) -> None:
        """The client disconnected."""
        self._reader.feed_eof()
