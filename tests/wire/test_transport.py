"""One streamed response on real sockets, on both event loops, in the clear and over TLS."""

import asyncio
import ssl
import subprocess

import pytest
import uvloop

from lab.waiting import until
from relay.providers.http.client import Client
from relay.providers.http.exchange import MAX_ERROR_BODY
from relay.providers.http.http1 import (
    Interrupted,
    Malformed,
    TransportError,
    Unreachable,
    Unsupported,
)
from tests.wire.scripted import (
    OK,
    STREAM,
    Asked,
    Upstream,
    all_of,
    answered,
    chunk,
    opened,
    upstream,
)


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


async def test_the_request_arrives_whole_and_the_body_comes_back_as_it_is_sent(client, up):
    got = []
    response = Asked(client, up.endpoint, b'{"a":1}', all_of(got))
    peer = await up.peer()
    head, body = await peer.request()
    assert head.startswith(b"POST /v1 HTTP/1.1\r\n")
    assert b"x-a: 1\r\n" in head
    assert body == b'{"a":1}'
    await peer.say(STREAM + chunk(b"one"))
    await response.begun()
    assert response.status == 200
    await until(lambda: got == [b"one"])
    await peer.say(chunk(b"two") + b"0\r\n\r\n")
    await response.ended()
    assert b"".join(got) == b"onetwo"


async def test_what_one_read_brought_is_one_call(client, up):
    got = []
    response, peer = await opened(client, up, all_of(got))
    await peer.say(b"".join(chunk(b"x") for _ in range(50)) + b"0\r\n\r\n")
    await response.ended()
    assert got == [b"x" * 50]


async def test_a_large_request_body_arrives_whole(client, up):
    body = bytes(range(256)) * 32_768
    asked = Asked(client, up.endpoint, body)
    peer = await up.peer()
    _, arrived = await peer.request()
    assert arrived == body
    await peer.say(OK)
    await asked.ended()


async def test_a_reset_before_the_head_is_an_interruption(client, up):
    asked = Asked(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    peer.reset()
    with pytest.raises(Interrupted, match="before a response"):
        await asked.ended()


@pytest.mark.parametrize("how", ["reset", "hang_up"])
async def test_a_connection_lost_in_the_middle_of_the_body_is_an_interruption(client, up, how):
    got = []
    response, peer = await opened(client, up, all_of(got))
    await peer.say(chunk(b"half"))
    await until(lambda: got)
    getattr(peer, how)()
    with pytest.raises(Interrupted, match="in the middle"):
        await response.ended()
    assert got == [b"half"]


async def test_a_body_without_framing_is_whole_when_the_connection_ends(client, up):
    got = []
    asked = Asked(client, up.endpoint, b"{}", all_of(got))
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nall")
    await asked.begun()
    await until(lambda: got == [b"all"])
    peer.hang_up()
    await asked.ended()


async def test_interim_responses_are_passed_over(client, up):
    asked = Asked(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    await asked.ended()
    assert asked.status == 200


async def test_an_error_body_is_collected_and_not_streamed(client, up):
    got = []
    response = Asked(client, up.endpoint, b"{}", all_of(got))
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 429 No\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nslow")
    await response.ended()
    assert (response.status, response.content, got) == (429, b"slow", [])
    assert response.headers["retry-after"] == "2"
    assert client.idle(up.origin) == 1


async def refused(client, up, size, body):
    """A 500 that claims `size` bytes of body and sends `body` of it."""
    response = Asked(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    await peer.say(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % size)
    await peer.say(body)
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
    asked = Asked(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    await peer.say(answer)
    with pytest.raises(error):
        await asked.ended()
    await peer.gone()


async def test_closing_before_the_head_closes_the_upstream(client, up):
    asked = Asked(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    asked.close()
    assert await peer.gone() == b""
    assert asked.told == []


async def test_closing_in_the_middle_of_the_body_closes_the_upstream(client, up):
    got = []
    response, peer = await opened(client, up, all_of(got))
    await peer.say(chunk(b"half"))
    await until(lambda: got)
    response.close()
    assert await peer.gone() == b""
    assert client.idle(up.origin) == 0
    assert response.told == []


async def test_nothing_is_delivered_after_close(client, up):
    got = []
    response, peer = await opened(client, up, all_of(got))
    response.close()
    response.close()
    await peer.say(chunk(b"unheard"))
    assert await peer.gone() == b""
    assert (got, response.told) == ([], [])


@pytest.mark.parametrize("last", [b"", b"0\r\n\r\n"], ids=["in the middle", "at the end"])
async def test_a_reader_may_close_from_within_its_callback(client, up, last):
    got = []

    def once(body):
        got.append(body)
        response.close()
        return True

    response, peer = await opened(client, up, once)
    await peer.say(chunk(b"a") + last)
    await until(lambda: got)
    await asyncio.sleep(0)
    assert (got, response.told) == ([b"a"], [])
    if last:
        await answered(client, up, peer)
    else:
        assert await peer.gone() == b""


async def test_a_reader_may_ask_again_from_within_its_end(client, up):
    again = []

    class Asking(Asked):
        def over(self, response, error):
            super().over(response, error)
            again.append(Asked(client, up.endpoint))

    asked = Asking(client, up.endpoint)
    peer = await up.peer()
    await peer.request()
    await peer.say(OK)
    await asked.ended()
    await peer.request()
    await peer.say(OK)
    await again[0].ended()
    assert up.accepted == 1


async def test_what_the_callback_raises_closes_the_upstream_and_comes_out_at_the_end(client, up):
    def choke(body):
        raise ZeroDivisionError(body)

    response, peer = await opened(client, up, choke)
    await peer.say(chunk(b"a"))
    with pytest.raises(ZeroDivisionError):
        await response.ended()
    assert await peer.gone() == b""


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
        asked = Asked(client, up.endpoint, b"{}", all_of(got))
        await peer.request()
        await peer.say(STREAM + chunk(b"half"))
        await until(lambda: got == [b"half"])
        asked.close()
        assert await peer.gone() == b""
        assert up.accepted == 1
        await client.close()


async def test_a_certificate_that_is_not_trusted_is_unreachable(server_tls):
    async with upstream(server_tls) as up:
        client = Client()
        with pytest.raises(Unreachable):
            await Asked(client, up.endpoint).ended()
        await client.close()


async def test_every_refusal_is_a_transport_error():
    for error in (Unreachable, Interrupted, Malformed, Unsupported):
        assert issubclass(error, TransportError)
