"""A pooled HTTP/1.1 client for streaming POSTs, with little work between socket and caller.

Body bytes go from `data_received` straight to the caller's callback: each read of the socket is
one call, without a task, queue, timer or future. A general client wakes a task for each read and
copies each chunk through its own buffers, which costs more than everything else that the relay
does with a token.

Nothing is ever sent twice. The server may have processed a POST although its answer was lost (RFC
9110 section 9.2.2), so retries are left to the failover policy, which counts its attempts. Before
it writes, this client only checks whether the peer has closed an idle connection, and if so uses
another.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from typing import Any

from relay.providers.http.exchange import BodyReader, Response, UpstreamConnection
from relay.providers.http.http1 import ConnectTimeout, Endpoint, Interrupted, Origin, Unreachable

CONNECT_TIMEOUT = 5.0
"""Seconds that name lookup, TCP and TLS together may take. There is no other timeout here: the
timers of the failover policy cancel the call."""

IDLE_LIMIT = 60.0
"""Seconds that an unused connection is kept. A server's `Keep-Alive: timeout` shortens it."""

MAX_IDLE = 512
"""Unused connections kept for one origin. The number in use has no limit: it is that of the
running streams."""


class Client:
    """A pool of connections to upstreams.

    `uds` is the path of a Unix socket that every request goes to, whatever its URL's host. `tls`
    is used for https; by default the SDKs' own trust settings. One client belongs to one event
    loop.
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
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._busy: set[UpstreamConnection] = set()
        self._opening: dict[asyncio.Task[None], Response] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        # Bound once here and not for every connection.
        self._callbacks = (self._done, self._lost)

    def post(self, endpoint: Endpoint, body: bytes, reader: BodyReader) -> Response:
        """Send `body`: at once if there is an idle connection, else as soon as one is opened.
        `reader` is never called from within this call.

        `reader` may get the errors `Unreachable`, `Interrupted`, `Malformed`, `Unsupported` (for a
        response that has to be requested by other means), and its own.
        """
        response = Response(reader)
        connection = self._checkout(endpoint.origin)
        if connection is not None:
            self._send(connection, endpoint, body, response)
        else:
            opening = self._open_for(endpoint, body, response)
            task = asyncio.get_running_loop().create_task(opening)
            response.waits_for(task)
            self._opening[task] = response
            task.add_done_callback(self._opening.pop)
        return response

    async def warm(self, origin: Origin, count: int = 1) -> None:
        """Open connections until there are `count` unused ones. Raises `Unreachable`."""
        missing = min(count, self._max_idle) - self.idle(origin)
        opening = (self._open_unused(origin) for _ in range(missing))
        for error in await asyncio.gather(*opening, return_exceptions=True):
            if error is not None:
                raise error

    def idle(self, origin: Origin) -> int:
        """How many unused connections to `origin` there are."""
        return len(self._idle.get(origin, ()))

    async def close(self) -> None:
        """Close every connection; running responses end in `Interrupted`. Idempotent."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in [c for idle in self._idle.values() for c in idle] + list(self._busy):
            connection.shut()
        opening = dict(self._opening)
        for task, response in opening.items():
            task.cancel()
            response.fail(Interrupted("the connection attempt was cancelled"))
        await asyncio.gather(asyncio.sleep(0), *opening, return_exceptions=True)

    def _done(self, connection: UpstreamConnection, reusable: bool) -> None:
        self._busy.discard(connection)
        if reusable:
            self._checkin(connection)
        else:
            connection.abort()

    def _lost(self, connection: UpstreamConnection) -> None:
        self._busy.discard(connection)
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)

    def _checkout(self, origin: Origin) -> UpstreamConnection | None:
        # The peer is least likely to have closed the one used last.
        idle = self._idle.get(origin)
        now = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if now < connection.expires and connection.silent():
                return connection
            connection.abort()
        return None

    def _checkin(self, connection: UpstreamConnection) -> None:
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
        """Close connections that were unused for too long. One timer for all of them, which runs
        only while there are any."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        expired = [c for idle in self._idle.values() for c in idle if c.expires <= now]
        for connection in expired:
            self._lost(connection)
            connection.abort()
        self._sweeper = None
        if any(self._idle.values()):
            self._sweeper = loop.call_later(self._idle_limit, self._sweep)

    def _send(
        self, connection: UpstreamConnection, endpoint: Endpoint, body: bytes, response: Response
    ) -> None:
        self._busy.add(connection)
        connection.send(endpoint.request(body), response)

    async def _open_for(self, endpoint: Endpoint, body: bytes, response: Response) -> None:
        try:
            connection = await self._connect(endpoint.origin)
        except Unreachable as error:
            response.fail(error)
        else:
            self._send(connection, endpoint, body, response)

    async def _open_unused(self, origin: Origin) -> None:
        # Put it into the pool at once: the task that waits for it may be cancelled at this very
        # moment, and then nothing would close it.
        self._checkin(await self._connect(origin))

    async def _connect(self, origin: Origin) -> UpstreamConnection:
        tls = (self._tls or _sdk_trust()) if origin.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._open(origin, tls)
        except TimeoutError:
            where = f"{origin.host}:{origin.port} within {self._connect_timeout:g} s"
            raise ConnectTimeout(f"no connection to {where}") from None
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or type(error).__name__
            where = f"{origin.host}:{origin.port}"
            raise Unreachable(f"cannot connect to {where}: {reason}") from None

    async def _open(self, origin: Origin, tls: ssl.SSLContext | None) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        name = origin.host if tls else None
        connection = UpstreamConnection(origin, *self._callbacks)
        try:
            if self._uds is not None:
                await loop.create_unix_connection(
                    lambda: connection, self._uds, ssl=tls, server_hostname=name
                )
            else:
                await loop.create_connection(
                    lambda: connection, origin.host, origin.port, ssl=tls, server_hostname=name
                )
        except asyncio.CancelledError:
            connection.abort()  # it may have been opened at that very moment
            raise
        return connection


@cache
def _sdk_trust() -> ssl.SSLContext:
    """The certificates that the SDKs trust, so that the whole process trusts the same ones."""
    import httpx2

    make: Any = httpx2.create_ssl_context
    context: ssl.SSLContext = make()
    context.set_alpn_protocols(["http/1.1"])
    return context
