"""One WebSocket of a client: sends and receives frames, and detects a dead connection."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from relay.client.answer import Frame
from relay.client.session import NOT_CONNECTED, judge_silence

DEFAULT_HEARTBEAT = 20.0
"""Seconds; used until `ready` states the server's own."""

OPEN_TIMEOUT = 10.0
"""Seconds that connecting may take, including TLS and handshake."""

CLOSE_TIMEOUT = 2.0
"""Seconds that the other side has to answer a close."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""The largest frame that is accepted. Text comes in frames of at most 64 KB; tool calls come
whole."""

_CODE_OF_STATUS = {400: 4400, 401: 4401, 403: 4403, 404: 4406, 426: 4406, 429: 4429}


def websocket_url(url: str) -> str:
    """`url` as a WebSocket address: `http` becomes `ws`, a bare host gets `/ws`. Raises
    `ValueError` if it is not such an address."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    try:
        port = parts.port or 1
    except ValueError:
        port = 0
    if scheme not in ("ws", "wss") or not parts.hostname or not port:
        raise ValueError(f"not a relay's address: {url!r} (for example ws://127.0.0.1:3050/ws)")
    path = "/ws" if parts.path in ("", "/") else parts.path
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def _is_loopback(url: str) -> bool:
    """The same as the relay's `addresses.is_loopback`, which the client must not import."""
    host = (urlsplit(url).hostname or "").removesuffix(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def close_code_of(error: Exception) -> int:
    """The close code for a connection that could not be made."""
    if isinstance(error, InvalidStatus):
        return _CODE_OF_STATUS.get(error.response.status_code, NOT_CONNECTED)
    return NOT_CONNECTED


def refusal_of(response: Response) -> tuple[str, str] | None:
    """The code and the message with which a relay refused a handshake; None if the response is not
    a relay's."""
    try:
        told = json.loads(response.body or b"")["error"]
        return str(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return None


def retry_after_of(response: Response) -> float | None:
    """The seconds of a `Retry-After` header; None if it has none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None


class Socket:
    """An open connection. Await `run`, which returns when it ends; call `send` and `close` at any
    time."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._heartbeat = DEFAULT_HEARTBEAT
        self._heartbeat_changed = asyncio.Event()
        self._websocket = websocket
        self._outbox: deque[Frame | None] = deque()
        self._filled = asyncio.Event()
        self._heard = asyncio.get_running_loop().time()

    @classmethod
    async def open(cls, url: str) -> Socket:
        """Connect. Raises `OSError`, `TimeoutError` or `websockets.InvalidHandshake`."""
        websocket = await connect(
            url,
            subprotocols=[Subprotocol("relay.v1")],
            compression=None,
            proxy=None if _is_loopback(url) else True,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
        )
        return cls(websocket)

    def expect_heartbeat(self, seconds: float) -> None:
        """The server sends at least every `seconds`. After twice as long without a message the
        connection counts as dead."""
        self._heartbeat = seconds
        self._heartbeat_changed.set()

    def send(self, frame: Frame) -> None:
        """Queue a frame to be sent. If the connection broke it is lost; the session sends what
        matters again on the next connection."""
        self._outbox.append(frame)
        self._filled.set()

    def close(self) -> None:
        """Close, after the queued frames were sent."""
        self._outbox.append(None)
        self._filled.set()

    async def run(self, received: Callable[[Frame], None]) -> int:
        """Carry frames until the connection ends; returns its close code."""
        helpers = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        try:
            async for message in self._websocket:
                self._heard = asyncio.get_running_loop().time()
                frame = _decode(message)
                if frame is not None:
                    received(frame)
        except ConnectionClosed:
            pass
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._websocket.transport.abort()
        return self._websocket.close_code or NOT_CONNECTED

    async def _write(self) -> None:
        try:
            while True:
                await self._filled.wait()
                while self._outbox:
                    frame = self._outbox.popleft()
                    if frame is None:
                        return await self._websocket.close()
                    await self._websocket.send(json.dumps(frame, ensure_ascii=False))
                self._filled.clear()
        except ConnectionClosed:
            return None

    async def _watch(self) -> None:
        """One timer a connection, not one a frame. It checks the connection when a heartbeat
        should have arrived."""
        loop = asyncio.get_running_loop()
        while True:
            silent = loop.time() - self._heard
            verdict = judge_silence(silent, self._heartbeat)
            if verdict == "dead":
                return self._websocket.transport.abort()
            if verdict == "ask":
                self.send({"type": "ping"})
            due = (2 if verdict == "ask" else 1) * self._heartbeat - silent
            with suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await self._heartbeat_changed.wait()
            self._heartbeat_changed.clear()


def _decode(message: str | bytes) -> Frame | None:
    try:
        frame = json.loads(message)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) else None
