"""The streaming client on real sockets, on both event loops, in the clear and over TLS."""

import asyncio
import socket
import ssl
import struct
import subprocess
from collections import deque
from contextlib import asynccontextmanager

import pytest
import uvloop

from relay.providers.http1 import (
    Interrupted,
    Malformed,
    Origin,
    TransportError,
    Unreachable,
    Unsupported,
    endpoint,
)
from relay.providers.transport import MAX_ERROR_BODY, Client

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE = 10


@pytest.fixture(
    params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"]
)
def event_loop_policy(request):
    return request.param()


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
        self._known = deque()

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


@pytest.fixture
async def up():
    async with upstream() as made:
        yield made


@pytest.fixture
async def client():
    made = Client()
    yield made
    await made.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def until(condition) -> None:
    """Poll, with a deadline."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


async def opened(client, up, on_body=lambda _: None, body=b"{}"):
    """A response whose head is in, and the peer that is sending it."""
    asked = asyncio.create_task(client.post(up.endpoint, body, on_body))
    peer = await up.peer()
    await peer.request()
    await peer.say(STREAM)
    return await asked, peer


async def answered(client, up, peer=None):
    """One whole exchange, on a new connection or on `peer`'s."""
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = peer or await up.peer()
    await peer.request()
    await peer.say(OK)
    response = await asked
    await response.ended()
    return peer


async def test_the_request_arrives_whole_and_the_body_comes_back_as_it_is_sent(client, up):
    got = []
    asked = asyncio.create_task(client.post(up.endpoint, b'{"a":1}', got.append))
    peer = await up.peer()
    head, body = await peer.request()
    assert head.startswith(b"POST /v1 HTTP/1.1\r\n")
    assert b"x-a: 1\r\n" in head
    assert body == b'{"a":1}'
    await peer.say(STREAM + chunk(b"one"))
    response = await asked
    assert response.status == 200
    await until(lambda: got == [b"one"])
    await peer.say(chunk(b"two") + b"0\r\n\r\n")
    await response.ended()
    assert b"".join(got) == b"onetwo"


async def test_what_one_read_brought_is_one_call(client, up):
    got = []
    response, peer = await opened(client, up, got.append)
    await peer.say(b"".join(chunk(b"x") for _ in range(50)) + b"0\r\n\r\n")
    await response.ended()
    assert got == [b"x" * 50]


async def test_a_large_request_body_arrives_whole(client, up):
    body = bytes(range(256)) * 32_768
    asked = asyncio.create_task(client.post(up.endpoint, body, lambda _: None))
    peer = await up.peer()
    _, arrived = await peer.request()
    assert arrived == body
    await peer.say(OK)
    await (await asked).ended()


async def test_a_connection_is_used_again_after_a_whole_response(client, up):
    peer = await answered(client, up)
    for _ in range(3):
        await answered(client, up, peer)
    assert up.accepted == 1
    assert peer.requests == 4


async def test_streams_at_once_have_a_connection_each_and_leave_them_to_the_next(client, up):
    pairs = [await opened(client, up) for _ in range(3)]
    for response, peer in pairs:
        await peer.say(b"0\r\n\r\n")
        await response.ended()
    assert client.idle(up.origin) == 3
    await answered(client, up, pairs[-1][1])
    assert up.accepted == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        OK + OK,
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["close", "an answer too many", "keep-alive over"],
)
async def test_a_connection_that_may_not_be_used_again_is_not(client, up, answer):
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = await up.peer()
    await peer.request()
    await peer.say(answer)
    await (await asked).ended()
    await answered(client, up)
    assert up.accepted == 2


async def test_a_response_before_the_whole_request_was_taken_ends_the_connection(client, up):
    asked = asyncio.create_task(client.post(up.endpoint, b"x" * 50_000_000, lambda _: None))
    peer = await up.peer()
    await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    response = await asked
    await response.ended()
    assert response.status == 413
    assert client.idle(up.origin) == 0


async def test_an_idle_connection_that_the_server_closed_is_not_used(client, up):
    peer = await answered(client, up)
    peer.hang_up()
    await until(lambda: client.idle(up.origin) == 0)
    await answered(client, up)
    assert up.accepted == 2


async def test_an_end_that_the_event_loop_has_not_seen_yet_is_found_before_writing(client, up):
    await answered(client, up)
    sides = socket.socketpair()
    stale = next(iter(client._idle.values()))[0]
    stale._transport = FakeTransport(sides[0])
    sides[1].close()
    await answered(client, up)
    assert up.accepted == 2
    sides[0].close()


