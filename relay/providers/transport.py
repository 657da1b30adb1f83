"""A pooled HTTP/1.1 client for streaming POSTs: the short way from an upstream's socket.

Body bytes go from `data_received` straight to the caller's callback: what one read of the
socket brought is one call, and no task, queue, timer or future stands between. A general
client wakes a task for each read and copies each chunk through its own buffers, which
costs more than everything that the relay itself does with a token.

Nothing is ever sent twice. A POST may have been carried out although its answer was lost
(RFC 9110 section 9.2.2), so whether to ask again is for the failover policy, which counts
its attempts. What this client does do is look, before it writes, whether the peer has
closed an idle connection, and then use another.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, cast

from relay.providers.http1 import (
    Endpoint,
    Interrupted,
    Origin,
    ResponseParser,
    Unreachable,
    Unsupported,
)

CONNECT_TIMEOUT = 10.0
"""Seconds that name lookup, TCP and TLS together may take."""

IDLE_LIMIT = 30.0
"""Seconds that an unused connection is kept. A server's `Keep-Alive: timeout` shortens it."""

MAX_IDLE = 512
"""Unused connections kept for one origin; there is no limit on those in use, which are as
many as streams are running."""

MAX_ERROR_BODY = 65_536
"""Bytes of an error response's body that are kept; what follows is not waited for."""

BodySink: TypeAlias = Callable[[bytes], None]
"""Takes the body bytes that one read brought. Synchronous; when it raises, the connection
is closed and the exception comes out of `Response.ended`."""


