"""The streaming client's connections: kept, used again, given up."""

import asyncio
import socket

import pytest
import uvloop

from lab.waiting import until
from relay.providers.http.client import Client
from relay.providers.http.http1 import Interrupted, Unreachable, endpoint
from tests.wire.scripted import OK, Asked, answered, chunk, opened, upstream


@pytest.fixture(
    params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"]
)
def event_loop_policy(request):
    return request.param()


@pytest.fixture
async def up():
    async with upstream() as made:
        yield made


@pytest.fixture
async def client():
    made = Client()
    yield made
    await made.close()


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


async def test_what_is_sent_leaves_at_once(client, up):
    await answered(client, up)
    sock = client._idle[up.origin][0]._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


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
    response = Asked(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    await peer.say(answer)
    await response.ended()
    await answered(client, up)
    assert up.accepted == 2


async def test_a_response_before_the_whole_request_was_taken_ends_the_connection(client, up):
    asked = Asked(client, up.endpoint, b"x" * 50_000_000)
    peer = await up.peer()
    await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    await asked.ended()
    assert asked.status == 413
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
    asked = Asked(client, up.endpoint)
    await peer.request()
    peer.reset()
    with pytest.raises(Interrupted):
        await asked.ended()
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
    asked = Asked(client, up.endpoint)
    reading = [asyncio.create_task(peer.request()) for peer in peers]
    done, waiting = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    asked.close()
    assert len(done) == 1
    assert up.accepted == 2


@pytest.mark.parametrize("turns", range(8))
async def test_warming_that_is_given_up_as_its_connection_opens_leaves_nothing_open(
    client, up, turns
):
    warming = asyncio.create_task(client.warm(up.origin))
    for _ in range(turns):
        await asyncio.sleep(0)
    warming.cancel()
    await asyncio.wait([warming])
    await client.close()
    if up.accepted:
        await (await up.peer()).gone()


@pytest.mark.parametrize("turns", range(8))
async def test_closing_while_connecting_leaves_nothing_open(client, up, turns):
    asked = Asked(client, up.endpoint)
    for _ in range(turns):
        await asyncio.sleep(0)
    asked.close()
    await until(lambda: not client._opening)
    assert asked.told == []
    if up.accepted:
        await (await up.peer()).gone()
    assert client.idle(up.origin) == 0


async def test_closing_the_client_gives_up_what_is_connecting(client, up):
    asked = Asked(client, up.endpoint)
    await client.close()
    with pytest.raises(Interrupted, match="the connection attempt was cancelled"):
        await asked.ended()


async def test_a_reader_that_has_all_need_not_wait_for_the_end(client, up):
    response, peer = await opened(client, up, lambda body: b"DONE" not in body)
    await peer.say(chunk(b"text"))
    await peer.say(chunk(b"DONE"))
    await response.ended()
    response.close()
    assert client.idle(up.origin) == 0
    await peer.say(chunk(b"more that nobody wants") + b"0\r\n\r\n")
    await until(lambda: client.idle(up.origin) == 1)
    await answered(client, up, peer)
    assert up.accepted == 1


async def test_a_connection_whose_end_does_not_follow_is_not_kept(client, up, monkeypatch):
    monkeypatch.setattr("relay.providers.http.exchange.LINGER", 0.01)
    response, peer = await opened(client, up, lambda body: False)
    await peer.say(chunk(b"DONE"))
    await response.ended()
    assert await peer.gone() == b""
    assert client.idle(up.origin) == 0


async def test_closing_the_client_does_not_wait_for_such_an_end(client, up):
    response, peer = await opened(client, up, lambda body: False)
    await peer.say(chunk(b"DONE"))
    await response.ended()
    await client.close()
    assert await peer.gone() == b""


async def test_a_refused_connection_is_unreachable_and_says_where(client, unused_tcp_port):
    nowhere = endpoint(f"http://127.0.0.1:{unused_tcp_port}/", {})
    with pytest.raises(Unreachable, match=f"127.0.0.1:{unused_tcp_port}"):
        await Asked(client, nowhere).ended()
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
            await Asked(client, endpoint(f"http://127.0.0.1:{address[1]}/", {})).ended()
        await client.close()
        for sock in held:
            sock.close()


async def test_closing_the_client_interrupts_what_is_under_way(client, up):
    asked = Asked(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    await asked.begun()
    idle = await answered(client, up)
    await client.close()
    await client.close()
    with pytest.raises(Interrupted):
        await asked.ended()
    assert await peer.gone() == b""
    assert await idle.gone() == b""
