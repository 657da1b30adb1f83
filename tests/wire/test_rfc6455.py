"""RFC 6455 on the wire, a byte at a time too: what breaks a rule is closed with the rule's
code, and what keeps them all is served."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from lab.waiting import until
from relay.edges.relay_v1.service import SocketLimits
from tests.by_default import by_default
from tests.wire.http_relay import RawClient
from tests.wire.socket_relay import RawSocket, SocketRelay, masked, says, serving

PING = b'{"type":"ping","t":7}'
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


@pytest.fixture
async def relay() -> AsyncIterator[SocketRelay]:
    async with serving(
        says("Hel", "lo"), limits=by_default(SocketLimits, max_frame_bytes=100_000)
    ) as served:
        yield served


def closing(code: int, reason: bytes = b"") -> bytes:
    return masked(0x88, code.to_bytes(2, "big") + reason)


def unmasked(first: int, payload: bytes) -> bytes:
    return bytes([first, len(payload)]) + payload


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """First byte and payload of each of a server's frames, none of which may be masked."""
    found = []
    while data:
        assert not data[1] & 0x80
        start, length = 2, data[1]
        if length == 126:
            start, length = 4, int.from_bytes(data[2:4], "big")
        assert data[1] < 127
        found.append((data[0], data[start : start + length]))
        data = data[start + length :]
    return found


async def sent(relay: SocketRelay, data: bytes, step: int = 1 << 20) -> list[tuple[int, bytes]]:
    """What the server says to `data`, sent in pieces of `step` bytes, until it closes."""
    raw = await RawSocket.connect(relay)
    with suppress(ConnectionError):  # the server does not wait for the rest of a bad frame
        for at in range(0, len(data), step):
            await raw.send(data[at : at + step])
            if step < len(data):
                await asyncio.sleep(0.001)  # a segment of its own
    frames = frames_of(await raw.rest())
    raw.close()
    return frames


def code_of(frames: list[tuple[int, bytes]]) -> int:
    """The code of the close frame, which is the last one and the only one."""
    assert [first for first, _ in frames].index(0x88) == len(frames) - 1, frames
    return int.from_bytes(frames[-1][1][:2], "big")


# Frames

REFUSED = {
    "text without a mask": (unmasked(0x81, PING), 1002),
    "binary without a mask": (unmasked(0x82, b"x"), 1002),
    "an empty frame without a mask": (unmasked(0x81, b""), 1002),
    "a long frame without a mask": (b"\x81\x7e\x01\x00" + b" " * 256, 1002),
    "a very long frame without a mask": (b"\x81\x7f" + (1 << 40).to_bytes(8, "big"), 1002),
    "a ping without a mask": (unmasked(0x89, b"x"), 1002),
    "a pong without a mask": (unmasked(0x8A, b""), 1002),
    "a close without a mask": (unmasked(0x88, b"\x03\xe8"), 1002),
    "a continuation without a mask": (masked(0x01, b'{"type":') + unmasked(0x80, b"}"), 1002),
    "the first reserved bit": (masked(0xC1, PING), 1002),
    "the second reserved bit": (masked(0xA1, PING), 1002),
    "the third reserved bit": (masked(0x91, PING), 1002),
    "a reserved bit of a ping": (masked(0xC9, b""), 1002),
    **{f"opcode {code}": (masked(0x80 | code, b""), 1002) for code in (3, 4, 5, 6, 7)},
    **{f"opcode {code}": (masked(0x80 | code, b""), 1002) for code in range(11, 16)},
    "a fragmented ping": (masked(0x09, b"x") + masked(0x80, b"y"), 1002),
    "a fragmented close": (masked(0x08, b"\x03\xe8"), 1002),
    "a ping of 126 bytes": (masked(0x89, b"x" * 126), 1002),
    "a close of 126 bytes": (closing(1000, b"x" * 124), 1002),
    "a continuation of nothing": (masked(0x80, PING), 1002),
    "a continuation of nothing, unfinished": (masked(0x00, PING), 1002),
    "a message within a message": (masked(0x01, b'{"type"') + masked(0x81, PING), 1002),
    "a message within an empty one": (masked(0x01, b"") + masked(0x81, PING), 1002),
    "binary within a message": (masked(0x01, b"") + masked(0x82, b"x"), 1002),
    "a beginning within a message": (masked(0x01, b"") + masked(0x01, PING), 1002),
    "text that is not UTF-8": (masked(0x81, b"\xff"), 1007),
    "text that ends within a character": (masked(0x81, b"\xe2\x82"), 1007),
    "half a pair of surrogates": (masked(0x81, b"\xed\xa0\x80"), 1007),
    "fragments that are not UTF-8": (masked(0x01, b"\xe2\x82") + masked(0x80, b"x"), 1007),
    "a close of one byte": (masked(0x88, b"\x03"), 1002),
    "a close whose reason is not UTF-8": (closing(1000, b"\xff"), 1007),
    "a message beyond the limit": (b"\x81\xff" + (1 << 40).to_bytes(8, "big"), 1009),
}


