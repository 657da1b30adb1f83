"""`relay.v1` on a real WebSocket: the real log and dispatcher over a scripted provider."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import websockets
from aiohttp import web

from lab.waiting import until
from relay.access.guard import SUBJECT
from relay.answering.dispatcher import AnswerSettings, Dispatcher, Lineup
from relay.answering.timerwheel import TimerWheel
from relay.core.errors import Code, RelayError
from relay.core.events import Event, Finish, FinishReason, Served, Target, Text, Usage
from relay.core.provider import Call, Caller, Form, Take, UpstreamCall
from relay.edges import http
from relay.edges.http_server import HttpRunner
from relay.edges.relay_v1.service import SocketLimits
from relay.edges.relay_v1.websocket import WebSocketEdge
from relay.providers.awaited import AwaitedCalls
from relay.stores.memory import MemoryLimits, MemoryLog
from tests.by_default import by_default, open_route, usual_breakers, usual_hedges
from tests.frames import server_frame

PATIENCE = 20.0
"""Seconds after which a test says that something hangs."""

END: list[Event] = [Served("m-0613"), Finish(FinishReason.STOP), Usage(3, 5, False)]

Script = Callable[[Call, Take], Awaitable[None]]


def says(*pieces: str) -> Script:
    """An answer in these pieces, each a read of its own."""

    async def run(call: Call, take: Take) -> None:
        for piece in pieces:
            take([Text(piece)])
            await asyncio.sleep(0)
        take(END)

    return run


def words(count: int) -> list[str]:
    """So many different tokens."""
    return [f"wörd{n} " for n in range(count)]


class Held:
    """An answer whose pieces come when the test says so."""

    def __init__(self) -> None:
        self.take: Take | None = None
        self.cancelled = asyncio.Event()
        self._end = asyncio.Event()

    async def __call__(self, call: Call, take: Take) -> None:
        self.take = take
        try:
            await self._end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        take(END)

    async def say(self, text: str) -> None:
        await until(lambda: self.take)
        assert self.take is not None
        self.take([Text(text)])

    def end(self) -> None:
        self._end.set()


class ScriptedProvider:
    """A provider that follows a script and counts its calls."""

    name = "gpt"

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self._awaited = AwaitedCalls()

    def forms(self, model: str) -> tuple[Form, ...]:
        return (Form.RESTART,)

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        return self._awaited.begin(partial(self._follow, call), caller)

    async def _follow(self, call: Call, take: Take) -> None:
        self.calls.append(call)
        await self.script(call, take)

    async def warm(self, model: str) -> None: ...

    async def probe(self) -> None: ...

    async def close(self) -> None:
        await self._awaited.close()


class Told:
    """Remembers what the edge and the dispatcher tell."""

    def __init__(self) -> None:
        self.closed: list[int | None] = []
        self.refusals: list[Code] = []
        self.defects: list[BaseException] = []
        self.greetings: list[tuple[str | None, bool]] = []
        self.named: ContextVar[tuple[str, str]] = ContextVar("named")

    @contextmanager
    def naming(self, connection: str, session: str) -> Iterator[None]:
        token = self.named.set((connection, session))
        yield
        self.named.reset(token)

    def connected(self, connection: str, client: str) -> None: ...

    def greeted(self, connection: str, subject: str | None, *, resumed: bool) -> None:
        self.greetings.append((subject, resumed))

    def refused(self, connection: str, code: Code) -> None:
        self.refusals.append(code)

    def disconnected(self, connection: str, code: int | None) -> None:
        self.closed.append(code)

    def unexpected(self, where: str, error: BaseException) -> None:
        traceback.print_exception(error)
        self.defects.append(error)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The dispatcher tells more, which is not looked at here."""
        return lambda *facts, **more: None


