"""Readers that do not read, on real sockets: memory, and what they get when they do."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab.waiting import until
from relay.core.events import Text
from relay.core.provider import Call, Take
from relay.edges.delivery.outlet import HIGH_WATER, MAX_REPLIES, MAX_WRITE
from relay.edges.relay_v1.service import SocketLimits
from relay.stores.memory import MemoryLimits
from tests.by_default import by_default
from tests.wire.socket_relay import END, Held, RawSocket, SocketRelay, says, serving

SMALL_BUFFER = 4_096
PIECE = "0123456789abcdef" * 64


def resident() -> int:
    """Bytes of this process in memory (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


def long_answer(pieces: int):
    async def run(call: Call, take: Take) -> None:
        for _ in range(pieces // 16):
            take([Text(PIECE)] * 16)
            await asyncio.sleep(0)
        take(END)

    return run


def server_buffers(relay: SocketRelay) -> list[int]:
    return [served._transport.get_write_buffer_size() for served in relay.edge._sockets]


async def frames_until_end(raw: RawSocket) -> list[dict]:
    """Read as a client would, to the end of the answer."""
    loop, data, found = asyncio.get_running_loop(), bytearray(), []
    async with asyncio.timeout(60):
        while not found or found[-1]["type"] not in ("done", "error"):
            data += await loop.sock_recv(raw.sock, 1 << 18)
            while frame := take_frame(data):
                found.append(frame)
    return found


def take_frame(data: bytearray) -> dict | None:
    """The first whole text frame, removed; control frames are skipped."""
    while len(data) >= 10 or (len(data) >= 2 and len(data) >= 2 + (data[1] & 127)):
        head, size = 2, data[1]
        if size == 126:
            head, size = 4, int.from_bytes(data[2:4])
        elif size == 127:
            head, size = 10, int.from_bytes(data[2:10])
        if len(data) < head + size:
            return None
        opcode, payload = data[0] & 15, bytes(data[head : head + size])
        del data[: head + size]
        if opcode == 1:
            return json.loads(payload)
    return None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_readers_that_do_not_read_cost_no_queue_and_get_all_of_it_later() -> None:
    readers, pieces = 200, 256
    async with serving(long_answer(pieces)) as relay:
        sockets = [await RawSocket.connect(relay, SMALL_BUFFER) for _ in range(readers)]
        gc.collect()
        before = resident()
        for raw in sockets:
            await raw.say({"type": "chat", "id": "a", "messages": "hi"})
        await until(lambda: len(relay.provider.calls) == readers and not relay.dispatcher.running)
        gc.collect()
        text = readers * pieces * len(PIECE)
        assert resident() - before < 3 * text
        assert min(server_buffers(relay)) > 0, "somebody read after all"
        assert max(server_buffers(relay)) <= HIGH_WATER + 2 * MAX_WRITE
        for raw in sockets[:: readers // 5]:
            frames = await frames_until_end(raw)
            assert "".join(f.get("text", "") for f in frames) == PIECE * pieces
        for raw in sockets:
            raw.close()


async def test_a_reader_that_does_not_read_holds_up_no_other() -> None:
    async with serving(long_answer(2_000)) as relay:
        stalled = await RawSocket.connect(relay, SMALL_BUFFER)
        await stalled.say({"type": "chat", "id": "a", "messages": "hi"})
        client = await relay.connect()
        await client.chat()
        await client.until("done")
        assert client.texts == {"a": PIECE * 2_000}
        stalled.close()


@pytest.mark.parametrize("others_are_read", [False, True])
async def test_a_slow_reader_loses_its_stream_only_to_others_that_are_read(
    others_are_read: bool,
) -> None:
    pieces = 4_096
    room = by_default(MemoryLimits, retained_bytes=3 * pieces * len(PIECE) // 2)
    async with serving(long_answer(pieces), log_limits=room) as relay:
        sockets: list[RawSocket] = []
        for calls in (1, 2, 3):
            sockets.append(await RawSocket.connect(relay, SMALL_BUFFER))
            await sockets[-1].say({"type": "chat", "id": "a", "messages": "hi"})
            if calls > 1 and not others_are_read:
                sockets.pop().close()
            await until(lambda n=calls: len(relay.provider.calls) == n)  # type: ignore[misc]
            await until(lambda: not relay.dispatcher.running)
        frames = await frames_until_end(sockets[0])
        if others_are_read:
            assert (frames[-1]["type"], frames[-1]["code"]) == ("error", "stream_expired")
            assert "seq" not in frames[-1]
        else:
            assert "".join(f.get("text", "") for f in frames) == PIECE * pieces
        for raw in sockets:
            raw.close()


async def test_a_reader_that_takes_nothing_in_time_is_cut_and_may_come_back() -> None:
    limits = by_default(SocketLimits, write_timeout=0.2)
    session = "s" * 22
    async with serving(long_answer(4_096), limits=limits) as relay:
        raw = await RawSocket.connect(relay, SMALL_BUFFER)
        await raw.say({"type": "hello", "session": session})
        await raw.say({"type": "chat", "id": "a", "messages": "hi"})
        await until(lambda: relay.told.closed != [])
        raw.close()
        client = await relay.connect()
        await client.send("hello", session=session, resume={"a": -1})
        await client.until("done")
        assert client.texts == {"a": PIECE * 4_096}
        assert len(relay.provider.calls) == 1


@asynccontextmanager
async def flooding(relay: SocketRelay):
    """A client that sends pings for ever and reads no answer."""
    raw = await RawSocket.connect(relay, SMALL_BUFFER)

    async def flood() -> None:
        while True:
            await raw.say({"type": "ping", "t": "x" * 100})

    task = asyncio.create_task(flood())
    yield
    task.cancel()
    await asyncio.wait({task})
    raw.close()


async def test_a_client_that_asks_and_does_not_read_is_cut_in_time() -> None:
    async with (
        serving(says("x"), limits=by_default(SocketLimits, write_timeout=0.2)) as relay,
        flooding(relay),
    ):
        await until(lambda: relay.told.closed != [])


async def test_a_client_that_asks_and_does_not_read_is_not_listened_to_meanwhile() -> None:
    async with serving(says("x")) as relay, flooding(relay):
        await until(lambda: any(waiting(relay)))
        await until(lambda: waiting(relay)[0] > MAX_REPLIES)
        for _ in range(500):
            await asyncio.sleep(0)
        assert waiting(relay)[0] < MAX_REPLIES + 200


def waiting(relay: SocketRelay) -> list[int]:
    return [served._outlet._reply_bytes for served in relay.edge._sockets]


async def test_a_hundred_readers_of_one_stream_all_get_it() -> None:
    held = Held()
    async with serving(held) as relay:
        first = await relay.connect()
        await first.chat()
        stream = (await first.until("start"))["stream"]
        others = [await relay.connect() for _ in range(100)]
        for other in others:
            await other.send("resume", stream=stream, id="a")
        for n in range(20):
            await held.say(f"{n} ")
        held.end()
        for other in others:
            await other.until("done")
        assert {other.texts["a"] for other in others} == {"".join(f"{n} " for n in range(20))}
        assert len(relay.provider.calls) == 1