@pytest.mark.parametrize("step", [1 << 20, 1], ids=["at once", "a byte at a time"])
@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_frame_that_breaks_a_rule_is_closed_with_its_code(
    relay: SocketRelay, data: bytes, code: int, step: int
) -> None:
    frames = await sent(relay, data, step)
    assert code_of(frames) == code
    assert len(frames) == 1  # nothing of it was taken
    await until(lambda: relay.told.closed == [code])


@pytest.mark.parametrize("step", [1 << 20, 3, 1])
async def test_what_comes_before_a_broken_frame_is_taken_first(
    relay: SocketRelay, step: int
) -> None:
    chat = b'{"type":"chat","id":"a","messages":"hi"}'
    frames = await sent(relay, masked(0x89, b"one") + masked(0x81, chat) + b"\x81\x01x", step)
    assert frames[0] == (0x8A, b"one")
    assert code_of(frames) == 1002
    await until(lambda: len(relay.provider.calls) == 1)


async def test_so_it_is_when_more_waits_than_is_read_at_once(relay: SocketRelay) -> None:
    count = 5_000
    frames = await sent(relay, masked(0x89, b"x" * 120) * count + unmasked(0x89, b""))
    assert [first for first, _ in frames[:-1]] == [0x8A] * count
    assert code_of(frames) == 1002


@pytest.mark.parametrize("step", [1 << 20, 1])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 300])
async def test_a_message_in_fragments_with_pings_between_is_whole(
    relay: SocketRelay, size: int, step: int
) -> None:
    text = PING + b" " * size
    for cut in (0, 1, len(text) // 2, len(text)):
        data = masked(0x01, text[:cut]) + masked(0x89, b"?") + masked(0x00, b"")
        data += masked(0x8A, b"") + masked(0x80, text[cut:]) + closing(1000)
        frames = await sent(relay, data, step)
        assert [first for first, _ in frames] == [0x8A, 0x81, 0x81, 0x88]
        assert json.loads(frames[2][1]) == {"type": "pong", "t": 7}


async def test_masks_are_taken_off(relay: SocketRelay) -> None:
    mask = os.urandom(4)
    text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(PING))
    data = bytes([0x81, 0x80 | len(text)]) + mask + text + closing(1000)
    frames = await sent(relay, data, 1)
    assert json.loads(frames[1][1]) == {"type": "pong", "t": 7}


async def test_a_chat_is_answered_whose_every_byte_comes_alone(relay: SocketRelay) -> None:
    raw = await RawSocket.connect(relay)
    for byte in masked(0x81, b'{"type":"chat","id":"a","messages":"hi"}'):
        await raw.send(bytes([byte]))
        await asyncio.sleep(0)
    await until(lambda: len(relay.provider.calls) == 1)
    await raw.send(closing(1000))
    assert code_of(frames_of(await raw.rest())) == 1000
    raw.close()


# The closing handshake


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4999])
async def test_a_close_is_answered_with_its_code(relay: SocketRelay, code: int) -> None:
    assert code_of(await sent(relay, closing(code, "adieu, née".encode()))) == code
    await until(lambda: relay.told.closed == [code])


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
async def test_a_code_that_nobody_may_send_is_closed_with_1002(
    relay: SocketRelay, code: int
) -> None:
    assert code_of(await sent(relay, closing(code))) == 1002
    await until(lambda: relay.told.closed == [1002])


async def test_a_close_without_a_code_is_answered(relay: SocketRelay) -> None:
    assert code_of(await sent(relay, masked(0x88, b""))) == 1000


@pytest.mark.parametrize("late", [masked(0x81, PING), unmasked(0x81, PING), b"\x00" * 9, b"\xff"])
@pytest.mark.parametrize("step", [1 << 20, 1])
async def test_what_comes_behind_a_close_is_not_read(
    relay: SocketRelay, late: bytes, step: int
) -> None:
    assert [first for first, _ in await sent(relay, closing(1001) + late, step)] == [0x88]
    await until(lambda: relay.told.closed == [1001])


# The opening handshake


async def handshake(
    relay: SocketRelay, headers: dict[str, str | None], *more: str, **request: str
) -> tuple[RawClient, bytes]:
    """The answer to a handshake with other `headers` (None: left out) and `more` lines."""
    fields = {"Host": "localhost"} | HANDSHAKE | headers
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    method, version = request.get("method", "GET"), request.get("version", "1.1")
    head = [f"{method} /ws HTTP/{version}", *lines, *more]
    client = await RawClient.connect(relay.port)
    client.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + request.get("body", "").encode())
    await client.head()
    body = b"" if client.status == 101 or method == "HEAD" else await client.body()
    client.close()
    return client, body


async def test_the_answer_to_a_handshake_is_the_rfcs(relay: SocketRelay) -> None:
    client, _ = await handshake(
        relay, {"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"}
    )
    assert client.status == 101
    assert client.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "sec-websocket-extensions" not in client.headers


@pytest.mark.parametrize("version", ["8", "7", "0", "14", "13, 8", "013", "x", "", None])
async def test_another_version_is_told_which_one_is_spoken(
    relay: SocketRelay, version: str | None
) -> None:
    client, body = await handshake(relay, {"Sec-WebSocket-Version": version})
    assert client.status == 426
    assert client.headers["sec-websocket-version"] == "13"
    assert client.headers["upgrade"] == "websocket"
    assert client.headers["content-type"].startswith("application/json")
    assert json.loads(body)["error"]["code"] == "bad_request"


NO_HANDSHAKE: dict[str, tuple[dict[str, str | None], tuple[str, ...]]] = {
    "no key": ({"Sec-WebSocket-Key": None}, ()),
    "an empty key": ({"Sec-WebSocket-Key": ""}, ()),
    "a short key": ({"Sec-WebSocket-Key": "AAAA"}, ()),
    "a long key": ({"Sec-WebSocket-Key": "A" * 23 + "="}, ()),
    "no base64": ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZ!=="}, ()),
    "base64 with noise": ({"Sec-WebSocket-Key": "dGhl!IHNhbXBsZ?SBub25jZQ=="}, ()),
    "no ASCII": ({"Sec-WebSocket-Key": "é" * 24}, ()),
    "two keys": ({}, (f"Sec-WebSocket-Key: {KEY}",)),
    "no Upgrade": ({"Upgrade": None}, ()),
    "another Upgrade": ({"Upgrade": "h2c"}, ()),
    "an Upgrade that only looks so": ({"Upgrade": "websoc\N{KELVIN SIGN}et"}, ()),
    "no Connection": ({"Connection": None}, ()),
    "another Connection": ({"Connection": "keep-alive"}, ()),
    "two hosts": ({}, ("Host: elsewhere",)),
}


@pytest.mark.parametrize(("headers", "more"), NO_HANDSHAKE.values(), ids=NO_HANDSHAKE)
async def test_what_is_no_handshake_is_refused_in_json(
    relay: SocketRelay, headers: dict[str, str | None], more: tuple[str, ...]
) -> None:
    client, body = await handshake(relay, headers, *more)
    assert client.status == 400
    assert client.headers["content-type"].startswith("application/json")
    assert json.loads(body)["error"]["code"] == "bad_request"
    for value in [*headers.values(), *more]:
        assert not value or len(value) < 5 or value.encode() not in body
    assert relay.edge.connections == 0


async def test_two_versions_are_refused(relay: SocketRelay) -> None:
    client, _ = await handshake(relay, {}, "Sec-WebSocket-Version: 13")
    assert client.status == 426


async def test_http_1_0_and_a_body_and_other_methods_are_refused(relay: SocketRelay) -> None:
    old, _ = await handshake(relay, {}, version="1.0")
    full, _ = await handshake(relay, {"Content-Length": "2"}, body="hi")
    cut, _ = await handshake(relay, {"Transfer-Encoding": "chunked"}, body="2\r\nhi\r\n0\r\n\r\n")
    head, _ = await handshake(relay, {}, method="HEAD")
    post, _ = await handshake(relay, {"Content-Length": "0"}, method="POST")
    assert [each.status for each in (old, full, cut, head, post)] == [400, 400, 400, 405, 405]


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        (["relay.v1"], "relay.v1"),
        (["x", "relay.v1"], "relay.v1"),
        (["x, y", "z,relay.v1 , y"], "relay.v1"),
        (["x", "y"], None),
    ],
)
async def test_subprotocols_in_several_headers_are_one_list(
    relay: SocketRelay, offers: list[str], chosen: str | None
) -> None:
    client, _ = await handshake(relay, {}, *(f"Sec-WebSocket-Protocol: {each}" for each in offers))
    assert (client.status, client.headers.get("sec-websocket-protocol")) == (101, chosen)


async def test_a_token_among_the_subprotocols_is_not_logged(
    relay: SocketRelay, caplog: pytest.LogCaptureFixture
) -> None:
    await handshake(relay, {"Sec-WebSocket-Protocol": "bearer, sk-secret-token"})
    assert "sk-secret-token" not in caplog.text


async def test_frames_in_the_same_packet_as_the_handshake_are_read_by_the_same_rules(
    relay: SocketRelay,
) -> None:
    head = "\r\n".join(
        [
            "GET /ws HTTP/1.1",
            "Host: localhost",
            *(f"{name}: {value}" for name, value in HANDSHAKE.items()),
        ]
    )
    for data, code in [(masked(0x81, PING) + closing(1001), 1001), (unmasked(0x81, PING), 1002)]:
        client = await RawClient.connect(relay.port)
        client.writer.write(head.encode() + b"\r\n\r\n" + data)
        assert await client.head() == 101
        assert code_of(frames_of(await client.reader.read())) == code
        client.close()
