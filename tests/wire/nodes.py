"""Nodes of one relay: `server.py` processes on one Redis, and a client that applies the
rules of a stream frame by frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import websockets

from lab.ports import free_port
from lab.redis_process import RedisProcess
from lab.relay_process import RelayProcess
from lab.upstreams.server import Upstream
from lab.waiting import PATIENCE

LEASE = 1.0


class Node(RelayProcess):
    """One relay process that shares a Redis with others."""

    async def health(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/health") as response:
            found: dict[str, Any] = await response.json()
            return found


@asynccontextmanager
async def node(
    upstream: Upstream, redis: RedisProcess, folder: Path, **variables: str
) -> AsyncIterator[Node]:
    """A running node whose provider `gpt` is `upstream`."""
    port = free_port()
    logs = folder / f"node-{port}"
    logs.mkdir()
    environment = {
        "SUPPORTED_PROVIDERS": "gpt",
        "OPENAI_API_KEY": "test-key",
        "OPENAI_BASE_URL": upstream.base_url("openai"),
        "REDIS_URL": redis.url,
        "LEASE_SECONDS": f"{LEASE:g}",
        "HEDGE_AFTER": "0",
        "LOG_DIR": str(logs),
        **variables,
    }
    async with Node(logs, environment, port=port) as made:
        yield made


class Client:
    """One client of one chat, over as many connections as it takes. Holds the rules: what
    comes twice or leaves a hole is a failure, not something to be mended."""

    def __init__(self, session: str = "s" * 22, id: str = "a") -> None:
        self.session = session
        self.id = id
        self.last = -1
        self.text = ""
        self.end: dict[str, Any] | None = None
        self.refusals: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []

    async def chat(self, port: int, **fields: Any) -> websockets.ClientConnection:
        """Connect and send the chat, or send it again."""
        socket = await self._hello(port)
        chat = {"type": "chat", "id": self.id, "messages": "Hello!", **fields}
        await socket.send(json.dumps(chat))
        return socket

    async def resume(self, port: int) -> websockets.ClientConnection:
        """Connect and go on after what was applied."""
        return await self._hello(port, resume={self.id: self.last})

    async def _hello(self, port: int, **fields: Any) -> websockets.ClientConnection:
        socket = await websockets.connect(f"ws://127.0.0.1:{port}/ws")
        await socket.send(json.dumps({"type": "hello", "session": self.session, **fields}))
        return socket

    async def read(
        self, socket: websockets.ClientConnection, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Apply frames until the condition holds or the stream ends."""
        async with asyncio.timeout(PATIENCE):
            while not until() and self.end is None:
                self.apply(json.loads(await socket.recv()))

    def apply(self, frame: dict[str, Any]) -> None:
        if frame.get("id") != self.id:
            return
        self.frames.append(frame)
        if "seq" not in frame:
            self.refusals.append(frame)
            assert frame["type"] == "error"
            self.end = frame
            return
        assert frame.get("first", frame["seq"]) == self.last + 1, f"a hole or a repeat: {frame}"
        self.last = frame["seq"]
        match frame["type"]:
            case "token":
                self.text += frame["text"]
            case "fallback" if not frame["keep"]:
                self.text = ""
            case "done" | "error":
                self.end = frame