class FakeTransport:
    """A transport whose peer is gone although nobody was told."""

    def __init__(self, sock):
        self._sock = sock

    def get_extra_info(self, name):
        return self._sock

    def is_closing(self):
        return False

    def abort(self):
        pass


async def test_a_reused_connection_that_dies_after_the_write_is_not_tried_again(client, up):
    peer = await answered(client, up)
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    await peer.request()
    peer.reset()
    with pytest.raises(Interrupted):
        await asked
    assert up.accepted == 1


async def test_unasked_bytes_close_an_idle_connection(client, up):
    peer = await answered(client, up)
    await peer.say(OK)
    assert await peer.gone() == b""
    assert client.idle(up.origin) == 0


async def test_unused_connections_are_closed_when_their_time_is_over(up):
    client = Client(idle_limit=0.01)
    peer = await answered(client, up)
    await peer.gone()
    await until(lambda: client.idle(up.origin) == 0)
    await client.close()


async def test_no_more_than_the_limit_of_unused_connections_are_kept(up):
    client = Client(max_idle=1)
    pairs = [await opened(client, up) for _ in range(2)]
    for response, peer in pairs:
        await peer.say(b"0\r\n\r\n")
        await response.ended()
    assert client.idle(up.origin) == 1
    await client.close()


async def test_warm_connections_are_there_before_the_first_request(client, up):
    await client.warm(up.origin, 2)
    assert client.idle(up.origin) == 2
    await client.warm(up.origin, 2)
    peers = [await up.peer(), await up.peer()]
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    reading = [asyncio.create_task(peer.request()) for peer in peers]
    done, waiting = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    for task in (asked, *waiting):
        task.cancel()
    assert len(done) == 1
    assert up.accepted == 2


async def test_a_reset_before_the_head_is_an_interruption(client, up):
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = await up.peer()
    await peer.request()
    peer.reset()
    with pytest.raises(Interrupted, match="before a response"):
        await asked


@pytest.mark.parametrize("how", ["reset", "hang_up"])
async def test_a_connection_lost_in_the_middle_of_the_body_is_an_interruption(client, up, how):
    got = []
    response, peer = await opened(client, up, got.append)
    await peer.say(chunk(b"half"))
    await until(lambda: got)
    getattr(peer, how)()
    with pytest.raises(Interrupted, match="in the middle"):
        await response.ended()
    assert got == [b"half"]


async def test_a_body_without_framing_is_whole_when_the_connection_ends(client, up):
    got = []
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", got.append))
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nall")
    response = await asked
    await until(lambda: got == [b"all"])
    peer.hang_up()
    await response.ended()


async def test_interim_responses_are_passed_over(client, up):
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    response = await asked
    await response.ended()
    assert response.status == 200


async def test_an_error_body_is_collected_and_not_streamed(client, up):
    got = []
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", got.append))
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 429 No\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nslow")
    response = await asked
    await response.ended()
    assert (response.status, response.content, got) == (429, b"slow", [])
    assert response.headers["retry-after"] == "2"
    assert client.idle(up.origin) == 1


async def refused(client, up, size, body):
    """A 500 that claims `size` bytes of body and sends `body` of it."""
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % size)
    await peer.say(body)
    response = await asked
    await response.ended()
    return response, peer


async def test_an_error_body_as_long_as_the_limit_is_kept_whole(client, up):
    body = bytes(range(256)) * (MAX_ERROR_BODY // 256)
    response, _ = await refused(client, up, MAX_ERROR_BODY, body)
    assert response.content == body


async def test_an_error_body_beyond_the_limit_is_cut_and_not_waited_for(client, up):
    response, peer = await refused(client, up, MAX_ERROR_BODY * 2, b"x" * (MAX_ERROR_BODY + 1))
    assert response.content == b"x" * MAX_ERROR_BODY
    await peer.gone()
    assert client.idle(up.origin) == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nx", Unsupported),
        (b"HTTP/1.1 308 Moved\r\nLocation: /v2\r\nContent-Length: 0\r\n\r\n", Unsupported),
        (b"220 mail.example ESMTP\r\n", Malformed),
    ],
    ids=["compressed", "redirect", "not HTTP"],
)
async def test_an_answer_that_cannot_be_read_here_raises_and_closes(client, up, answer, error):
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = await up.peer()
    await peer.request()
    await peer.say(answer)
    with pytest.raises(error):
        await asked
    await peer.gone()