@dataclass
class SocketRelay:
    """A listening server and what stands behind it."""

    log: MemoryLog
    dispatcher: Dispatcher
    provider: ScriptedProvider
    edge: WebSocketEdge
    told: Told
    port: int = 0
    clients: list[Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def connect(self, **options: Any) -> Client:
        """A `websockets` client, closed at the end of the test."""
        client = Client(await websockets.connect(self.url, **options))
        self.clients.append(client)
        return client


TOKENS = {"token-a": "alice", "token-b": "bob"}


def by_token(token: str | None) -> str | None:
    """Knows alice and bob."""
    if token not in TOKENS:
        raise RelayError(Code.UNAUTHORIZED, "a token is needed")
    return TOKENS[token]


@asynccontextmanager
async def serving(
    script: Script,
    *,
    limits: SocketLimits | None = None,
    log_limits: MemoryLimits | None = None,
    authenticate: Callable[[str | None], str | None] = lambda token: None,
    handler_cancellation: bool = False,
) -> AsyncIterator[SocketRelay]:
    """A `SocketRelay`, whose observers must not have been told of a defect."""
    told, provider = Told(), ScriptedProvider(script)
    log = MemoryLog(log_limits or by_default(MemoryLimits), time.monotonic)
    lineup = Lineup({"gpt": provider}, {"gpt": open_route("gpt", Target("gpt", "m"))})
    dispatcher = Dispatcher(
        lineup,
        log,
        settings=by_default(AnswerSettings),
        breakers=usual_breakers(),
        hedges=usual_hedges(),
        observer=told,
        clock=time.monotonic,
    )
    edge = WebSocketEdge(
        log,
        dispatcher,
        limits or by_default(SocketLimits),
        wheel=TimerWheel(time.monotonic),
        authenticate=authenticate,
        observer=told,
    )
    relay = SocketRelay(log, dispatcher, provider, edge, told)

    async def handle(request: web.Request) -> web.StreamResponse:
        if subject := TOKENS.get(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            request[SUBJECT] = subject
        return await edge.handle(request)

    app = web.Application(middlewares=[http.errors])
    app.router.add_get("/ws", handle, allow_head=False)
    runner = HttpRunner(app, handler_cancellation=handler_cancellation, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    relay.port = runner.addresses[0][1]
    try:
        yield relay
    finally:
        for client in relay.clients:
            client.drop()
        await edge.close_all(1001)
        await dispatcher.drain(0)
        await runner.cleanup()
        await log.close()
    assert told.defects == []


class Client:
    """Applies frames as `protocol.md` has it, and refuses any that break its rules."""

    def __init__(self, ws: websockets.ClientConnection) -> None:
        self.ws = ws
        self.session = ""
        self.last: dict[str, int] = {}
        self.texts: dict[str, str] = {}
        self.frames: list[dict[str, Any]] = []

    async def send(self, type: str, **fields: Any) -> None:
        await self.ws.send(json.dumps({"type": type} | fields))

    async def chat(self, id: str = "a", messages: Any = "hi", **fields: Any) -> None:
        await self.send("chat", id=id, messages=messages, **fields)

    async def frame(self) -> dict[str, Any]:
        """The next frame, whatever it is; checked against its model and applied."""
        async with asyncio.timeout(PATIENCE):
            text = await self.ws.recv()
        assert isinstance(text, str)
        server_frame.validate_json(text)
        frame: dict[str, Any] = json.loads(text)
        self.frames.append(frame)
        self._apply(frame)
        return frame

    async def until(self, type: str, id: str | None = None) -> dict[str, Any]:
        """The next frame of that type (and id), those before it applied."""
        while True:
            frame = await self.frame()
            if frame["type"] == type and id in (None, frame.get("id")):
                return frame

    async def closed(self) -> int | None:
        """The code that the server closes with."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    self.frames.append(json.loads(await self.ws.recv()))
            except websockets.ConnectionClosed:
                return self.ws.close_code

    def drop(self) -> None:
        """Vanish without a word."""
        self.ws.transport.abort()

    def _apply(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "ready":
            self.session = frame["session"]
        if "seq" not in frame:
            return
        id, seq = frame["id"], frame["seq"]
        last = self.last.get(id, -1)
        assert frame.get("first", seq) == last + 1, f"a gap, or twice: {frame} after {last}"
        self.last[id] = seq
        if frame["type"] == "token":
            self.texts[id] = self.texts.get(id, "") + frame["text"]


class RawSocket:
    """A WebSocket client by hand: says and reads only what the test wants."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    async def connect(cls, relay: SocketRelay, receive_buffer: int = 0) -> RawSocket:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", relay.port))
        raw = cls(sock)
        key = base64.b64encode(os.urandom(16)).decode()
        await raw.send(
            f"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await loop.sock_recv(sock, 1)
        assert b" 101 " in head
        return raw

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def say(self, frame: dict[str, Any]) -> None:
        await self.send(masked(0x81, json.dumps(frame).encode()))

    async def rest(self) -> bytes:
        """All that comes until the server is gone."""
        got = bytearray()
        async with asyncio.timeout(PATIENCE):
            try:
                while data := await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16):
                    got += data
            except ConnectionError:
                pass
        return bytes(got)

    def close(self) -> None:
        self.sock.close()


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame with a mask of zeros (RFC 6455 §5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65_536:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload
