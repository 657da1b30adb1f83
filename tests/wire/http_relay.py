"""The HTTP edges on a real socket, over a real log whose records a test writes by hand."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from lab.waiting import until
from relay.answering.dispatcher import Offer
from relay.answering.timerwheel import TimerWheel
from relay.core.errors import Code, RelayError
from relay.core.events import Done, FinishReason, Start, Timing, Usage
from relay.core.request import ChatRequest
from relay.core.streamlog import Existing, Spec, Writer
from relay.edges import http
from relay.edges.delivery.http_body import HttpService
from relay.edges.delivery.outlet import Pace
from relay.edges.http_server import HttpRunner
from relay.edges.openai.chat import PREFIX, OpenAIChatEdge, openai_shape
from relay.edges.relay_v1.sse import SseEdge
from relay.stores.memory import MemoryLimits, MemoryLog
from tests.by_default import by_default

PATIENCE = 10.0
"""Seconds after which a test says that something hangs."""

PACE, LIMITS = by_default(Pace), by_default(MemoryLimits)

DONE = Done("gpt", "model-1-0613", FinishReason.STOP, Usage(3, 2, False), [], Timing(1, 2))


class HandDispatcher:
    """Opens streams and leaves their records to the test; `refusal` is raised instead."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.refusal: RelayError | None = None
        self.requests: list[ChatRequest] = []
        self.specs: list[Spec] = []
        self.writers: list[Writer] = []
        self.on_start: Callable[[Writer], None] = lambda writer: None

    async def start(self, request, *, session, id, subject, grace=None) -> str:
        if self.refusal:
            raise self.refusal
        if request.provider not in {"", "gpt"}:
            raise RelayError(Code.UNKNOWN_PROVIDER, f"provider: there is no {request.provider!r}")
        spec = Spec(secrets.token_urlsafe(16), session, id, subject, request, grace or 0)
        claim = await self.log.create(spec)
        if isinstance(claim, Existing):
            return claim.stream
        self.requests.append(request)
        self.specs.append(spec)
        self.writers.append(claim.writer)
        claim.writer.append([Start(spec.stream, "gpt", "model-1")])
        self.on_start(claim.writer)
        return spec.stream

    def offers(self) -> list[Offer]:
        return [Offer("gpt", "model-1", "ok"), Offer("best", "model-1", "unknown")]


@dataclass
class HttpRelay:
    """A listening server and what stands behind it."""

    dispatcher: HandDispatcher
    log: MemoryLog
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def writer(self) -> Writer:
        return self.dispatcher.writers[-1]

    @property
    def stream(self) -> str:
        return self.writer.stream

    async def started(self) -> Writer:
        await until(lambda: bool(self.dispatcher.writers))
        return self.writer


@asynccontextmanager
async def serving(pace=PACE, max_body=64 * 1024, limits=LIMITS, clock=time.monotonic, prepare=None):
    """An `HttpRelay`. `prepare(app)` may put more in front."""
    log = MemoryLog(limits, clock)
    dispatcher = HandDispatcher(log)
    relay = HttpRelay(dispatcher, log)
    service = HttpService(dispatcher, log, pace, TimerWheel(time.monotonic), max_body)
    app = web.Application(middlewares=[http.errors], client_max_size=max_body)
    http.shape_errors(app, PREFIX, openai_shape)
    if prepare:
        prepare(app)
    app.add_routes(SseEdge(service).routes())
    app.add_routes(OpenAIChatEdge(service, clock=lambda: 1_700_000_000.5).routes())
    async with listening(app) as relay.port:
        yield relay


@asynccontextmanager
async def listening(app: web.Application):
    """The port of `app`, served as in production: a handler is not told of a lost client."""
    runner = HttpRunner(app, handler_cancellation=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class RawClient:
    """HTTP by hand, to see what is on the wire and when."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}

    @classmethod
    async def connect(cls, port: int, **options) -> RawClient:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**22, **options))

    def send(self, method: str, path: str, body=b"", headers=None, version="1.1") -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        fields = {"Host": "localhost", "Content-Length": str(len(body))} | (headers or {})
        lines = [f"{method} {path} HTTP/{version}", *(f"{k}: {v}" for k, v in fields.items())]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def head(self) -> int:
        """Read the status and the headers."""
        async with asyncio.timeout(PATIENCE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])
        }
        return self.status

    async def chunk(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def body(self) -> bytes:
        """The rest of the body, chunked, of known length, or up to the connection's end."""
        if self.status in (204, 304):
            return b""
        if self.headers.get("transfer-encoding") == "chunked":
            whole = bytearray()
            while piece := await self.chunk():
                whole += piece
            return bytes(whole)
        async with asyncio.timeout(PATIENCE):
            if "content-length" in self.headers:
                return await self.reader.readexactly(int(self.headers["content-length"]))
            return await self.reader.read()

    async def ask(self, *args, **kwargs) -> bytes:
        """Send a request and read its whole response."""
        self.send(*args, **kwargs)
        await self.head()
        return await self.body()

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def client(relay: HttpRelay, **options):
    """A `RawClient` that is closed at the end."""
    raw = await RawClient.connect(relay.port, **options)
    try:
        yield raw
    finally:
        raw.close()


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    id: str | None
    data: dict


def events_of(body: bytes) -> list[Event]:
    """The events of a whole body, comments left out."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            found.append(Event(fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


def text_of(events: list[Event]) -> str:
    """The text that the events show."""
    return "".join(event.data["text"] for event in events if event.name == "token")
