"""One request and its response on one connection: the hot path of the streaming client.

A read of the socket calls `UpstreamConnection.data_received`, `Response.received`, the parser and
the reader's callback, one after the other, without a task switch.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, TypeAlias, cast

from relay.providers.http.http1 import Interrupted, Origin, ResponseParser

MAX_ERROR_BODY = 65_536
"""Bytes of an error response's body that are kept; the rest is not waited for."""

LINGER = 1.0
"""Seconds that the rest of a response may take after its reader has all it wants. Only framing and
end markers are left by then; once they are read the connection can be used again."""

_POLLS = hasattr(select, "poll")  # not on Windows


class BodyReader(Protocol):
    """Receives a response."""

    def take(self, body: bytes) -> bool:
        """Take the body bytes of one read; returns whether more is wanted. An exception raised
        here closes the connection and is passed to `over`."""
        ...

    def over(self, response: Response, error: Exception | None) -> None:
        """The response ended. `error` is None if all of it arrived: all that `take` wanted, or up
        to its end by its framing; a response without framing ends when its connection is closed
        without an error. Else `error` is a `TransportError`, or what `take` raised. Called once,
        as the last call."""
        ...


OnDone: TypeAlias = Callable[["UpstreamConnection", bool], None]
OnLost: TypeAlias = Callable[["UpstreamConnection"], None]


class Response:
    """A response that is being received: `status` and `headers` (lower-case names; repeated ones
    joined with commas).

    Body bytes go to its reader; with a status of 400 and above they are collected in `content`.
    """

    __slots__ = ("_connection", "_content", "_opening", "_parser", "_reader", "_timer")

    def __init__(self, reader: BodyReader) -> None:
        self._reader: BodyReader | None = reader
        self._parser = ResponseParser()
        self._content = b""
        self._connection: UpstreamConnection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def status(self) -> int:
        """The status code; 0 before the head arrived."""
        return self._parser.status

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers, by lower-case name."""
        return self._parser.headers

    @property
    def content(self) -> bytes:
        """An error response's body, at most `MAX_ERROR_BODY` bytes; complete once the response
        ended."""
        return self._content

    def waits_for(self, opening: asyncio.Task[None]) -> None:
        """Set the task that is opening the connection."""
        self._opening = opening

    def carried_by(self, connection: UpstreamConnection) -> None:
        """Set the connection that its request is sent on."""
        self._opening = None
        self._connection = connection

    def close(self) -> None:
        """Stop reading: its reader is not called again, and the connection is closed at once
        unless the response is over. Idempotent."""
        if self._reader is not None:
            self._reader = None
            if self._opening is not None:
                self._opening.cancel()
            self._release()

    def received(self, data: bytes) -> None:
        """Take what one read brought. Called by the connection. The hot path, in one function
        because every further function's code would be out of the CPU's caches when a token wakes
        the process."""
        parser = self._parser
        body = parser.feed(data)
        if body and self._reader is not None:
            if parser.status >= 400:
                self._collect(body)
            else:
                try:
                    wanted = self._reader.take(body)
                except Exception as error:
                    self.fail(error)
                else:
                    if not wanted:
                        self._linger()
        if parser.over:
            self.fail(parser.error)

    def lost(self, error: Exception | None) -> None:
        """The connection was closed. Called by the connection."""
        if not self._parser.over:
            self._parser.eof(clean=error is None)
        self.fail(self._parser.error)

    def fail(self, error: Exception | None) -> None:
        """End the response here unless it has ended; `error` is None for a good end."""
        self._release()
        self._tell(error)

    def _collect(self, body: bytes) -> None:
        self._content += body[: MAX_ERROR_BODY - len(self._content)]
        if len(self._content) == MAX_ERROR_BODY:
            self.fail(None)

    def _linger(self) -> None:
        if not self._parser.over and self._connection is not None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._release)
        self._tell(None)

    def _tell(self, error: Exception | None) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.over(self, error)

    def _release(self) -> None:
        """Return the connection, once: to be used again if the whole response arrived."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        parser = self._parser
        whole = parser.over and parser.error is None and parser.reusable
        connection.done(reusable=whole, hint=parser.headers.get("keep-alive"))
        parser.release()


class UpstreamConnection(asyncio.Protocol):
    """One socket and the response it is carrying, if any.

    `done` is called when a response is over, with whether the connection may carry another; `lost`
    when the connection is closed. `keep_alive` is the number of seconds that the server keeps the
    connection unused, as its header states; `expires` belongs to the pool.
    """

    def __init__(self, origin: Origin, done: OnDone, lost: OnLost) -> None:
        self.origin = origin
        self.expires = 0.0
        self.keep_alive = float("inf")
        self._done = done
        self._lost = lost
        self._response: Response | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def closing(self) -> bool:
        """Whether it can't carry another request."""
        return self._transport is None or self._transport.is_closing()

    def send(self, request: bytes, response: Response) -> None:
        """Write a request; `response` takes its answer."""
        self._response = response
        response.carried_by(self)
        if self._transport is None:
            response.lost(None)
        else:
            self._transport.write(request)

    def silent(self) -> bool:
        """Whether the peer has sent nothing, and no end, that the event loop has not seen yet: a
        server may close an idle connection at any time."""
        if self._transport is None or self._transport.is_closing():
            return False
        if not _POLLS:
            return True  # if it is closed, using it will show that
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def done(self, *, reusable: bool, hint: str | None) -> None:
        """The response is over, complete or not."""
        self._response = None
        if hint is not None:
            self.keep_alive = _seconds(hint)
        unsent = self._transport is None or self._transport.get_write_buffer_size() > 0
        self._done(self, reusable and not unsent)

    def shut(self) -> None:
        """Close at once; a running response is interrupted."""
        if self._response is not None:
            self._response.fail(Interrupted("the relay closed the connection"))
        self.abort()

    def abort(self) -> None:
        """Close the socket at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # TCP_NODELAY is set by the event loops themselves.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what one read brought."""
        if self._response is not None:
            self._response.received(data)
        else:
            self.abort()  # no request is open, so this is no answer

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop, once."""
        self._transport = None
        response, self._response = self._response, None
        if response is not None:
            response.lost(exc)
        self._lost(self)


def _seconds(keep_alive: str) -> float:
    """How long to keep a connection after its server sent `Keep-Alive: timeout=N`: a second less,
    so that the server does not close it just as a request is written."""
    for parameter in keep_alive.split(","):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "timeout" and value.isdecimal():
            return max(0.0, int(value) - 1.0)
    return float("inf")
