"""One request and its response on one connection: the hot path of the streaming client.

A read of the socket is `Connection.data_received`, `Response.received`, the parser, the
reader's callback: plain calls, one after the other, with nothing to wake up in between.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import TypeAlias, cast

from relay.providers.http1 import Interrupted, Origin, ResponseParser, Unsupported

MAX_ERROR_BODY = 65_536
"""Bytes of an error response's body that are kept; what follows is not waited for."""

LINGER = 1.0
"""Seconds that the rest of a response may take once its reader has all it wants: framing
and end markers, for which an answer need not wait but after which its connection is good."""

_POLLS = hasattr(select, "poll")  # not on Windows

BodySink: TypeAlias = Callable[[bytes], bool]
"""Takes the body bytes that one read brought, and says whether it wants more. Synchronous.
When it raises, the connection is closed and the exception comes out of `Response.ended`."""

Done: TypeAlias = Callable[["Connection", bool], None]
Lost: TypeAlias = Callable[["Connection"], None]


class Response:
    """One response under way: `status` and `headers` (lower-case names; repeated ones
    joined with commas), and the body where it is an error's."""

    __slots__ = (
        "_connection",
        "_content",
        "_error",
        "_on_body",
        "_over",
        "_parser",
        "_timer",
        "_waiter",
    )

    def __init__(self, connection: Connection, on_body: BodySink) -> None:
        self._connection: Connection | None = connection
        self._timer: asyncio.TimerHandle | None = None
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
        try:
            while not self._parser.status and not self._over:
                await self._wait()
        except asyncio.CancelledError:
            self.close()
            raise
        if self._error and (not self._parser.status or isinstance(self._error, Unsupported)):
            raise self._error

    async def ended(self) -> None:
        """Wait until the callback wants no more or the body is complete, by its framing;
        where it has none, until the connection was closed without an error.

        Raises `Interrupted` where it broke off, `Malformed`, or what the callback raised.
        Cancelling closes the connection at once.
        """
        try:
            while not self._over:
                await self._wait()
        except asyncio.CancelledError:
            self.close()
            raise
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Want no more of it: closes the connection at once unless the response is over.
        Idempotent."""
        if not self._over:
            self.drop()

    def drop(self) -> None:
        """Let go of the connection at once, whatever state the response is in."""
        self._finish(Interrupted("the response was closed by its reader"))
        self._release()

    def received(self, data: bytes) -> None:
        """Take what one read brought. Called by the connection: the hot path, all in one
        function because each further one is cold when a token wakes the process."""
        parser = self._parser
        known = parser.status
        body = parser.feed(data)
        if body and not self._over:
            if parser.status >= 400:
                self._collect(body)
            else:
                try:
                    wanted = self._on_body(body)
                except Exception as error:
                    self._finish(error)
                    self._release()
                else:
                    if not wanted:
                        self._linger()
        if parser.over:
            self._finish(parser.error)
            self._release()
        elif not known and parser.status:
            self._wake()

    def lost(self, error: Exception | None) -> None:
        """The connection is no more. Called by the connection."""
        if not self._parser.over:
            self._parser.eof(clean=error is None)
        self._finish(self._parser.error)
        self._release()

    def _collect(self, body: bytes) -> None:
        self._content += body[: MAX_ERROR_BODY - len(self._content)]
        if len(self._content) == MAX_ERROR_BODY:
            self._finish(None)
            self._release()

    def _linger(self) -> None:
        self._finish(None)
        if not self._parser.over and self._connection is not None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._release)

    def _finish(self, error: Exception | None) -> None:
        """Come to the end for the reader, once; whatever ends first is the end."""
        if not self._over:
            self._over = True
            self._error = error
            self._wake()

    def _release(self) -> None:
        """Give the connection back, once: to be used again if all of the response is in."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        parser = self._parser
        whole = parser.over and parser.error is None and parser.reusable
        connection.done(reusable=whole, hint=parser.headers.get("keep-alive"))
        parser.release()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _wait(self) -> asyncio.Future[None]:
        """What `_wake` ends. No coroutine: one more would be held for as long as an answer
        streams."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter


class Connection(asyncio.Protocol):
    """One socket and the response it is carrying, if any.

    `done` is called when a response is over, with whether the connection may carry
    another; `lost` when the connection is no more. `keep_alive` is for how many seconds
    the server said that it keeps it unused; `expires` belongs to the pool.
    """

    def __init__(self, origin: Origin, done: Done, lost: Lost) -> None:
        self.origin = origin
        self.expires = 0.0
        self.keep_alive = float("inf")
        self._done = done
        self._lost = lost
        self._response: Response | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def closing(self) -> bool:
        """Whether it can carry nothing more."""
        return self._transport is None or self._transport.is_closing()

    def send(self, request: bytes, response: Response) -> None:
        """Write a request, whose answer `response` will take."""
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
        if not _POLLS:
            return True  # a closed connection is then found out by using it
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def done(self, *, reusable: bool, hint: str | None) -> None:
        """The response is over, whole or not."""
        self._response = None
        if hint is not None:
            self.keep_alive = _seconds(hint)
        unsent = self._transport is None or self._transport.get_write_buffer_size() > 0
        self._done(self, reusable and not unsent)

    def shut(self) -> None:
        """Close at once; a response under way has then been interrupted."""
        if self._response is not None:
            self._response.drop()
        self.abort()

    def abort(self) -> None:
        """Close the socket at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what one read brought."""
        if self._response is not None:
            self._response.received(data)
        else:
            self.abort()  # nothing was asked, so this answers nothing

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop, once."""
        self._transport = None
        response, self._response = self._response, None
        if response is not None:
            response.lost(exc)
        self._lost(self)


def _seconds(keep_alive: str) -> float:
    """How long to keep a connection whose server said `Keep-Alive: timeout=N`: a second
    less, so that the two sides do not meet."""
    for parameter in keep_alive.split(","):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "timeout" and value.isdecimal():
            return max(0.0, int(value) - 1.0)
    return float("inf")
