"""One chat over each transport, as simple clients do it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp

from lab.faults.canon import QUESTION
from lab.faults.seen import ChunkReader, Frame, FrameReader, Seen

_ID = "lab"


class Client(Protocol):
    """One chat. `read` returns when the answer has ended or was cancelled."""

    seen: Seen

    async def read(self) -> Seen:
        """Ask, and read to the end."""
        ...

    async def cancel(self) -> None:
        """Stop the answer as this transport's users do."""
        ...


class WebSocketClient:
    """Reads from `/ws`, on one connection."""

    def __init__(
        self, http: aiohttp.ClientSession, relay: str, route: str, tools: list[Frame]
    ) -> None:
        self.seen = Seen()
        self._http = http
        self._url = f"{relay}/ws"
        self._chat: Frame = {"type": "chat", "id": _ID, "provider": route, "messages": QUESTION}
        if tools:
            self._chat["tools"] = tools
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def read(self) -> Seen:
        """Ask, and read to the end. A final pong shows that nothing follows the terminal frame."""
        self.seen.begin()
        reader = FrameReader(self.seen, _ID)
        async with self._http.ws_connect(
            self._url, protocols=("relay.v1",), max_msg_size=2**24
        ) as self._socket:
            await self._socket.send_json(self._chat)
            while self.seen.terminal is None and (frame := await self._receive()):
                if frame["type"] not in ("ready", "ping", "pong"):
                    reader.take(frame)
            await self._socket.send_json({"type": "ping", "t": "after"})
            while (frame := await self._receive()) and frame["type"] != "pong":
                if frame["type"] != "ping":  # the server may send a heartbeat at any time
                    reader.take(frame)
        return self.seen

    async def _receive(self) -> Frame | None:
        assert self._socket is not None
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.seen.miss(f"the socket closed: {self._socket.close_code}")
            return None
        frame: Frame = json.loads(message.data)
        if frame["type"] == "ping":
            await self._socket.send_json({"type": "pong", "t": frame.get("t")})
        return frame

    async def cancel(self) -> None:
        """Send a `cancel` frame."""
        assert self._socket is not None
        await self._socket.send_json({"type": "cancel", "id": _ID})


class SseClient:
    """Reads from `POST /chat/{provider}`."""

    def __init__(
        self, http: aiohttp.ClientSession, relay: str, route: str, tools: list[Frame]
    ) -> None:
        self.seen = Seen()
        self._http = http
        self._relay = relay
        self._url = f"{relay}/chat/{route}"
        self._body: Frame = {"messages": [{"role": "user", "content": QUESTION}], "id": _ID}
        if tools:
            self._body["tools"] = tools

    async def read(self) -> Seen:
        """Ask, and read to the end."""
        self.seen.begin()
        reader = FrameReader(self.seen, _ID)
        async with self._http.post(self._url, json=self._body) as response:
            if response.status != 200:
                self.seen.miss(f"status {response.status}: {(await response.text())[:200]}")
                return self.seen
            self.seen.stream = response.headers["X-Stream-Id"]
            async for event, id, data in events(response.content):
                frame = json.loads(data)
                if frame["type"] != event or (id and int(id) != frame["seq"]):
                    self.seen.miss(f"event {event} {id} holds {frame['type']} {frame.get('seq')}")
                reader.take(frame)
        return self.seen

    async def cancel(self) -> None:
        """Send `DELETE`: closing the request is no cancel here."""
        async with self._http.delete(f"{self._relay}/streams/{self.seen.stream}") as response:
            if response.status != 204:
                self.seen.miss(f"DELETE was answered with {response.status}")


class ChatCompletionsClient:
    """Reads from `POST /v1/chat/completions`, streamed."""

    def __init__(
        self, http: aiohttp.ClientSession, relay: str, route: str, tools: list[Frame]
    ) -> None:
        self.seen = Seen()
        self._http = http
        self._url = f"{relay}/v1/chat/completions"
        self._body: Frame = {
            "model": route,
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if tools:
            self._body["tools"] = [{"type": "function", "function": tool} for tool in tools]
        self._reading: asyncio.Task[Any] | None = None
        self._cancelled = False

    async def read(self) -> Seen:
        """Ask, and read to the end."""
        self.seen.begin()
        self._reading = asyncio.create_task(self._read())
        try:
            await self._reading
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
        return self.seen

    async def _read(self) -> None:
        reader = ChunkReader(self.seen)
        async with self._http.post(self._url, json=self._body) as response:
            if response.status != 200:
                self.seen.miss(f"status {response.status}: {(await response.text())[:200]}")
                return
            async for _, _, data in events(response.content):
                if data == "[DONE]":
                    reader.done()
                else:
                    reader.take(json.loads(data))

    async def cancel(self) -> None:
        """Close the request, which is enough because this answer can't be resumed."""
        assert self._reading is not None
        self._cancelled = True
        self._reading.cancel()


CLIENTS: dict[str, type[WebSocketClient] | type[SseClient] | type[ChatCompletionsClient]] = {
    "ws": WebSocketClient,
    "sse": SseClient,
    "chat": ChatCompletionsClient,
}


async def events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str, str]]:
    """Server-sent events as (event, id, data). An event that no blank line closed is dropped."""
    fields: dict[str, str] = {}
    async for raw in content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield fields.get("event", ""), fields.get("id", ""), fields["data"]
            fields = {}
        else:
            fields = {}
