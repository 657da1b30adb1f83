"""What aiohttp refuses below every handler is told in JSON too, and repeats nothing of what was
sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from relay.access.guard import SECURITY_HEADERS, SERVER
from relay.edges.http_server import MAX_HEADER, MAX_URL
from tests.wire.http_relay import DONE, HttpRelay, RawClient, client, serving

SECRET = "sk-secret-0123456789abcdef"
HOST = "Host: localhost"
GOOD = f"GET /v1/models HTTP/1.1\r\n{HOST}\r\n\r\n".encode()


@pytest.fixture
async def relay() -> AsyncIterator[HttpRelay]:
    async with serving() as served:
        served.dispatcher.on_start = lambda writer: writer.append([DONE])
        yield served


def post(*headers: str, body: str = "{}") -> str:
    head = ["POST /chat/gpt HTTP/1.1", HOST, f"X-Key: {SECRET}", *headers]
    return "\r\n".join(head) + "\r\n\r\n" + body


UNREADABLE = {
    "no HTTP": f"{SECRET}\r\n\r\n",
    "no method": f"{SECRET} / HTTP/1.1\r\n{HOST}\r\n\r\n",
    "another version": f"GET /{SECRET} HTTP/3.0\r\n{HOST}\r\n\r\n",
    "a version of letters": f"GET / {SECRET}\r\n{HOST}\r\n\r\n",
    "HTTP/2 without a negotiation": f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SECRET}",
    "TLS": "\x16\x03\x01\x00\xa5\x01\x00\x00" + SECRET,
    "a URL with a blank": f"GET /a {SECRET} HTTP/1.1\r\n{HOST}\r\n\r\n",
    "a URL that is none": f"GET {SECRET} HTTP/1.1\r\n{HOST}\r\n\r\n",
    "a URL without a host": f"GET http://?{SECRET} HTTP/1.1\r\n{HOST}\r\n\r\n",
    "no host": f"GET /{SECRET} HTTP/1.1\r\n\r\n",
    "two hosts": post(HOST),
    "a header without a colon": post(SECRET),
    "a header with a blank in its name": post(f"X {SECRET}: y"),
    "a header without a name": post(f": {SECRET}"),
    "a header with a zero": post(f"X-Y: {SECRET}\0"),
    "a line that is folded": post(f"X-Y: a\r\n {SECRET}"),
    "a length that is no number": post(f"Content-Length: {SECRET}"),
    "a length below zero": post("Content-Length: -1"),
    "a length with a sign": post("Content-Length: +2"),
    "a length beyond all": post("Content-Length: 99999999999999999999999"),
    "two lengths": post("Content-Length: 2", "Content-Length: 3"),
    "two lengths in one": post("Content-Length: 2, 3"),
    "a length and chunks": post("Content-Length: 2", "Transfer-Encoding: chunked"),
    "an encoding nobody knows": post(f"Transfer-Encoding: {SECRET}"),
    "chunks encoded once more": post("Transfer-Encoding: chunked, gzip"),
    "too many headers": post(*(f"X-{n}: {n}" for n in range(200))),
}


def told(sender: RawClient, body: bytes) -> dict[str, str]:
    """The error of a response, after what holds for each of them."""
    assert sender.headers["content-type"].startswith("application/json")
    assert sender.headers["server"] == SERVER
    for name, value in SECURITY_HEADERS.items():
        assert sender.headers[name.lower()] == value
    assert SECRET.encode() not in body
    assert SECRET not in str(sender.headers)
    error = json.loads(body)["error"]
    assert error.keys() == {"code", "message"}
    return error


@pytest.mark.parametrize("request_", UNREADABLE.values(), ids=UNREADABLE)
async def test_what_is_no_http_is_told_in_json(relay: HttpRelay, request_: str) -> None:
    async with client(relay) as sender:
        sender.writer.write(request_.encode("latin-1"))
        await sender.head()
        error = told(sender, await sender.body())
        assert (sender.status, error["code"]) == (400, "bad_request")
        assert await sender.reader.read() == b""  # what follows can't be told from the next
    assert relay.dispatcher.requests == []


async def dribble(sender: RawClient, data: bytes) -> None:
    for byte in data:
        sender.writer.write(bytes([byte]))
        await asyncio.sleep(0.001)  # a segment of its own


async def test_so_it_is_behind_a_good_request_and_a_byte_at_a_time(relay: HttpRelay) -> None:
    async with client(relay) as sender:
        await dribble(sender, GOOD)
        assert await sender.head() == 200
        await sender.body()
        await dribble(sender, b"GET / HTTP/1.1\r\nno ")  # the last byte is the wrong one
        assert await sender.head() == 400
        told(sender, await sender.body())


async def test_a_url_of_the_limit_is_looked_up_and_a_longer_one_is_414(relay: HttpRelay) -> None:
    for size, status in [(MAX_URL, 404), (MAX_URL + 1, 414), (MAX_URL * 4, 414)]:
        async with client(relay) as sender:
            path = "/" + SECRET + "x" * (size - len(SECRET) - 1)
            sender.send("GET", path)
            assert await sender.head() == status
            body = await sender.body()
        assert SECRET.encode() not in body
    assert told(sender, body) == {
        "code": "too_large",
        "message": f"the URL is longer than {MAX_URL} bytes",
    }


async def test_a_header_of_the_limit_passes_and_a_longer_one_is_431(relay: HttpRelay) -> None:
    for size, status in [(MAX_HEADER, 200), (MAX_HEADER * 2, 431), (MAX_HEADER * 9, 431)]:
        for name, value in [("X-K", SECRET), (SECRET, "y")]:
            filling = "x" * (size - len(name) - len(value))
            async with client(relay) as sender:
                sender.send("GET", "/v1/models", headers={name: value + filling})
                assert await sender.head() == status
                body = await sender.body()
    assert told(sender, body) == {
        "code": "too_large",
        "message": f"a header is longer than {MAX_HEADER} bytes",
    }


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/chat/gpt", {"code", "message"}), ("/v1/models", {"message", "type", "param", "code"})],
)
async def test_an_expectation_that_nobody_knows_is_417_in_the_paths_shape(
    relay: HttpRelay, path: str, fields: set[str]
) -> None:
    async with client(relay) as sender:
        body = await sender.ask("POST", path, "hi", {"Expect": SECRET})
        assert sender.status == 417
        assert json.loads(body)["error"].keys() == fields
        assert SECRET.encode() not in body
        assert sender.headers["content-type"].startswith("application/json")


NO_CHUNKS = [f"{SECRET}\r\n", "-1\r\n", "2\r\nhi!\r\n", "ffffffffffffffffff\r\n"]


def chunked(path: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", HOST, "Transfer-Encoding: chunked"]
    return ("\r\n".join(head) + "\r\n\r\n").encode()


@pytest.mark.parametrize("path", ["/chat/gpt", "/v1/chat/completions"])
@pytest.mark.parametrize("chunks", NO_CHUNKS)
async def test_chunks_that_are_none_are_400_at_once_in_the_paths_shape(
    relay: HttpRelay, path: str, chunks: str
) -> None:
    async with client(relay) as sender:
        sender.writer.write(chunked(path) + b"2\r\n{}\r\n")
        await asyncio.sleep(0.05)  # the handler waits for the rest
        sender.writer.write(chunks.encode())
        assert await sender.head() == 400
        body = await sender.body()
        assert ("type" in json.loads(body)["error"]) == path.startswith("/v1")
        assert SECRET.encode() not in body
        assert await sender.reader.read() == b""
    assert relay.dispatcher.requests == []


@pytest.mark.parametrize("chunks", NO_CHUNKS)
async def test_chunks_that_come_with_the_head_are_400_too(relay: HttpRelay, chunks: str) -> None:
    async with client(relay) as sender:
        sender.writer.write(chunked("/chat/gpt") + chunks.encode())
        assert await sender.head() == 400
        told(sender, await sender.body())
        assert await sender.reader.read() == b""


async def test_requests_in_one_packet_are_each_answered(relay: HttpRelay) -> None:
    async with client(relay) as sender:
        body = b'{"messages": "hi"}'
        chat = chunked("/chat/gpt") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        sender.writer.write((GOOD + chat) * 3)
        for _ in range(3):
            assert await sender.head() == 200
            await sender.body()
            assert await sender.head() == 200
            assert b"event: done" in await sender.body()


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PATCH", "PROPFIND"])
async def test_other_methods_are_405_or_404_in_json(relay: HttpRelay, method: str) -> None:
    async with client(relay) as sender:
        target = "localhost:80" if method == "CONNECT" else "/chat/gpt"
        sender.send(method, target, b"", {"X-Key": SECRET})
        status = await sender.head()
        body = await sender.body()
    assert status in (404, 405)
    assert json.loads(body)["error"]["code"] == "bad_request"
    assert SECRET.encode() not in body
