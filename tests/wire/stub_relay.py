"""A small relay that speaks relay.v1 and misbehaves on demand: drops, gaps, repeats.

It keeps real logs and sessions, so that what a client does after a fault is answered as
the protocol says; its answers are scripted.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from relay.edges.page import page_routes

Frame = dict[str, Any]
OFFERS = [
    {"name": "claude", "model": "claude-sonnet-5-5", "status": "ok"},
    {"name": "local", "model": "smollm2-135m", "status": "down"},
]


def answer(*words: str, finish: bool = True) -> list[Frame]:
    """The records of an answer of so many tokens."""
    records: list[Frame] = [
        {"type": "start", "stream": "stream-1", "provider": "claude", "model": "claude-sonnet-5-5"}
    ]
    records += [{"type": "token", "text": word} for word in words]
    return [*records, done()] if finish else records


def done(reason: str = "stop") -> Frame:
    """A `done` record."""
    return {
        "type": "done",
        "provider": "claude",
        "model": "claude-sonnet-5-5-20261001",
        "finish_reason": reason,
        "usage": {"input_tokens": 3, "output_tokens": 7, "estimated": False},
        "attempts": [{"provider": "claude", "model": "m", "outcome": "ok", "ms": 12}],
        "timing": {"first_token_ms": 5, "total_ms": 1234},
    }


@dataclass
class Stream:
    """One log; `grown` is set anew whenever a record is appended."""

    records: list[Frame] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, *records: Frame) -> None:
        self.records.extend(records)
        self.grown.set()
        self.grown = asyncio.Event()


@dataclass
class StubRelay:
    """`script` gives the records of a chat; a log may also grow later, by `streams`."""

    script: Callable[[Frame], list[Frame]]
    cut_every: int = 0
    mutate: Callable[[list[Frame]], list[Frame]] = lambda frames: frames
    received: list[Frame] = field(default_factory=list)
    connections: list[web.WebSocketResponse] = field(default_factory=list)
    sessions: dict[str, dict[str, Stream]] = field(default_factory=lambda: defaultdict(dict))
    starts: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    hello_closes_with: int | None = None
    silent: bool = False
    heartbeat: float = 20

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[StubRelay]:
        app = web.Application()
        app.add_routes([*page_routes(), web.get("/ws", self._ws)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"ws://127.0.0.1:{port}/ws"
        self.page = f"http://127.0.0.1:{port}/"
        try:
            yield self
        finally:
            for connection in self.connections:
                drop(connection)
            await runner.cleanup()

    def stream(self) -> Stream:
        """The one stream there is."""
        (streams,) = self.sessions.values()
        (stream,) = streams.values()
        return stream

    def frames(self, type: str) -> list[Frame]:
        """What clients sent of one type."""
        return [frame for frame in self.received if frame["type"] == type]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that a client did makes `condition` true."""
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["relay.v1"], compress=False)
        await socket.prepare(request)
        self.connections.append(socket)
        self.changed.set()
        tasks: list[asyncio.Task[None]] = []
        session = ""
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT or self.silent:
                    continue
                frame = json.loads(message.data)
                self.received.append(frame)
                self.changed.set()
                if frame["type"] == "hello":
                    session = frame["session"]
                tasks += await self._handle(socket, session, frame)
        except ConnectionError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            self.changed.set()
        return socket

    async def _handle(
        self, socket: web.WebSocketResponse, session: str, frame: Frame
    ) -> list[asyncio.Task[None]]:
        streams, id = self.sessions[session], frame.get("id", "")
        match frame["type"]:
            case "hello":
                return await self._hello(socket, session, frame)
            case "chat":
                if id not in streams:
                    self.starts += 1
                    streams[id] = Stream(self.script(frame))
                return [self._pump(socket, id, streams[id], -1)]
            case "resume":
                return [self._pump(socket, id, streams[id], frame["after"])]
            case "cancel" if streams[id].records[-1]["type"] != "done":
                streams[id].append(done("cancelled"))
            case "ping":
                await socket.send_json({"type": "pong"})
        return []

    async def _hello(
        self, socket: web.WebSocketResponse, session: str, frame: Frame
    ) -> list[asyncio.Task[None]]:
        if self.hello_closes_with:
            await socket.close(code=self.hello_closes_with)
            return []
        streams = self.sessions[session]
        ready = {"type": "ready", "session": session, "resumed": bool(streams), "features": []}
        ready |= {"protocol": "relay.v1", "providers": OFFERS, "limits": {}}
        await socket.send_json({**ready, "heartbeat": self.heartbeat, "a_field_to_come": 1})
        resume = frame.get("resume", {}).items()
        return [self._pump(socket, id, streams[id], last) for id, last in resume if id in streams]

    def _pump(
        self, socket: web.WebSocketResponse, id: str, stream: Stream, after: int
    ) -> asyncio.Task[None]:
        return asyncio.create_task(self._deliver(socket, id, stream, after + 1))

    async def _deliver(
        self, socket: web.WebSocketResponse, id: str, stream: Stream, seq: int
    ) -> None:
        sent = 0
        while True:
            grown = stream.grown
            frames = [
                {"id": id, "seq": n, **stream.records[n]} for n in range(seq, len(stream.records))
            ]
            seq = len(stream.records)
            for frame in self.mutate(frames):
                if self.cut_every and sent == self.cut_every:
                    return drop(socket)
                await socket.send_json(frame)
                sent += 1
            await grown.wait()


def drop(socket: web.WebSocketResponse) -> None:
    """Cut a connection as a dead network does: no close frame."""
    transport = socket._req.transport if socket._req else None
    if transport is not None:
        transport.abort()
