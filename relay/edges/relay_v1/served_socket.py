"""One WebSocket of `relay.v1`: carries out the rules of `relay.protocol.connection` on a socket.

The rules return actions; this module carries them out with a stream log, a dispatcher and an
`Outlet`, and reports the results to the rules. Streams belong to the dispatcher: no answer ends
because a socket closed or its handler was cancelled.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context

from aiohttp import WebSocketError, WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from relay.access.guard import SUBJECT
from relay.answering.timerwheel import NO_CHAT
from relay.core.errors import Code, RelayError
from relay.core.streamlog import StreamInfo
from relay.edges.delivery.framing import TEXT_FRAMES
from relay.edges.delivery.link import link_of
from relay.edges.delivery.outlet import Heartbeat, Outlet
from relay.edges.relay_v1.service import SocketService
from relay.edges.rfc6455 import close_answer
from relay.protocol.actions import (
    AttachCursor,
    Cancel,
    CloseCode,
    CloseConnection,
    ConnectionAction,
    ConnectionActions,
    Find,
    Greet,
    LinkStream,
    OpenSession,
    Renew,
    SendFrame,
    StartChat,
)
from relay.protocol.codec import FrameEncoder, encode
from relay.protocol.connection import ConnectionPhase, ConnectionRules
from relay.protocol.frames import (
    PROTOCOL,
    AnySent,
    DrainFrame,
    ErrorFrame,
    PingFrame,
    ProviderOffer,
    ReadyFrame,
    ReadyLimits,
    SessionStream,
)

CLOSE_TIMEOUT = 5.0
"""Seconds that a client has to accept the remaining messages, and again to answer a close."""

SESSION_BYTES = 24
"""Random bytes in the name of a session that the server creates."""

MAX_LISTED = 256
"""Streams of a resumed session that `ready` lists at most."""

FEATURES: tuple[str, ...] = ()
"""Features that a client may use in addition to `protocol.md`, listed in `ready.features`."""


def _new_id() -> str:
    return secrets.token_urlsafe(12)


PINGS = Heartbeat(encode(PingFrame(type="ping")), in_silence=False)
"""Options of the `ping` frame, which a browser's script can see. aiohttp pings the socket itself,
and closes it after one and a half intervals without a sign of life."""


def newest_or_running(streams: list[StreamInfo]) -> list[StreamInfo]:
    """At most `MAX_LISTED` of the streams, in their order (oldest first): the running ones, then
    the newest, so that `ready` stays small enough for any client."""
    if len(streams) <= MAX_LISTED:
        return streams
    ranked = sorted(enumerate(streams), key=lambda at: (at[1].status != "running", -at[0]))
    return [stream for _, stream in sorted(ranked[:MAX_LISTED], key=lambda at: at[0])]


class _Cut:
    """Cuts a transport that its client does not close in time. Holds nothing else of a socket
    that has ended."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    @property
    def context(self) -> Context:
        """An empty context: this deadline belongs to no chat."""
        return NO_CHAT

    def tick(self) -> None:
        """The time is over."""
        self._transport.abort()