class Client:
    """Connections to upstreams, kept and used again.

    `uds` is the path of a Unix socket that every request goes to, whatever its URL's host.
    `tls` is used for https; by default the SDKs' own trust settings. One client belongs
    to one event loop.
    """

    def __init__(
        self,
        *,
        uds: str | None = None,
        tls: ssl.SSLContext | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle_limit: float = IDLE_LIMIT,
        max_idle: int = MAX_IDLE,
    ) -> None:
        self._uds = uds
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._idle_limit = idle_limit
        self._max_idle = max_idle
        self._idle: dict[Origin, list[_Connection]] = {}
        self._busy: set[_Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def post(self, endpoint: Endpoint, body: bytes, on_body: BodySink) -> Response:
        """Send `body` and return once the response's head is in.

        With a status below 400 body bytes go to `on_body`, the first ones perhaps before
        this returns; from 400 on they are collected in `Response.content`. Await
        `Response.ended` next. Cancelling closes the connection at once.

        Raises `Unreachable`, `Interrupted`, `Malformed`, or `Unsupported` for a response
        that has to be asked for by other means.
        """
        connection = self._checkout(endpoint.origin) or await self._connect(endpoint.origin)
        self._busy.add(connection)
        response = Response(connection, on_body)
        connection.send(endpoint.request(body), response)
        await response.begun()
        return response

    async def warm(self, origin: Origin, count: int = 1) -> None:
        """Open connections until `count` unused ones are there. Raises `Unreachable`."""
        missing = min(count, self._max_idle) - self.idle(origin)
        opening = (self._connect(origin) for _ in range(missing))
        opened = await asyncio.gather(*opening, return_exceptions=True)
        for connection in opened:
            if isinstance(connection, _Connection):
                self._checkin(connection)
        for error in opened:
            if isinstance(error, BaseException):
                raise error

    def idle(self, origin: Origin) -> int:
        """How many unused connections to `origin` there are."""
        return len(self._idle.get(origin, ()))

    async def close(self) -> None:
        """Close every connection; responses under way end in `Interrupted`. Idempotent."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in [c for idle in self._idle.values() for c in idle] + list(self._busy):
            connection.shut()
        await asyncio.sleep(0)

    def done(self, connection: _Connection, *, reusable: bool) -> None:
        """A connection's response is over. Called by the connection."""
        self._busy.discard(connection)
        if reusable:
            self._checkin(connection)
        else:
            connection.abort()

    def lost(self, connection: _Connection) -> None:
        """A connection is no more. Called by the connection."""
        self._busy.discard(connection)
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)

    def _checkout(self, origin: Origin) -> _Connection | None:
        # The one used last is the one least likely to have been closed by the peer.
        idle = self._idle.get(origin)
        now = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if now < connection.expires and connection.silent():
                return connection
            connection.abort()
        return None

    def _checkin(self, connection: _Connection) -> None:
        idle = self._idle.setdefault(connection.origin, [])
        if self._closed or connection.closing or len(idle) >= self._max_idle:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.expires = loop.time() + min(self._idle_limit, connection.keep_alive)
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._idle_limit, self._sweep)

    def _sweep(self) -> None:
        """Close what was unused for too long. One timer for all connections, and only
        while there are any."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        expired = [c for idle in self._idle.values() for c in idle if c.expires <= now]
        for connection in expired:
            self.lost(connection)
            connection.abort()
        self._sweeper = None
        if any(self._idle.values()):
            self._sweeper = loop.call_later(self._idle_limit, self._sweep)

    async def _connect(self, origin: Origin) -> _Connection:
        tls = (self._tls or _sdk_trust()) if origin.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._open(origin, tls)
        except TimeoutError:
            reason = f"no connection within {self._connect_timeout:g} s"
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or type(error).__name__
        raise Unreachable(f"cannot connect to {origin.host}:{origin.port}: {reason}")

    async def _open(self, origin: Origin, tls: ssl.SSLContext | None) -> _Connection:
        loop = asyncio.get_running_loop()
        name = origin.host if tls else None

        def made() -> _Connection:
            return _Connection(self, origin)

        if self._uds is not None:
            _, connection = await loop.create_unix_connection(
                made, self._uds, ssl=tls, server_hostname=name
            )
        else:
            _, connection = await loop.create_connection(
                made, origin.host, origin.port, ssl=tls, server_hostname=name
            )
        return connection


class Response:
    """One response under way: `status` and `headers` (lower-case names; repeated ones
    joined with commas), and the body where it is an error's."""

    __slots__ = ("_connection", "_content", "_error", "_on_body", "_over", "_parser", "_waiter")

    def __init__(self, connection: _Connection, on_body: BodySink) -> None:
        self._connection = connection
        self._on_body = on_body
        self._parser = ResponseParser()
        self._content = bytearray()
        self._over = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def status(self) -> int:
        """The status code."""
        return self._parser.status

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers, by lower-case name."""
        return self._parser.headers

    @property
    def content(self) -> bytes:
        """An error response's body, at most `MAX_ERROR_BODY` bytes; whole after `ended`."""
        return bytes(self._content)

    async def begun(self) -> None:
        """Wait for the head. Raises as `Client.post` does."""
        while not self._parser.status and not self._over:
            await self._wait()
        if self._error and (not self._parser.status or isinstance(self._error, Unsupported)):
            raise self._error

    async def ended(self) -> None:
        """Wait until the body is complete, by its framing; where it has none, until the
        connection was closed without an error.

        Raises `Interrupted` where it broke off, `Malformed`, or what the callback raised.
        Cancelling closes the connection at once.
        """
        while not self._over:
            await self._wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Want no more of it: closes the connection at once unless the response is over.
        Idempotent."""
        if not self._over:
            self._finish(Interrupted("the response was closed by its reader"))

    def received(self, data: bytes) -> None:
        """Take what one read brought. Called by the connection: the hot path."""
        parser = self._parser
        known = parser.status
        body = parser.feed(data)
        if body and parser.status:
            self._deliver(body)
        if parser.over:
            self._finish(parser.error)
        elif not known and parser.status:
            self._wake()

    def lost(self, error: Exception | None) -> None:
        """The connection is no more. Called by the connection."""
        if not self._over:
            self._parser.eof(clean=error is None)
            self._finish(self._parser.error)

    def _deliver(self, body: bytes) -> None:
        if self._over:
            return
        if self._parser.status >= 400:
            self._collect(body)
            return
        try:
            self._on_body(body)
        except Exception as error:
            self._finish(error)

    def _collect(self, body: bytes) -> None:
        self._content += body[: MAX_ERROR_BODY - len(self._content)]
        if len(self._content) == MAX_ERROR_BODY:
            self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        """Come to the end, once; whatever ends first is the end."""
        if self._over:
            return
        self._over = True
        self._error = error
        whole = error is None and self._parser.over and self._parser.reusable
        self._connection.done(reusable=whole, hint=self._parser.headers.get("keep-alive"))
        self._parser.release()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise


class _Connection(asyncio.Protocol):
    """One socket and the response it is carrying, if any."""

    def __init__(self, client: Client, origin: Origin) -> None:
        self.origin = origin
        self.expires = 0.0
        self.keep_alive = float("inf")
        self._client = client
        self._response: Response | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, request: bytes, response: Response) -> None:
        self._response = response
        if self._transport is None:
            response.lost(None)
        else:
            self._transport.write(request)

    def silent(self) -> bool:
        """Whether the peer has sent nothing, not even its end, that the event loop has
        not seen yet: a server closes idle connections whenever it likes."""
        if self._transport is None or self._transport.is_closing():
            return False
        return not _readable(self._transport.get_extra_info("socket").fileno())

    def done(self, *, reusable: bool, hint: str | None) -> None:
        """The response is over, whole or not."""
        self._response = None
        if hint is not None:
            self.keep_alive = _seconds(hint)
        unsent = self._transport is None or self._transport.get_write_buffer_size() > 0
        self._client.done(self, reusable=reusable and not unsent)

    def shut(self) -> None:
        """Close at once; a response under way has then been interrupted."""
        if self._response is not None:
            self._response.close()
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._response is not None:
            self._response.received(data)
        else:
            self.abort()  # nothing was asked, so this answers nothing

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        response, self._response = self._response, None
        if response is not None:
            response.lost(exc)
        self._client.lost(self)


def _readable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):
        return False  # Windows: a closed connection is then found out by using it
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _seconds(keep_alive: str) -> float:
    """How long to keep a connection whose server said `Keep-Alive: timeout=N`: a second
    less, so that the two sides do not meet."""
    for parameter in keep_alive.split(","):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "timeout" and value.isdecimal():
            return max(0.0, int(value) - 1.0)
    return float("inf")


@cache
def _sdk_trust() -> ssl.SSLContext:
    """The certificates that the SDKs trust: one answer to whom this process believes."""
    import httpx2

    make: Any = httpx2.create_ssl_context
    context: ssl.SSLContext = make()
    context.set_alpn_protocols(["http/1.1"])
    return context
