"""A loopback server whose every byte the test decides, and requests made to it."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

from lab.waiting import until
from relay.providers.http.http1 import Origin, endpoint

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE = 10


class Peer:
    """One accepted connection, driven by the test."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self.requests = 0

    async def request(self) -> tuple[bytes, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests += 1
        return head, await self._reader.readexactly(size)

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> bytes:
        """Wait until the other side has closed; what it still said."""
        try:
            return await asyncio.wait_for(self._reader.read(), PATIENCE)
        except ConnectionError:
            return b""

    def hang_up(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Upstream:
    """A loopback server that hands its connections to the test, in the order they came."""

    def __init__(self, scheme="http"):
        self.scheme = scheme
        self.accepted = 0
        self.port = 0
        self._peers = asyncio.Queue()
        self._known = []

    async def accept(self, reader, writer):
        self.accepted += 1
        peer = Peer(reader, writer)
        self._known.append(peer)
        self._peers.put_nowait(peer)

    async def peer(self) -> Peer:
        return await asyncio.wait_for(self._peers.get(), PATIENCE)

    @property
    def endpoint(self):
        return endpoint(f"{self.scheme}://localhost:{self.port}/v1", {"x-a": "1"})

    @property
    def origin(self) -> Origin:
        return self.endpoint.origin

    def hang_up(self):
        for peer in self._known:
            peer.hang_up()


@asynccontextmanager
async def upstream(tls=None):
    made = Upstream("https" if tls else "http")
    server = await asyncio.start_server(made.accept, "localhost", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    for extra in server.sockets[1:]:
        extra.close()
    try:
        yield made
    finally:
        server.close()
        made.hang_up()


def more(body: bytes) -> bool:
    return True


def all_of(got: list[bytes]):
    def on_body(body: bytes) -> bool:
        got.append(body)
        return True

    return on_body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Asked:
    """One request, made at once, and its response as a test awaits it."""

    def __init__(self, client, endpoint, body=b"{}", take=more):
        self.take = take
        self.told = []
        self._response = client.post(endpoint, body, self)

    def __getattr__(self, name):
        return getattr(self._response, name)

    def over(self, response, error):
        assert response is self._response
        self.told.append(error)

    async def begun(self):
        """Wait for the head."""
        await until(lambda: self._response.status or self.told)
        if self.told and self.told[0] is not None and not self._response.status:
            raise self.told[0]
        return self

    async def ended(self):
        """Wait for the end."""
        await until(lambda: self.told)
        if self.told[0] is not None:
            raise self.told[0]


async def opened(client, up, take=more, body=b"{}"):
    """A response whose head is in, and the peer that is sending it."""
    asked = Asked(client, up.endpoint, body, take)
    peer = await up.peer()
    await peer.request()
    await peer.say(STREAM)
    return await asked.begun(), peer


async def answered(client, up, peer=None):
    """One whole exchange, on a new connection or on `peer`'s."""
    asked = Asked(client, up.endpoint)
    peer = peer or await up.peer()
    await peer.request()
    await peer.say(OK)
    await asked.ended()
    return peer
