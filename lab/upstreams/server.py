"""The loopback server: plain asyncio, so that the script controls every byte and every close."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from lab.upstreams.request import Request
from lab.upstreams.scripts import Script, answer
from lab.upstreams.steps import Close, Hang, Pause, Raw, Refuse, Reset, Respond, Step
from lab.upstreams.troubles import reply
from lab.upstreams.wires import WIRES, Wire

_PREFIX = {"openai": "/v1", "anthropic": "", "gemini": ""}
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Upstream:
    """A server that follows `script` for each chat, on any of the wires.

    `split` cuts the body into pieces of that many bytes, each written separately. `models` is the
    answer to a request for the list of models; None for a list of one.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        split: int | None = None,
        models: Refuse | None = None,
    ) -> None:
        self.script: Script = script if script is not None else answer("Hello", " world", ".")
        self.split = split
        self.models = models
        self.requests: list[Request] = []
        self.probes: list[Request] = []
        self.connections = 0
        self._arrival = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._path: str | None = None

    async def __aenter__(self) -> Upstream:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, *, uds: str | None = None, port: int = 0) -> Upstream:
        """Listen on 127.0.0.1 (`port` 0: any free one), or on a Unix socket."""
        self._path = uds
        if uds is not None:
            self._server = await asyncio.start_unix_server(self._accept, uds)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        return self

    async def stop(self) -> None:
        """Close everything, including connections that hang."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """The TCP port."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The bare address; see `base_url` for what the SDKs want."""
        return "http://localhost" if self._path else f"http://127.0.0.1:{self.port}"

    def base_url(self, kind: str) -> str:
        """The base URL in the convention of a kind's SDK (`openai`, `compatible`,
        `anthropic`, `gemini`)."""
        return self.url + _PREFIX.get(kind, "/v1")

    async def request(self, number: int = 0, within: float = 10.0) -> Request:
        """Wait for the chat of that number."""
        async with asyncio.timeout(within), self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            ahead: bytes | None = b""
            while ahead is not None:
                ahead = await self._serve(reader, writer, ahead)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ahead: bytes
    ) -> bytes | None:
        """Serve one request. Returns the bytes of the next one that were read already, None to
        close."""
        raw = ahead + await reader.readuntil(b"\r\n\r\n")
        head = raw.decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        size = int(headers.get("content-length", 0))
        body = json.loads(await reader.readexactly(size) or b"{}")
        vendor = _vendor(path, headers)
        request = Request(len(self.requests), vendor, method, path, headers, body)
        request.arrived = asyncio.get_running_loop().time()
        if method == "GET":
            self.probes.append(request)
            return b"" if await self._list_models(request, writer) else None
        self.requests.append(request)
        async with self._arrival:
            self._arrival.notify_all()
        return await self._answer(request, reader, writer)

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        steps = self.script(request) if callable(self.script) else self.script
        gone = asyncio.ensure_future(reader.read(1))
        played = asyncio.ensure_future(self._play(steps, request, writer))
        try:
            await asyncio.wait((gone, played), return_when=asyncio.FIRST_COMPLETED)
            request.cut_off = not played.done()
            stays = played.done() and played.result()
            ahead = gone.result() if gone.done() else b""
            return ahead if stays and (ahead or not gone.done()) else None
        except ConnectionError:
            request.cut_off = True
            return None
        finally:
            for task in (played, gone):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await played
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await gone
            request.ended = asyncio.get_running_loop().time()
            request.closed.set()

    async def _play(
        self, steps: Sequence[Step], request: Request, writer: asyncio.StreamWriter
    ) -> bool:
        wire = WIRES[request.vendor](f"{request.model}-served", request.body)
        begun = False
        for step in steps:
            match step:
                case Pause(seconds, None):
                    await asyncio.sleep(seconds)
                case Pause(until=event):
                    assert event is not None
                    await event.wait()
                case Hang():
                    await asyncio.Event().wait()
                case Reset():
                    return _reset(writer)
                case Refuse():
                    return await _refuse(request.vendor, step, writer)
                case Respond(status, body, headers):
                    kind = {"content-type": "application/json"}
                    return await _respond(writer, status, kind | headers, body)
                case Close():
                    break
                case _:
                    await self._write(writer, _body(wire, step, begun), head=not begun)
                    begun = True
        writer.write(b"" if begun else _HEAD)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, *, head: bool) -> None:
        if head:
            writer.write(_HEAD)
        size = self.split or len(data) or 1
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if self.split:
                await asyncio.sleep(0)
        await writer.drain()

    async def _list_models(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        if self.models is not None:
            return await _refuse(request.vendor, self.models, writer)
        lists: dict[str, Any] = {
            "openai": {"object": "list", "data": [{"id": "m", "object": "model"}]},
            "anthropic": {"data": [{"id": "m", "type": "model"}], "has_more": False},
            "gemini": {"models": [{"name": "models/m"}]},
        }
        body = json.dumps(lists[request.vendor]).encode()
        return await _respond(writer, 200, {"content-type": "application/json"}, body)


def _body(wire: Wire, step: Any, begun: bool) -> bytes:
    if isinstance(step, Raw):
        return step.data
    return (b"" if begun else wire.opening()) + wire.say(step)


async def _refuse(vendor: str, refusal: Refuse, writer: asyncio.StreamWriter) -> bool:
    return await _respond(writer, *reply(vendor, refusal))


async def _respond(
    writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes
) -> bool:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {v}" for name, v in headers.items())]
    lines.append(f"content-length: {len(body)}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _vendor(path: str, headers: dict[str, str]) -> str:
    if "x-goog-api-key" in headers or "Content" in path:
        return "gemini"
    return "anthropic" if "anthropic-version" in headers else "openai"
