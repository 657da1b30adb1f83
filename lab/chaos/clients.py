"""The clients: each reads one answer to its end, whatever happens meanwhile.

They are written from protocol.md alone, without the relay's own client, so that a mistake shared
by both sides is found.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from lab.chaos.fold import Reading
from lab.chaos.ground import HEARTBEAT, Ground
from lab.chaos.plan import LONG_STALL_SECONDS, STALL_SECONDS, Mishap, Plan
from lab.chaos.story import Story
from lab.chaos.wire import fall_silent, reset

DEADLINE = 90.0
"""Seconds within which every answer has to end."""

SILENCE = 3 * HEARTBEAT
"""Seconds without a byte after which a client treats its connection as dead."""

PASSING = frozenset({"draining", "internal", "too_many_streams"})
"""Error codes after which a client asks again."""

LOST = (OSError, WebSocketException, aiohttp.ClientError, TimeoutError, EOFError)
"""The exceptions of a broken connection."""


class Moved(Exception):
    """The client leaves this connection and makes another one."""


@dataclass(slots=True)
class Outage:
    """The owner of a stream was killed: when, the reader's position at that time, and what
    followed. `own_fault`: the reader itself was not reading meanwhile."""

    at: float
    seq: int
    epoch: int
    own_fault: bool = False
    resumed_ms: float | None = None
    epoch_then: int = 0


class Client(ABC):
    """One reader of one answer. `read` returns when the answer ended or the deadline passed."""

    kind = ""

    def __init__(
        self,
        ground: Ground,
        story: Story,
        plan: Plan,
        dice: random.Random,
        *,
        spawn: Callable[[Client], None] = lambda client: None,
        tried: Callable[[str], None] = lambda what: None,
        begins: int = -1,
    ) -> None:
        self.ground = ground
        self.reading = Reading(story, begins)
        self.since = time.monotonic()
        self.outage: Outage | None = None
        self.connections = 0
        self.refusals: dict[str, int] = {}
        self.cancelled = False
        self.asked = False
        self.stalls = False
        self.home: str | None = None
        self._silent = False
        self._plan = plan
        self._dice = dice
        self._spawn = spawn
        self._tried = tried
        self._frames = 0

    async def read(self) -> None:
        """Read to the end, over as many connections as needed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                while not self.reading.over:
                    await self._try_once()

    async def _try_once(self) -> None:
        node = self.ground.some_node(self._dice)
        if self.home and self.connections == 0:
            node = self.ground.node(self.home)
        self.connections += 1
        self._silent = False
        try:
            await self._connect(node.port)
        except Moved:
            return
        except LOST:
            await asyncio.sleep(self._dice.uniform(0.02, 0.2))

    @abstractmethod
    async def _connect(self, port: int) -> None:
        """Read on one connection, until it or the answer ends."""

    @property
    @abstractmethod
    def _transport(self) -> Any:
        """The connection's transport."""

    def _applied(self, frame: dict[str, Any]) -> None:
        if not self.reading.apply(frame):
            return
        self._frames += 1
        outage = self.outage
        if outage and outage.resumed_ms is None and frame["type"] in ("token", "done"):
            outage.resumed_ms = (time.monotonic() - outage.at) * 1000
            outage.epoch_then = self.ground.epoch(self.reading.stream)

    async def _refused(self, code: str) -> None:
        """An error that is no record: ask again if it is temporary, else the answer ended."""
        self.refusals[code] = self.refusals.get(code, 0) + 1
        if code not in PASSING:
            self.reading.refuse(code)
            return
        await asyncio.sleep(self._dice.uniform(0.1, 0.4))
        raise Moved

    async def _meet(self) -> None:
        """Do what the plan has for this moment."""
        if self.reading.over:
            return
        mishap = self._plan.next_at(self._frames)
        if mishap is not None:
            self._tried(f"{mishap} ({self.kind})")
            await self._suffer(mishap)

    async def _suffer(self, mishap: Mishap) -> None:
        match mishap:
            case "reset":
                reset(self._transport)
                raise Moved
            case "silent":
                self._silent = True
                fall_silent(self._transport)
                raise Moved
            case "close":
                await self._close()
                raise Moved
            case "stall":
                await self._pause(self._dice.choice(STALL_SECONDS))
            case "long stall":
                await self._pause(LONG_STALL_SECONDS)
            case "second" | "second_sse":
                self._join(mishap == "second")
            case "cancel":
                await self._cancel()

    async def _pause(self, seconds: float) -> None:
        """Read nothing for a while, then continue on the same connection if it is still open."""
        self.stalls = True
        if self.outage:
            self.outage.own_fault = True
        try:
            transport = self._transport
            if transport is not None and not transport.is_closing():
                transport.pause_reading()
            await asyncio.sleep(seconds)
            if transport is not None and not transport.is_closing():
                transport.resume_reading()
        finally:
            self.stalls = False

    async def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    @abstractmethod
    async def _cancel(self) -> None:
        """Cancel the answer, for every reader."""

    def _join(self, websocket: bool) -> None:
        """Start a second reader of the same answer, from its beginning or from the current
        record."""
        stream = self.reading.stream
        if stream is None:
            return
        begins = self._dice.choice((-1, self.reading.last))
        kind = Follower if websocket else EventReader
        other = kind(
            self.ground, self.reading.story, Plan(), self._dice, tried=self._tried, begins=begins
        )
        other.reading.stream = stream
        other.since = self.since
        self._spawn(other)


