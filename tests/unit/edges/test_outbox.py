"""What one connection sends, and when: on a transport that only remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.waiting import until
from relay.edges.outbox import (
    HIGH_WATER,
    LOW_WATER,
    MAX_REPLIES,
    MAX_WRITE,
    Outbox,
    text_frame_head,
)
from relay.errors import RelayError, StreamExpired
from relay.events import Done, FinishReason, Record, Text, Timing, Usage
from relay.records import Chunk, Records, encode

DONE = Done("gpt", "m", FinishReason.STOP, Usage(1, 1, False), [], Timing(1, 2))


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


class Bench:
    """An outbox with the world around it."""

    def __init__(self, write_timeout: float = 60.0) -> None:
        self.transport = RememberingTransport()
        self.read_again = asyncio.Event()
        self.ended: list[str] = []
        self.outbox = Outbox(
            self.transport,
            drain=self._drain,
            flow=self,
            ended=self.ended.append,
            write_timeout=write_timeout,
        )

    @property
    def writing_paused(self) -> bool:
        return self.transport.unread > HIGH_WATER

    async def _drain(self) -> None:
        await self.read_again.wait()
        self.read_again.clear()

    def reads(self) -> None:
        """The client reads all that was sent."""
        self.transport.unread = 0
        self.read_again.set()

    def attach(self, id: str) -> HandCursor:
        reader = self.outbox.reader(id)
        cursor = HandCursor(reader.wake)
        self.outbox.read(reader, cursor)  # type: ignore[arg-type]
        return cursor

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [frame for write in self.transport.writes for frame in frames_in(write)]


def frames_in(data: bytes) -> list[dict[str, Any]]:
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


async def test_the_transport_gets_its_limits_on_purpose() -> None:
    assert Bench().transport.limits == (HIGH_WATER, LOW_WATER)


async def test_all_that_comes_in_one_turn_of_the_loop_leaves_in_one_write() -> None:
    bench = Bench()
    cursors = [bench.attach(id) for id in "abc"]
    await turn()
    for cursor in cursors:
        cursor.append(Text("x"))
        cursor.append(Text("y"))
    bench.outbox.send(b'{"type":"pong"}')
    await turn()
    assert len(bench.transport.writes) == 1
    assert [frame.get("text", "pong") for frame in bench.frames] == ["pong", "xy", "xy", "xy"]


async def test_replies_go_before_records_in_their_own_order() -> None:
    bench = Bench()
    bench.attach("a").append(Text("x"))
    bench.outbox.send(b'{"n":1}')
    bench.outbox.send(b'{"n":2}')
    await turn()
    assert [frame.get("n") for frame in bench.frames] == [1, 2, None]


async def test_streams_take_turns() -> None:
    bench = Bench()
    for id in "ab":
        bench.attach(id).append(*[Text("x" * 8_000)] * 30)
    await turn(20)
    assert [frame["id"] for frame in bench.frames] == ["a", "b"] * 5


async def test_one_write_is_bounded_and_leaves_the_loop_to_others() -> None:
    bench = Bench()
    bench.attach("a").append(*[Text("x" * 8_000)] * 200)
    await turn(60)
    assert len(bench.transport.writes) > 10
    assert max(map(len, bench.transport.writes)) < 2 * MAX_WRITE
    assert sum(len(frame["text"]) for frame in bench.frames) == 200 * 8_000


async def test_a_reader_at_its_head_is_asked_again_only_when_it_woke() -> None:
    bench = Bench()
    cursor = bench.attach("a")
    await turn(10)
    assert cursor.takes == 1
    cursor.append(Text("x"))
    await turn(10)
    assert cursor.takes == 2


async def test_nothing_is_taken_while_the_client_does_not_read() -> None:
    bench = Bench()
    bench.transport.reads_at_once = False
    cursor = bench.attach("a")
    cursor.append(*[Text("x" * 8_000)] * 100)
    await turn(50)
    assert bench.outbox.stalled
    assert bench.transport.unread < HIGH_WATER + 2 * MAX_WRITE
    takes = cursor.takes
    cursor.append(Text("more"))
    await turn(10)
    assert cursor.takes == takes


async def test_a_client_that_reads_again_gets_all_of_it_merged() -> None:
    bench = Bench()
    bench.transport.reads_at_once = False
    bench.attach("a").append(*[Text("x" * 8_000)] * 100, DONE)
    await turn(20)
    while bench.outbox.stalled:
        bench.reads()
        await turn(20)
    assert bench.frames[-1]["type"] == "done"
    assert sum(len(frame.get("text", "")) for frame in bench.frames) == 100 * 8_000
    assert bench.ended == ["a"]


async def test_one_that_takes_nothing_in_time_is_cut() -> None:
    bench = Bench(write_timeout=0.01)
    bench.transport.reads_at_once = False
    bench.attach("a").append(*[Text("x" * 8_000)] * 100)
    await until(lambda: bench.transport.aborted)


async def test_one_that_took_a_little_and_then_nothing_is_cut() -> None:
    bench = Bench(write_timeout=0.01)
    bench.transport.reads_at_once = False
    bench.attach("a").append(*[Text("x" * 8_000)] * 100)
    await turn(20)
    bench.transport.unread -= 1
    await until(lambda: bench.transport.aborted)


async def test_one_that_takes_little_is_slow_and_not_cut() -> None:
    bench = Bench(write_timeout=60.0)
    bench.transport.reads_at_once = False
    bench.attach("a").append(*[Text("x" * 8_000)] * 100)
    await turn(20)
    left = bench.transport.unread
    bench.transport.unread -= 1
    bench.outbox._check(left)
    assert not bench.transport.aborted
    bench.outbox._check(bench.transport.unread)
    assert bench.transport.aborted


async def test_a_terminal_record_ends_its_reader_and_no_other() -> None:
    bench = Bench()
    one, two = bench.attach("a"), bench.attach("b")
    one.append(Text("x"), DONE)
    await turn()
    assert (one.closed, two.closed, bench.ended) == (True, False, ["a"])
    assert [frame["type"] for frame in bench.frames] == ["token", "done"]


async def test_records_that_are_gone_are_told_under_their_id() -> None:
    bench = Bench()
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
    bench.outbox.send(b"x" * (HIGH_WATER + 1))
    await turn()
    bench.outbox.send(b"x" * MAX_REPLIES)
    await asyncio.wait_for(bench.outbox.room(), 10)
    bench.outbox.send(b"x")
    listening = asyncio.ensure_future(bench.outbox.room())
    await turn()
    assert not listening.done()
    bench.reads()
    await asyncio.wait_for(listening, 10)


async def test_finish_writes_the_replies_that_wait_and_nothing_after() -> None:
    bench = Bench()
    cursor = bench.attach("a")
    await turn()
    bench.outbox.send(b'{"n":1}')
    bench.outbox.finish()
    cursor.append(Text("x"))
    bench.outbox.send(b'{"n":2}')
    await turn()
    assert bench.frames == [{"n": 1}]
    assert cursor.closed


async def test_a_cursor_that_comes_after_the_end_is_closed() -> None:
    bench = Bench()
    bench.outbox.close()
    assert bench.attach("a").closed


async def test_a_transport_that_is_closing_gets_no_more() -> None:
    bench = Bench()
    bench.transport.aborted = True
    bench.outbox.send(b'{"n":1}')
    await turn()
    assert bench.transport.writes == []