async def test_cancelling_before_the_head_closes_the_upstream(client, up):
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = await up.peer()
    await peer.request()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await peer.gone() == b""


async def test_cancelling_in_the_middle_of_the_body_closes_the_upstream(client, up):
    got = []
    response, peer = await opened(client, up, got.append)
    await peer.say(chunk(b"half"))
    await until(lambda: got)
    ended = asyncio.create_task(response.ended())
    await asyncio.sleep(0)
    ended.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended
    assert await peer.gone() == b""
    assert client.idle(up.origin) == 0


async def test_cancelling_while_connecting_leaves_nothing_open(client, up):
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    if up.accepted:
        assert await (await up.peer()).gone() == b""


async def test_nothing_is_delivered_after_close(client, up):
    got = []
    response, peer = await opened(client, up, got.append)
    response.close()
    response.close()
    with pytest.raises(Interrupted, match="by its reader"):
        await response.ended()
    assert await peer.gone() == b""
    assert got == []


async def test_a_reader_may_close_from_within_its_callback(client, up):
    got = []

    def once(body):
        got.append(body)
        response.close()

    response, peer = await opened(client, up, once)
    await peer.say(chunk(b"a"))
    with pytest.raises(Interrupted):
        await response.ended()
    await peer.gone()
    assert got == [b"a"]


async def test_what_the_callback_raises_closes_the_upstream_and_comes_out_at_the_end(client, up):
    def choke(body):
        raise ZeroDivisionError(body)

    response, peer = await opened(client, up, choke)
    await peer.say(chunk(b"a"))
    with pytest.raises(ZeroDivisionError):
        await response.ended()
    assert await peer.gone() == b""


async def test_a_refused_connection_is_unreachable_and_says_where(client, unused_tcp_port):
    nowhere = endpoint(f"http://127.0.0.1:{unused_tcp_port}/", {})
    with pytest.raises(Unreachable, match=f"127.0.0.1:{unused_tcp_port}"):
        await client.post(nowhere, b"{}", lambda _: None)
    with pytest.raises(Unreachable):
        await client.warm(nowhere.origin, 2)


async def test_a_connection_that_takes_too_long_is_unreachable():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        held = [socket.socket() for _ in range(3)]
        for sock in held:  # fills the queue of connections that nobody accepts
            sock.setblocking(False)
            sock.connect_ex(address)
        client = Client(connect_timeout=0.05)
        with pytest.raises(Unreachable, match=r"within 0\.05 s"):
            await client.post(endpoint(f"http://127.0.0.1:{address[1]}/", {}), b"", print)
        await client.close()
        for sock in held:
            sock.close()


async def test_closing_the_client_interrupts_what_is_under_way(client, up):
    asked = asyncio.create_task(client.post(up.endpoint, b"{}", lambda _: None))
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    response = await asked
    idle = await answered(client, up)
    await client.close()
    await client.close()
    with pytest.raises(Interrupted):
        await response.ended()
    assert await peer.gone() == b""
    assert await idle.gone() == b""


async def test_a_unix_socket_is_used_whatever_the_host(tmp_path):
    made = Upstream()
    path = str(tmp_path / "engine.sock")
    server = await asyncio.start_unix_server(made.accept, path)
    client = Client(uds=path)
    await answered(client, made)
    assert made.accepted == 1
    await client.close()
    server.close()
    made.hang_up()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    where = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), check=True, capture_output=True, cwd=where)
    return where


@pytest.fixture
def server_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


async def test_tls_streams_reuses_and_closes_as_in_the_clear(certificate, server_tls):
    trust = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    async with upstream(server_tls) as up:
        client = Client(tls=trust)
        peer = await answered(client, up)
        await answered(client, up, peer)
        got = []
        asked = asyncio.create_task(client.post(up.endpoint, b"{}", got.append))
        await peer.request()
        await peer.say(STREAM + chunk(b"half"))
        response = await asked
        await until(lambda: got == [b"half"])
        ended = asyncio.create_task(response.ended())
        await asyncio.sleep(0)
        ended.cancel()
        assert await peer.gone() == b""
        assert up.accepted == 1
        await client.close()


async def test_a_certificate_that_is_not_trusted_is_unreachable(server_tls):
    async with upstream(server_tls) as up:
        client = Client()
        with pytest.raises(Unreachable):
            await client.post(up.endpoint, b"{}", lambda _: None)
        await client.close()


async def test_every_refusal_is_a_transport_error():
    for error in (Unreachable, Interrupted, Malformed, Unsupported):
        assert issubclass(error, TransportError)
