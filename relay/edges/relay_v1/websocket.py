"""`GET /ws`: accepts WebSockets of `relay.v1` and keeps all open ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from aiohttp import HttpVersion11, hdrs, web

from relay.access.guard import ADDRESS
from relay.answering.dispatcher import Dispatcher
from relay.answering.timerwheel import TimerWheel
from relay.core.errors import Code, RelayError
from relay.core.streamlog import StreamLog
from relay.edges.delivery.outlet import HIGH_WATER, Pace
from relay.edges.http import HttpError
from relay.edges.relay_v1.served_socket import CLOSE_TIMEOUT, ServedSocket
from relay.edges.relay_v1.service import SocketLimits, SocketObserver, SocketService
from relay.edges.rfc6455 import VERSION, chosen_subprotocol, key_fault
from relay.protocol.actions import CloseCode
from relay.protocol.frames import PROTOCOL, DrainFrame

NO_UPGRADE = "this path takes WebSockets only; a proxy has to forward Upgrade and Connection"
"""The message for a request that asks for no WebSocket."""

WANTED_UPGRADE: dict[str, str] = {
    hdrs.UPGRADE: "websocket",
    hdrs.CONNECTION: "upgrade",
    hdrs.SEC_WEBSOCKET_VERSION: VERSION,
}
"""The headers for a client that uses another version (RFC 6455 §4.4, RFC 9110 §15.5.22)."""


SPOKEN = f"this server speaks {PROTOCOL}".encode()
"""The close reason for a client that offers other subprotocols only."""


class WebSocketEdge:
    """Serves `relay.v1` over WebSocket.

    `authenticate` takes the token of a `hello`, or None for none, and returns the subject or
    raises `RelayError(UNAUTHORIZED)`. `wheel` keeps the sockets' deadlines. Add `handle` as a
    route; before the process ends call `drain` and then `close_all`.
    """

    def __init__(
        self,
        log: StreamLog,
        dispatcher: Dispatcher,
        limits: SocketLimits,
        *,
        wheel: TimerWheel,
        authenticate: Callable[[str | None], str | None],
        observer: SocketObserver,
    ) -> None:
        required = _refuses_anonymous(authenticate)
        pace = Pace(limits.heartbeat, limits.write_timeout)
        self._service = SocketService(
            log, dispatcher, limits, pace, wheel, authenticate, observer, required
        )
        self._drain_within: float | None = None
        self._sockets: set[ServedSocket] = set()

    @property
    def connections(self) -> int:
        """The number of open sockets."""
        return len(self._sockets)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket until it ends. Raises `HttpError` if the request is no valid
        handshake."""
        check_handshake(request)
        offers = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())
        subprotocol = chosen_subprotocol(offers, (PROTOCOL,))
        ws = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            compress=False,
            heartbeat=self._service.limits.heartbeat,
            max_msg_size=self._service.limits.max_frame_bytes + 1,
            writer_limit=HIGH_WATER,
            timeout=CLOSE_TIMEOUT,
            autoclose=False,
        )
        try:
            writer = await ws.prepare(_offering(request, subprotocol))
        except ConnectionError:
            return ws
        except web.HTTPBadRequest:
            raise HttpError(400, Code.BAD_REQUEST, NO_UPGRADE) from None
        if offers and subprotocol is None:
            await ws.close(code=CloseCode.SUBPROTOCOL, message=SPOKEN)
        elif request.transport is not None:
            await self._serve(
                ServedSocket(
                    self._service, request, request.transport, ws, writer, self._drain_frame
                ),
                request.get(ADDRESS) or "-",
            )
        return ws

    async def _serve(self, served: ServedSocket, client: str) -> None:
        self._sockets.add(served)
        self._service.observer.connected(served.name, client)
        try:
            # A task of its own, so that a frame does not wake the whole stack of middlewares.
            await asyncio.create_task(served.run())
        finally:
            self._sockets.discard(served)
            self._service.observer.disconnected(served.name, served.close_code)

    def drain(self, within: float) -> None:
        """Tell every client to open its next connection after a random time of at most `within`
        seconds. Clients that connect later are told at once."""
        self._drain_within = within
        for served in self._sockets:
            served.tell_drain()

    def _drain_frame(self) -> DrainFrame | None:
        """The frame that tells a client to reconnect; None unless this process is shutting down."""
        if self._drain_within is None:
            return None
        milliseconds = round(random.uniform(0, self._drain_within) * 1000)  # noqa: S311
        return DrainFrame(type="drain", reconnect_after=milliseconds)

    async def close_all(self, code: int) -> None:
        """Close every connection, and wait until they are closed."""
        await asyncio.gather(*(served.close(code, "") for served in list(self._sockets)))


def check_handshake(request: web.Request) -> None:
    """Raises `HttpError` for a request that is no opening handshake of RFC 6455 (§4.2.1)."""
    headers = request.headers
    upgrade = headers.get(hdrs.UPGRADE, "")
    if not upgrade.isascii() or upgrade.lower() != "websocket":
        raise HttpError(400, Code.BAD_REQUEST, NO_UPGRADE)
    if request.version < HttpVersion11 or request.body_exists:
        message = "expected a GET request of HTTP/1.1 without a body"
        raise HttpError(400, Code.BAD_REQUEST, message)
    if list(headers.getall(hdrs.SEC_WEBSOCKET_VERSION, ())) != [VERSION]:
        message = f"expected Sec-WebSocket-Version: {VERSION}, once"
        raise HttpError(426, Code.BAD_REQUEST, message, WANTED_UPGRADE)
    if fault := key_fault(headers.getall(hdrs.SEC_WEBSOCKET_KEY, ())):
        raise HttpError(400, Code.BAD_REQUEST, fault)


def _offering(request: web.Request, subprotocol: str | None) -> web.Request:
    """The request with `subprotocol` as its only offer. aiohttp reads only the first
    Sec-WebSocket-Protocol, and logs an offer that it can't choose, which with some clients is a
    token."""
    headers = request.headers.copy()
    headers.popall(hdrs.SEC_WEBSOCKET_PROTOCOL, None)
    if subprotocol is not None:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = subprotocol
    return request.clone(headers=headers)


def _refuses_anonymous(authenticate: Callable[[str | None], str | None]) -> bool:
    try:
        authenticate(None)
    except RelayError:
        return True
    return False