class SocketReader(Client):
    """Reads over WebSocket, in a session of its own."""

    kind = "WebSocket"

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._session = secrets.token_urlsafe(24)
        self._id = f"c{secrets.token_hex(6)}"
        self._websocket: ClientConnection | None = None

    @property
    def _transport(self) -> Any:
        assert self._websocket is not None
        return self._websocket.transport

    async def _connect(self, port: int) -> None:
        self._websocket = await connect(
            f"ws://127.0.0.1:{port}/ws",
            compression=None,
            proxy=None,
            ping_interval=None,
            open_timeout=SILENCE,
            close_timeout=1,
            max_queue=4,
        )
        try:
            await self._send(self._hello())
            for frame in self._wishes():
                await self._send(frame)
            await self._follow()
            await self._websocket.close()
        finally:
            if not self._silent:
                self._websocket.transport.abort()

    def _hello(self) -> dict[str, Any]:
        last = self.reading.last
        resume = {"resume": {self._id: last}} if last >= 0 else {}
        return {"type": "hello", "session": self._session, **resume}

    def _wishes(self) -> list[dict[str, Any]]:
        """The frames to send on a new connection, for what `hello` did not resume."""
        if self.reading.last >= 0:
            return [{"type": "cancel", "id": self._id}] if self.cancelled else []
        self.asked = True
        return [
            {
                "type": "chat",
                "id": self._id,
                "messages": [{"role": "user", "content": self.reading.story.prompt}],
            }
        ]

    async def _send(self, frame: dict[str, Any]) -> None:
        assert self._websocket is not None
        await self._websocket.send(json.dumps(frame))

    async def _follow(self) -> None:
        while not self.reading.over:
            await self._meet()
            frame = await self._receive()
            if "seq" in frame and frame.get("id") == self._id:
                self._applied(frame)
            elif frame["type"] == "error":
                await self._refused(frame["code"])
            elif frame["type"] == "ping":
                await self._send({"type": "pong"})

    async def _receive(self) -> dict[str, Any]:
        assert self._websocket is not None
        async with asyncio.timeout(SILENCE):
            frame: dict[str, Any] = json.loads(await self._websocket.recv())
            return frame

    async def _close(self) -> None:
        assert self._websocket is not None
        await self._websocket.close()

    async def _cancel(self) -> None:
        self.cancelled = True
        await self._send({"type": "cancel", "id": self._id})


class Follower(SocketReader):
    """A second device: attaches by the stream's own name, in a session of its own."""

    kind = "second WebSocket"

    def _hello(self) -> dict[str, Any]:
        return {"type": "hello", "session": self._session}

    def _wishes(self) -> list[dict[str, Any]]:
        stream, after = self.reading.stream, self.reading.last
        return [{"type": "resume", "id": self._id, "stream": stream, "after": after}]


class EventReader(Client):
    """Reads over HTTP, with server-sent events and `Last-Event-ID`."""

    kind = "SSE"

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._wire: Any = None

    @property
    def _transport(self) -> Any:
        return self._wire

    async def _connect(self, port: int) -> None:
        http = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            timeout=aiohttp.ClientTimeout(None, sock_connect=SILENCE, sock_read=SILENCE),
        )
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._ask(http)
            self._wire = response.connection.transport if response.connection else None
            if response.status == 204:
                self.reading.faults.append("204 before the terminal record")
                self.reading.refuse("204")
            elif response.status != 200:
                await self._refused((await response.json())["error"]["code"])
            else:
                self.reading.stream = response.headers["X-Stream-Id"]
                await self._follow(response)
        finally:
            if self._silent:
                self.ground.abandon(http, response)
            else:
                if response is not None:
                    response.close()
                await http.close()

    async def _ask(self, http: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        if self.reading.stream is None:
            self.asked = True
            messages = [{"role": "user", "content": self.reading.story.prompt}]
            return await http.post("/chat/gpt", json={"messages": messages})
        last = self.reading.last
        headers = {"Last-Event-ID": str(last)} if last >= 0 else {}
        return await http.get(f"/streams/{self.reading.stream}", headers=headers)

    async def _follow(self, response: aiohttp.ClientResponse) -> None:
        event_id: str | None = None
        while not self.reading.over:
            line = (await response.content.readline()).decode()
            if not line:
                raise EOFError
            if line.startswith("id:"):
                event_id = line[3:].strip()
            elif line.startswith("data:"):
                await self._took(json.loads(line[5:]), event_id)
                event_id = None
                await self._meet()

    async def _took(self, frame: dict[str, Any], event_id: str | None) -> None:
        if "seq" not in frame:
            await self._refused(frame["code"])
            return
        if str(frame["seq"]) != event_id:
            self.reading.faults.append(f"event id {event_id} on record {frame['seq']}")
        self._applied(frame)

    async def _cancel(self) -> None:
        """Erases the answer too, since over HTTP there is no other cancel; any node can do it."""
        self.cancelled = True
        self.ground.erased.add(self.reading.story.number)
        url = f"{self.ground.some_node(self._dice).url}/streams/{self.reading.stream}"
        async with aiohttp.ClientSession() as http, http.delete(url):
            pass