class ServedSocket:
    """One socket: reads frames and carries out the actions of the rules."""

    __slots__ = (
        "_drain_frame",
        "_due",
        "_late",
        "_outlet",
        "_rules",
        "_service",
        "_session",
        "_transport",
        "close_code",
        "name",
        "ws",
    )

    def __init__(
        self,
        service: SocketService,
        request: web.Request,
        transport: asyncio.Transport,
        ws: web.WebSocketResponse,
        writer: AbstractStreamWriter,
        drain_frame: Callable[[], DrainFrame | None],
    ) -> None:
        subject = request.get(SUBJECT)
        self.name = secrets.token_hex(4)
        self.ws = ws
        self.close_code: int | None = None
        self._service = service
        self._drain_frame = drain_frame
        self._transport = transport
        self._session: str | None = None
        self._rules = ConnectionRules(
            new_id=_new_id,
            subject=subject,
            token_required=service.token_required and subject is None,
        )
        self._outlet = Outlet(
            transport,
            link_of(request),
            framing=TEXT_FRAMES,
            heartbeat=PINGS,
            pace=service.pace,
            wheel=service.wheel,
            ended=self._rules.detached,
        )
        self._due: float | None = None
        self._late: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until either side closes; `close_code` is then set, None for a connection that
        broke."""
        if self._rules.phase is ConnectionPhase.LOCKED:
            self._set_deadline(self._service.limits.hello_timeout)
        try:
            await self._receive_all()
        except Exception as error:  # a programming error ends this connection only
            self._service.observer.unexpected(self.name, error)
            await self.close(CloseCode.INTERNAL, "internal")
        finally:
            await self._end()

    async def _receive_all(self) -> None:
        while self._rules.phase is not ConnectionPhase.CLOSED:
            try:
                message = await self.ws.receive()
            except ConnectionError:  # the client disconnected before aiohttp had answered its ping
                return
            if message.type is WSMsgType.TEXT:
                await self._perform(self._rules.receive(message.data))
            elif message.type is WSMsgType.BINARY:
                await self._perform(self._rules.receive_binary())
            else:
                await self._correct_close_code(message)
                return
            await self._outlet.wait_for_room()

    async def _correct_close_code(self, message: WSMessage) -> None:
        """Correct the close code: aiohttp reports 1000 for an end without a close frame."""
        if message.type is WSMsgType.CLOSE:
            code = close_answer(message.data)
            self.close_code = self.close_code or code
            self._outlet.finish()
            await self.ws.close(code=code, drain=False)
        elif self.close_code is None and isinstance(message.data, WebSocketError):
            self.close_code = message.data.code

    async def _end(self) -> None:
        self._rules.ended()
        self._outlet.close()
        self._drop_deadline()
        if not self._transport.is_closing() or self._transport.get_write_buffer_size():
            wheel = self._service.wheel
            wheel.join(_Cut(self._transport), wheel.clock() + CLOSE_TIMEOUT)
        session, self._session = self._session, None
        if session is not None:
            # If the store does not answer, the session expires there by itself.
            with suppress(RelayError):
                await self._service.log.leave_session(session)

    async def close(self, code: int, reason: str) -> None:
        """Send the waiting messages, then close; each may take `CLOSE_TIMEOUT`."""
        self.close_code = code
        self._outlet.finish()
        self._rules.ended()
        self._set_deadline(2 * CLOSE_TIMEOUT)
        await self.ws.close(code=code, message=reason.encode())

    # Deadlines: first for the first frame, later for the end

    @property
    def context(self) -> Context:
        """An empty context: a connection's deadlines belong to no chat."""
        return NO_CHAT

    def _set_deadline(self, seconds: float) -> None:
        self._drop_deadline()
        self._due = self._service.wheel.clock() + seconds
        self._service.wheel.join(self, self._due)

    def _drop_deadline(self) -> None:
        if self._due is not None:
            self._service.wheel.leave(self, self._due)
            self._due = None

    def tick(self) -> None:
        """A deadline passed: that of the first frame if none came, else that of the end."""
        self._due = None
        if self._rules.phase is ConnectionPhase.CLOSED:
            self._transport.abort()
        else:
            self._late = asyncio.create_task(self._perform(self._rules.hello_late()))

    def tell_drain(self) -> None:
        """Tell the client, if it already got `ready`, that this process is shutting down."""
        frame = self._drain_frame()
        if frame is not None and self._rules.phase is ConnectionPhase.OPEN:
            self._outlet.send(encode(frame))

    # Actions

    async def _perform(self, actions: Iterable[ConnectionAction]) -> None:
        """Carry out actions in order. Actions that an outcome returns come before the remaining
        ones. Nothing follows a `CloseConnection`."""
        todo = deque(actions)
        while todo and not self.ws.closed:
            todo.extendleft(reversed(await self._carry_out(todo.popleft())))

    async def _carry_out(self, action: ConnectionAction) -> ConnectionActions:
        match action:
            case SendFrame(frame=frame):
                self._send(frame)
            case CloseConnection(code=code, reason=reason):
                await self.close(code, reason)
            case Greet():
                return await self._greet(action)
            case OpenSession() | Renew():
                return await self._admit(action)
            case _:
                return await self._try(action)
        return []

    def _send(self, frame: AnySent) -> None:
        if isinstance(frame, ErrorFrame):
            self._service.observer.refused(self.name, Code(frame.code))
        self._outlet.send(encode(frame))

    async def _admit(self, action: OpenSession | Renew) -> ConnectionActions:
        try:
            subject = self._subject(action.token)
            if isinstance(action, Renew):
                return self._rules.renewed(subject)
            session = action.session or secrets.token_urlsafe(SESSION_BYTES)
            resumed = await self._service.log.open_session(session, subject)
        except RelayError as error:
            return self._rules.refused(error)
        self._session = session
        self._service.observer.greeted(self.name, subject, resumed=resumed)
        return self._rules.opened(session, subject, resumed=resumed)

    def _subject(self, token: str | None) -> str | None:
        """The subject of the connection, from the upgrade request or from `token`. If both give
        one, they must agree."""
        known = self._rules.subject
        if token is None:
            return known if known is not None else self._service.authenticate(None)
        subject = self._service.authenticate(token)
        if known is not None and subject != known:
            raise RelayError(Code.FORBIDDEN, "the token belongs to somebody else")
        return subject

    async def _try(
        self, action: StartChat | AttachCursor | Find | LinkStream | Cancel
    ) -> ConnectionActions:
        try:
            match action:
                case StartChat():
                    return await self._start(action)
                case AttachCursor():
                    await self._attach(action)
                case Find(id=id, after=after):
                    return self._rules.found(id, await self._find(id), after)
                case LinkStream():
                    return await self._link(action)
                case Cancel(id=id):
                    await self._service.log.cancel(await self._find(id), self._rules.subject)
        except RelayError as error:
            return self._rules.failed(action, error)
        except Exception as error:  # a programming error must not end the other streams
            self._service.observer.unexpected(self.name, error)
            fault = RelayError(Code.INTERNAL, "internal error; try again later")
            return self._rules.failed(action, fault)
        return []

    async def _start(self, action: StartChat) -> ConnectionActions:
        session = self._of_session()
        with self._service.observer.naming(self.name, session):
            stream = await self._service.dispatcher.start(
                action.request,
                session=session,
                id=action.id,
                subject=self._rules.subject,
            )
        return self._rules.started(action.id, stream)

    async def _attach(self, action: AttachCursor) -> None:
        reader = self._outlet.new_reader(action.id, FrameEncoder(action.id))
        cursor = await self._service.log.attach(
            action.stream, action.after, reader.wake, self._rules.subject
        )
        self._outlet.deliver(reader, cursor)

    async def _find(self, id: str) -> str:
        return await self._service.log.find(self._of_session(), id)

    async def _link(self, action: LinkStream) -> ConnectionActions:
        log, session, subject = self._service.log, self._of_session(), self._rules.subject
        stream = action.stream
        if stream is None:
            stream = await log.newest(action.conversation or "", session, subject)
        id = action.id or stream
        await log.link(session, id, stream, subject)
        return self._rules.found(id, stream, action.after)

    def _of_session(self) -> str:
        assert self._session is not None
        return self._session

    async def _greet(self, greet: Greet) -> ConnectionActions:
        try:
            streams = await self._listed(greet.session) if greet.resumed else None
        except RelayError as error:
            return self._rules.refused(error)
        self._outlet.send(encode(self._ready(greet, streams)))
        self._outlet.keep_alive()
        self.tell_drain()
        return []

    async def _listed(self, session: str) -> list[SessionStream]:
        streams = newest_or_running(await self._service.log.session_streams(session))
        return [
            SessionStream(id=s.id, stream=s.stream, seq=s.seq, status=s.status) for s in streams
        ]

    def _ready(self, greet: Greet, streams: list[SessionStream] | None) -> ReadyFrame:
        limits = self._service.limits
        return ReadyFrame(
            type="ready",
            protocol=PROTOCOL,
            session=greet.session,
            resumed=greet.resumed,
            streams=streams,
            providers=[
                ProviderOffer(name=offer.name, model=offer.model, status=offer.status)
                for offer in self._service.dispatcher.offers()
            ],
            features=list(FEATURES),
            limits=ReadyLimits(
                max_frame_bytes=limits.max_frame_bytes,
                max_streams_per_session=limits.max_streams_per_session,
                resume_window=limits.resume_window,
            ),
            heartbeat=limits.heartbeat,
        )
