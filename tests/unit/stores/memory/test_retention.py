"""Which finished streams a memory log lets go of when room is short, and in which order."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.errors import StreamExpired
from relay.core.events import Done, FinishReason, Start, Text, Timing, Usage
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Created, Cursor, Spec, Writer
from relay.stores.memory import MemoryLimits, MemoryLog
from relay.stores.memory.log import SESSION_BYTES
from tests.by_default import by_default

DONE = Done("gpt", "m", FinishReason.STOP, Usage(1, 2, estimated=False), [], Timing(1, 2))
ROOM = 20_000


@dataclass
class Kept:
    """What the model knows of a stream."""

    name: str
    size: int
    ended_at: float
    readers: list[Cursor] = field(default_factory=list)


async def begun(log: MemoryLog, name: str, letters: int) -> Writer:
    request = ChatRequest("gpt", (Turn("user", "hi"),))
    claim = await log.create(Spec(name, name, "a", None, request, 300))
    assert isinstance(claim, Created)
    claim.writer.append([Start(name, "gpt", "m"), *([Text("x" * letters)] if letters else [])])
    return claim.writer


async def size_of(letters: int) -> int:
    """What such a stream counts for."""
    log = MemoryLog(by_default(MemoryLimits), lambda: 0.0)
    (await begun(log, "name-" + "0" * 20, letters)).append([DONE])
    return log.retained_bytes


class Bench:
    """A log, and beside it the rule as plainly as it can be put: of what is kept, streams
    that are read go last, and otherwise the oldest goes first."""

    def __init__(self, room: int = ROOM, window: float = 1_000_000) -> None:
        self.now = 0.0
        self.room, self.window = room, window
        limits = by_default(MemoryLimits, retained_bytes=room, resume_window=window)
        self.log = MemoryLog(limits, lambda: self.now)
        self.kept: list[Kept] = []
        self.sessions: list[tuple[float, str]] = []
        self.gone: list[str] = []
        self.count = 0

    def new_name(self) -> str:
        self.count += 1
        self.now += 1
        return f"name-{self.count:020d}"

    async def finish(self, letters: int, readers: int) -> None:
        """A stream of so many letters ends, read by so many."""
        name = self.new_name()
        stream = Kept(name, await size_of(letters), self.now)
        writer = await begun(self.log, name, letters)
        for _ in range(readers):
            await self.attach(stream)
        writer.append([DONE])
        self.kept.append(stream)
        self.make_room()

    async def attach(self, stream: Kept) -> None:
        stream.readers.append(await self.log.attach(stream.name, -1, lambda: None, None))

    async def come_and_go(self) -> None:
        """A session begins and loses its only connection."""
        name = self.new_name()
        await self.log.open_session(name, None)
        await self.log.leave_session(name)
        self.sessions.append((self.now, name))
        self.make_room()

    def used(self) -> int:
        return sum(stream.size for stream in self.kept) + SESSION_BYTES * len(self.sessions)

    def make_room(self) -> None:
        while self.used() > self.room:
            streams = [
                (bool(stream.readers), stream.ended_at, stream.name)
                for stream in (self.kept if len(self.kept) > 1 else [])
            ]
            sessions = [(False, left, name) for left, name in self.sessions]
            if not streams and not sessions:
                return
            self.let_go(min(streams + sessions)[2])

    def let_go(self, name: str) -> None:
        self.gone += [stream.name for stream in self.kept if stream.name == name]
        self.kept = [stream for stream in self.kept if stream.name != name]
        self.sessions = [held for held in self.sessions if held[1] != name]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.log.sweep()
        limit = self.now - self.window
        ended = [stream.name for stream in self.kept if stream.ended_at <= limit]
        left = [name for at, name in self.sessions if at <= limit]
        for name in ended + left:
            self.let_go(name)

    async def check(self) -> None:
        """The log keeps what the model keeps, and counts it right."""
        for stream in self.kept:
            assert (await self.log.info(stream.name, None)).status == "done"
        for name in self.gone:
            with pytest.raises(StreamExpired):
                await self.log.info(name, None)
        assert self.log.retained_bytes == self.used()
        assert self.log.running == 0


def whole(cursor: Cursor) -> bool:
    """Whether the reader gets all of it; else it is told that it is gone."""
    kinds = []
    try:
        while chunk := cursor.take(1_000):
            kinds.append(chunk.kind)
    except StreamExpired:
        assert not kinds
        return False
    assert (kinds[0], kinds[-1]) == ("start", "done")
    return True


STEPS = st.one_of(
    st.tuples(st.just("finish"), st.integers(0, 6_000), st.integers(0, 2)),
    st.tuples(st.just("finish"), st.integers(0, 6_000), st.just(0)),
    st.tuples(st.just("attach"), st.integers(0, 20)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("session")),
    st.tuples(st.just("wait"), st.integers(1, 15)),
)


async def follow(bench: Bench, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    for step in steps:
        match step:
            case ("finish", letters, readers):
                await bench.finish(letters, readers)
            case ("attach", at) if bench.kept:
                await bench.attach(bench.kept[at % len(bench.kept)])
            case ("leave", at) if read := [s for s in bench.kept if s.readers]:
                read[at % len(read)].readers.pop().close()
            case ("session",):
                await bench.come_and_go()
            case ("wait", seconds):
                bench.pass_time(seconds)
        await bench.check()
    for stream in bench.kept:
        for cursor in stream.readers:
            assert whole(cursor)
            cursor.close()
    await bench.check()


@settings(max_examples=3 * settings.default.max_examples // 2)
@given(steps=st.lists(STEPS, min_size=15, max_size=60), window=st.sampled_from([30, 1_000_000]))
def test_streams_that_are_read_go_last_and_otherwise_the_oldest_first(
    steps: list[tuple],  # type: ignore[type-arg]
    window: float,
) -> None:
    asyncio.run(follow(Bench(window=window), steps))


async def test_one_that_is_read_outlives_all_that_are_not() -> None:
    bench = Bench()
    await bench.finish(3_000, readers=1)
    read = bench.kept[0]
    for _ in range(50):
        await bench.finish(3_000, readers=0)
        assert bench.kept[0] is read
    await bench.check()
    assert whole(read.readers[0])


async def test_when_all_are_read_the_oldest_goes_and_its_reader_is_told() -> None:
    bench = Bench()
    for _ in range(10):
        await bench.finish(3_000, readers=1)
    streams = list(bench.kept)
    first = streams[0]
    await bench.finish(3_000, readers=1)
    assert bench.kept == [*streams[1:], bench.kept[-1]]
    assert not whole(first.readers[0])
    first.readers[0].close()
    await bench.check()


async def test_without_its_reader_it_has_its_old_place_again() -> None:
    bench = Bench()
    for _ in range(3):
        await bench.finish(3_000, readers=1)
    oldest, middle, _ = bench.kept
    while not bench.gone:
        await bench.finish(0, readers=0)  # until one went, and the three were passed over
    middle.readers.pop().close()
    oldest.readers.pop().close()
    while oldest in bench.kept:
        assert middle in bench.kept
        await bench.finish(0, readers=0)
    while middle in bench.kept:
        await bench.finish(0, readers=0)
    await bench.check()


@pytest.mark.slow
async def test_streams_that_are_read_cost_no_walk_past_them() -> None:
    """Ten thousand that stay in front would be a hundred million steps, were each looked at
    again for each that goes."""
    count = 10_000
    bench = Bench(room=count * 2 * 2_200)
    bench.make_room = lambda: None  # type: ignore[method-assign]  # the model does walk
    for _ in range(count):
        await bench.finish(0, readers=1)
    began = time.perf_counter()
    for _ in range(count):
        await bench.finish(1_000, readers=0)
    assert time.perf_counter() - began < 15
    assert bench.log.retained_bytes <= bench.room
    for stream in bench.kept[:count:500]:
        assert whole(stream.readers[0])
