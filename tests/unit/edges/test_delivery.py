"""What one connection sends, and when: on a transport that only remembers, by a clock that
the test moves. What does not depend on the framing is tested of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from relay.answering.timerwheel import STEP, TimerWheel
from relay.core.errors import RelayError, StreamExpired
from relay.core.events import Done, FinishReason, Record, Text, Timing, Usage
from relay.core.records import Chunk, Records, encode
from relay.edges.delivery.framing import CHUNKS, TEXT_FRAMES, UNFRAMED, Framing, text_frame_head
from relay.edges.delivery.link import LinkListener
from relay.edges.delivery.outlet import (
    HIGH_WATER,
    LOW_WATER,
    MAX_REPLIES,
    MAX_WRITE,
    Encoder,
    Heartbeat,
    Outlet,
    Pace,
)
from relay.protocol.codec import FrameEncoder

DONE = Done("gpt", "m", FinishReason.STOP, Usage(1, 1, False), [], Timing(1, 2))

PACE = Pace(heartbeat=20.0, write_timeout=30.0)

BEAT = b'{"type":"ping"}'


class RememberingTransport(asyncio.Transport):
    """Keeps each write apart; what the client has not read counts as buffered."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.unread = 0
        self.reads_at_once = True
        self.aborted = False
        self.limits: tuple[int | None, int | None] = (None, None)

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))
        if not self.reads_at_once:
            self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class HandCursor:
    """A cursor over records that the test appends."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.records, self.after, self.wake = Records(), -1, wake
        self.at_head = self.closed = False
        self.fault: RelayError | None = None
        self.takes = 0

    def append(self, *records: Record) -> None:
        for record in records:
            self.records.append(*encode(record))
        if self.at_head and not self.closed:
            self.at_head = False
            self.wake()

    def take(self, limit: int) -> Chunk | None:
        self.takes += 1
        if self.fault:
            raise self.fault
        chunk = self.records.take(self.after, limit)
        if chunk is not None:
            self.after = chunk.last
        self.at_head = self.after == self.records.newest
        return chunk

    def close(self) -> None:
        self.closed = True


class Lines:
    """Frames, each on a line: what a body without frames can be taken apart by."""

    def __init__(self, id: str) -> None:
        self._frames = FrameEncoder(id)

    def encode(self, chunk: Chunk) -> bytes:
        return self._frames.encode(chunk) + b"\n"

    def fault(self, error: RelayError) -> bytes:
        return self._frames.fault(error) + b"\n"


class Mute:
    """A dialect that has a word for nothing."""

    def encode(self, chunk: Chunk) -> bytes:
        return b""

    def fault(self, error: RelayError) -> bytes:
        return b""


class Bench:
    """An outlet with the world around it, which is its link and its owner, too."""

    def __init__(
        self, framing: Framing = TEXT_FRAMES, in_silence: bool | None = None, pace: Pace = PACE
    ) -> None:
        self.now = 1_000.0
        self.framing = framing
        self.transport = RememberingTransport()
        self.listener: LinkListener | None = None
        self.ended: list[str] = []
        self.losses = 0
        self.wheel = TimerWheel(lambda: self.now)
        silent = framing is not TEXT_FRAMES if in_silence is None else in_silence
        self.outlet = Outlet(
            self.transport,
            self,
            framing=framing,
            heartbeat=Heartbeat(BEAT if framing is TEXT_FRAMES else BEAT + b"\n", silent),
            pace=pace,
            wheel=self.wheel,
            ended=self.ended.append,
            lost=self._lose,
        )

    def _lose(self) -> None:
        self.losses += 1

    @property
    def writing_paused(self) -> bool:
        return self.transport.unread > HIGH_WATER

    def reads(self, count: int | None = None) -> None:
        """The client reads all that was sent, or so many bytes of it."""
        was_full = self.writing_paused
        self.transport.unread -= self.transport.unread if count is None else count
        if was_full and self.transport.unread <= LOW_WATER and self.listener:
            self.listener.on_writable()

    def attach(self, id: str, encoder: Encoder | None = None) -> HandCursor:
        plain = FrameEncoder if self.framing is TEXT_FRAMES else Lines
        reader = self.outlet.new_reader(id, encoder or plain(id))
        cursor = HandCursor(reader.wake)
        self.outlet.deliver(reader, cursor)  # type: ignore[arg-type]
        return cursor

    async def pass_to(self, seconds: float) -> None:
        """Let so many seconds since the start have passed, in steps, and all that is due
        have happened."""
        until = 1_000.0 + seconds
        while self.now < until:
            self.now = min(until, self.now + STEP)
            self.wheel.turn()
            await turn()

    async def runs_full(self) -> HandCursor:
        """Its client does not read what is a lot."""
        self.transport.reads_at_once = False
        cursor = self.attach("a")
        cursor.append(*[Text("x" * 8_000)] * 100)
        await turn(20)
        assert self.outlet.full
        return cursor

    @property
    def body(self) -> bytes:
        return b"".join(self.transport.writes)

    @property
    def frames(self) -> list[dict[str, Any]]:
        if self.framing is TEXT_FRAMES:
            return [frame for write in self.transport.writes for frame in frames_in(write)]
        body = self.body if self.framing is UNFRAMED else b"".join(chunks_in(self.body))
        return [json.loads(line) for line in body.splitlines()]


def frames_in(data: bytes) -> list[dict[str, Any]]:
    """The messages of WebSocket frames."""
    found = []
    while data:
        assert data[0] == 0x81
        head, size = 2, data[1]
        if size == 126:
            head, size = 4, int.from_bytes(data[2:4])
        elif size == 127:
            head, size = 10, int.from_bytes(data[2:10])
        found.append(json.loads(data[head : head + size]))
        data = data[head + size :]
    return found


def chunks_in(data: bytes) -> list[bytes]:
    """The chunks of a body, the last one, which is empty, included."""
    found = []
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        found.append(rest[:length])
        data = rest[length + 2 :]
    return found


@pytest.fixture(params=[TEXT_FRAMES, CHUNKS, UNFRAMED], ids=["websocket", "chunks", "unframed"])
def bench_of(request: pytest.FixtureRequest) -> Callable[..., Bench]:
    """Makes a `Bench` of one framing; a test that takes it is run for each."""

    def make(**options: Any) -> Bench:
        return Bench(request.param, **options)

    return make


MakeBench = Callable[..., Bench]


async def turn(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f" + (65_536).to_bytes(8, "big")),
    ],
)
def test_the_head_of_a_frame_takes_the_form_its_length_wants(size: int, head: bytes) -> None:
    assert text_frame_head(size) == head


async def test_the_transport_gets_its_limits_on_purpose(bench_of: MakeBench) -> None:
    assert bench_of().transport.limits == (HIGH_WATER, LOW_WATER)


async def test_all_that_comes_in_one_turn_of_the_loop_leaves_in_one_write() -> None:
    bench = Bench()
    cursors = [bench.attach(id) for id in "abc"]
    await turn()
    for cursor in cursors:
        cursor.append(Text("x"))
        cursor.append(Text("y"))
    bench.outlet.send(b'{"type":"pong"}')
    await turn()
    assert len(bench.transport.writes) == 1
    assert [frame.get("text", "pong") for frame in bench.frames] == ["pong", "xy", "xy", "xy"]


async def test_replies_go_before_records_in_their_own_order() -> None:
    bench = Bench()
    bench.attach("a").append(Text("x"))
    bench.outlet.send(b'{"n":1}')
    bench.outlet.send(b'{"n":2}')
    await turn()
    assert [frame.get("n") for frame in bench.frames] == [1, 2, None]


async def test_streams_take_turns() -> None:
    bench = Bench()
    for id in "ab":
        bench.attach(id).append(*[Text("x" * 8_000)] * 30)
    await turn(20)
    assert [frame["id"] for frame in bench.frames] == ["a", "b"] * 5


async def test_one_write_is_bounded_and_leaves_the_loop_to_others(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.attach("a").append(*[Text("x" * 8_000)] * 200)
    await turn(60)
    assert len(bench.transport.writes) > 10
    assert max(map(len, bench.transport.writes)) < 2 * MAX_WRITE
    assert sum(len(frame["text"]) for frame in bench.frames) == 200 * 8_000


async def test_a_reader_at_its_head_is_asked_again_only_when_it_woke(bench_of: MakeBench) -> None:
    bench = bench_of()
    cursor = bench.attach("a")
    await turn(10)
    assert cursor.takes == 1
    cursor.append(Text("x"))
    await turn(10)
    assert cursor.takes == 2


async def test_nothing_is_taken_while_the_client_does_not_read(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.transport.reads_at_once = False
    cursor = bench.attach("a")
    cursor.append(*[Text("x" * 8_000)] * 100)
    await turn(50)
    assert bench.outlet.full
    assert bench.transport.unread < HIGH_WATER + 2 * MAX_WRITE
    takes = cursor.takes
    cursor.append(Text("more"))
    await turn(10)
    assert cursor.takes == takes


async def test_a_client_that_reads_again_gets_all_of_it_merged(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.transport.reads_at_once = False
    bench.attach("a").append(*[Text("x" * 8_000)] * 100, DONE)
    await turn(20)
    while bench.outlet.full:
        bench.reads()
        await turn(20)
    assert bench.frames[-1]["type"] == "done"
    assert sum(len(frame.get("text", "")) for frame in bench.frames) == 100 * 8_000
    assert bench.ended == ["a"]


async def test_one_that_takes_nothing_in_time_is_cut(bench_of: MakeBench) -> None:
    bench = bench_of()
    await bench.runs_full()
    await bench.pass_to(29.9)
    assert not bench.transport.aborted
    await bench.pass_to(30.0 + 2 * STEP)
    assert bench.transport.aborted


async def test_one_that_took_a_little_and_then_nothing_is_cut(bench_of: MakeBench) -> None:
    bench = bench_of()
    await bench.runs_full()
    await bench.pass_to(15.0)
    bench.reads(1)
    await bench.pass_to(44.9)
    assert not bench.transport.aborted
    await bench.pass_to(90.0)
    assert bench.transport.aborted


async def test_one_that_takes_little_is_slow_and_not_cut(bench_of: MakeBench) -> None:
    bench = bench_of()
    await bench.runs_full()
    for seconds in range(0, 300, 20):
        await bench.pass_to(seconds)
        bench.reads(1)
    assert bench.outlet.full
    assert not bench.transport.aborted


async def test_what_others_write_to_a_full_transport_is_no_sign_of_life() -> None:
    bench = Bench()
    await bench.runs_full()
    for seconds in range(0, 60, 10):
        await bench.pass_to(seconds)
        bench.transport.unread += 2  # a ping of aiohttp's
    assert bench.transport.aborted


@pytest.mark.parametrize("framing", [CHUNKS, UNFRAMED])
async def test_a_body_that_is_not_read_is_cut_before_the_transport_is_full(
    framing: Framing,
) -> None:
    bench = Bench(framing)
    bench.transport.reads_at_once = False
    bench.outlet.keep_alive()
    bench.attach("a").append(Text("x"))
    await bench.pass_to(29.9)
    assert not bench.transport.aborted
    await bench.pass_to(36.0)
    assert bench.transport.aborted
    assert not bench.outlet.full


# Heartbeats


async def test_a_websocket_has_a_heartbeat_each_interval_whatever_else_is_sent() -> None:
    bench = Bench()
    bench.outlet.keep_alive()
    cursor = bench.attach("a")
    for seconds in range(1, 62):
        cursor.append(Text("x"))
        await bench.pass_to(seconds)
    assert bench.body.count(BEAT) == 3


@pytest.mark.parametrize("framing", [CHUNKS, UNFRAMED])
async def test_a_body_has_a_heartbeat_after_an_interval_of_silence_only(framing: Framing) -> None:
    bench = Bench(framing)
    bench.outlet.keep_alive()
    cursor = bench.attach("a")
    for seconds in range(1, 62):
        cursor.append(Text("x"))
        await bench.pass_to(seconds)
    assert bench.body.count(BEAT) == 0
    await bench.pass_to(86.0)
    assert bench.body.count(BEAT) == 1
    assert bench.frames[-1] == {"type": "ping"}


async def test_without_keep_alive_there_are_no_heartbeats(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.attach("a")
    await bench.pass_to(100.0)
    assert bench.transport.writes == []


async def test_one_that_does_not_read_gets_no_heartbeats(bench_of: MakeBench) -> None:
    bench = bench_of(pace=Pace(heartbeat=1.0, write_timeout=30.0))
    bench.outlet.keep_alive()
    await bench.runs_full()
    writes = len(bench.transport.writes)
    await bench.pass_to(20.0)
    assert len(bench.transport.writes) == writes


async def test_after_the_end_nothing_is_due(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.outlet.keep_alive()
    await bench.runs_full()
    bench.outlet.close()
    await bench.pass_to(100.0)
    assert not bench.transport.aborted
    assert BEAT not in bench.body


# The end


async def test_a_terminal_record_ends_its_reader_and_no_other() -> None:
    bench = Bench()
    one, two = bench.attach("a"), bench.attach("b")
    one.append(Text("x"), DONE)
    await turn()
    assert (one.closed, two.closed, bench.ended) == (True, False, ["a"])
    assert [frame["type"] for frame in bench.frames] == ["token", "done"]


async def test_records_that_are_gone_are_told_under_their_id(bench_of: MakeBench) -> None:
    bench = bench_of()
    cursor = bench.attach("a")
    await turn()
    cursor.fault = StreamExpired()
    cursor.append(Text("x"))
    await turn()
    (told,) = bench.frames
    assert (told["type"], told["id"], told["code"]) == ("error", "a", "stream_expired")
    assert cursor.closed
    assert bench.ended == ["a"]


async def test_a_reader_of_the_same_id_takes_the_place_of_the_first() -> None:
    bench = Bench()
    old = bench.attach("a")
    old.append(Text("old"))
    new = bench.attach("a")
    new.append(Text("new"))
    await turn()
    assert old.closed
    assert [frame["text"] for frame in bench.frames] == ["new"]


async def test_a_client_that_asks_and_does_not_read_is_no_longer_listened_to() -> None:
    bench = Bench()
    bench.transport.reads_at_once = False
    bench.outlet.send(b"x" * (HIGH_WATER + 1))
    await turn()
    bench.outlet.send(b"x" * MAX_REPLIES)
    await asyncio.wait_for(bench.outlet.wait_for_room(), 10)
    bench.outlet.send(b"x")
    listening = asyncio.ensure_future(bench.outlet.wait_for_room())
    await turn()
    assert not listening.done()
    bench.reads()
    await asyncio.wait_for(listening, 10)


async def test_finish_writes_the_replies_that_wait_and_nothing_after() -> None:
    bench = Bench()
    cursor = bench.attach("a")
    await turn()
    bench.outlet.send(b'{"n":1}')
    bench.outlet.finish()
    cursor.append(Text("x"))
    bench.outlet.send(b'{"n":2}')
    await turn()
    assert bench.frames == [{"n": 1}]
    assert cursor.closed


async def test_a_cursor_that_comes_after_the_end_is_closed(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.outlet.close()
    assert bench.attach("a").closed


async def test_a_transport_that_is_closing_gets_no_more() -> None:
    bench = Bench()
    bench.transport.aborted = True
    bench.outlet.send(b'{"n":1}')
    await turn()
    assert bench.transport.writes == []


async def test_a_body_is_closed_in_the_write_that_brings_its_end() -> None:
    bench = Bench(CHUNKS)
    cursor = bench.attach("a")
    await turn()
    cursor.append(Text("x"))
    await turn()
    cursor.append(Text("y"), DONE)
    await turn()
    assert [write.endswith(b"\r\n0\r\n\r\n") for write in bench.transport.writes] == [False, True]
    assert bench.ended == ["a"]


async def test_a_body_whose_records_are_gone_is_closed_behind_the_fault() -> None:
    bench = Bench(CHUNKS)
    cursor = bench.attach("a")
    await turn()
    cursor.fault = StreamExpired()
    cursor.append(Text("x"))
    await turn()
    fault, last = chunks_in(bench.body)
    assert (json.loads(fault)["code"], last) == ("stream_expired", b"")


async def test_what_a_dialect_has_no_word_for_is_not_written(bench_of: MakeBench) -> None:
    bench = bench_of()
    cursor = bench.attach("a", Mute())
    await turn()
    cursor.append(Text("x"))
    await turn()
    assert bench.transport.writes == []


async def test_the_owner_is_told_once_that_the_client_is_gone(bench_of: MakeBench) -> None:
    bench = bench_of()
    assert bench.listener is not None
    bench.listener.on_lost()
    bench.listener.on_lost()
    assert bench.losses == 1


async def test_one_that_waits_for_room_is_let_go_when_the_client_is(bench_of: MakeBench) -> None:
    bench = bench_of()
    await bench.runs_full()
    bench.outlet.send(b"x" * (MAX_REPLIES + 1))
    waiting = asyncio.ensure_future(bench.outlet.wait_for_room())
    await turn()
    assert not waiting.done()
    assert bench.listener is not None
    bench.listener.on_lost()
    await asyncio.wait_for(waiting, 10)


async def test_after_the_end_the_link_has_no_listener(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.outlet.close()
    assert bench.listener is None


async def test_a_defect_of_a_dialect_ends_the_connection_and_is_told() -> None:
    class Broken(Mute):
        def encode(self, chunk: Chunk) -> bytes:
            raise ZeroDivisionError

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: told.append(what))
    bench = Bench()
    bench.attach("a", Broken()).append(Text("x"))
    await turn()
    assert bench.transport.aborted
    assert isinstance(told[0]["exception"], ZeroDivisionError)
