"""What every stream log must do, whatever keeps it: one suite for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import pytest

from lab.redis_process import RedisProcess
from lab.waiting import until
from relay.core.errors import Code, RelayError, StreamExpired
from relay.core.events import (
    Done,
    FinishReason,
    Reasoning,
    Record,
    Start,
    Text,
    Timing,
    ToolCall,
    Usage,
)
from relay.core.records import MAX_RECORD_CHARS, Chunk, shown, unescape
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Created, Cursor, Existing, Spec, StreamLog, Writer
from relay.stores.memory import MemoryLimits, MemoryLog
from relay.stores.memory.log import SESSION_BYTES
from relay.stores.redis import RedisLimits, RedisLog, redis_client
from relay.stores.redis.log import ERASE_LINGER
from relay.stores.redis.stream import RedisStream
from tests.by_default import by_default


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class MemoryBench:
    """A log in memory, with the clock it lives by."""

    def __init__(self, **limits: float) -> None:
        self.clock = Clock()
        self.log: StreamLog = MemoryLog(by_default(MemoryLimits, **limits), self.clock)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.log.sweep()

    async def hear(self) -> None:
        """Here everything is known at once."""

    async def close(self) -> None:
        await self.log.close()


class RedisBench:
    """A log in a real Redis, whose keys are aged by as much as the clock moves."""

    STEP = 600.0

    def __init__(self, server: RedisProcess, **limits: float) -> None:
        server.flush()
        self.server = server
        self.clock = Clock()
        client = redis_client(server.url)
        self.log: StreamLog = RedisLog(client, by_default(RedisLimits, **limits), self.clock)

    async def start(self) -> None:
        await self.log.start()  # type: ignore[attr-defined]

    async def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            step = min(seconds, self.STEP)
            seconds -= step
            self.clock.now += step
            await self.log.rest()  # type: ignore[attr-defined]
            self.server.age(step)
            await self.log.tick()  # type: ignore[attr-defined]

    async def hear(self) -> None:
        """Let nodes learn of each other what they are told at the next tick."""
        await self.log.tick()  # type: ignore[attr-defined]

    async def close(self) -> None:
        await self.log.close()


class FollowedWriter:
    """A writer on one node whose records are settled once the other node has them too."""

    def __init__(self, writer: RedisStream, reading: RedisLog) -> None:
        self._writer = writer
        self._reading = reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    async def settled(self) -> None:
        await self._writer.settled()
        await until(lambda: not self._is_behind())

    def _is_behind(self) -> bool:
        held = self._reading._streams.by_name.get(self._writer.name)
        return held is not None and len(held.records) < len(self._writer.records)


class TwoNodes:
    """Chats are written on one node; everything else is asked of another."""

    def __init__(self, writing: RedisLog, reading: RedisLog) -> None:
        self.writing, self.reading = writing, reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reading, name)

    async def start(self) -> None:
        for log in (self.writing, self.reading):
            await log.start()

    async def create(self, asked: Spec) -> Created | Existing:
        claim = await self.writing.create(asked)
        if isinstance(claim, Existing):
            return claim
        assert isinstance(claim.writer, RedisStream)
        return Created(FollowedWriter(claim.writer, self.reading))  # type: ignore[arg-type]

    async def cancel(self, *which: Any) -> None:
        await self.reading.cancel(*which)
        await self.tick()

    async def erase(self, *which: Any) -> None:
        await self.reading.erase(*which)
        await self.tick()

    async def tick(self) -> None:
        await self.rest()
        for log in (self.writing, self.reading):
            await log.tick()

    async def rest(self) -> None:
        for log in (self.writing, self.reading):
            await log.rest()

    async def close(self) -> None:
        for log in (self.writing, self.reading):
            await log.close()


class TwoNodesBench(RedisBench):
    """As RedisBench, with a node that writes and one that reads."""

    def __init__(self, server: RedisProcess, **limits: float) -> None:
        super().__init__(server, **limits)
        client = redis_client(server.url)
        other = RedisLog(client, by_default(RedisLimits, **limits), self.clock)
        self.log = TwoNodes(self.log, other)  # type: ignore[assignment, arg-type]


Bench: TypeAlias = MemoryBench | RedisBench
BENCHES = {"redis": RedisBench, "redis-follower": TwoNodesBench}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisProcess]:
    server = RedisProcess()
    yield server
    server.close()


@pytest.fixture(params=["memory", *BENCHES])
async def make_bench(
    request: pytest.FixtureRequest, redis_server: RedisProcess
) -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    made: list[Bench] = []

    async def make(**limits: float) -> Bench:
        kind = BENCHES.get(request.param)
        bench = kind(redis_server, **limits) if kind else MemoryBench(**limits)
        await bench.start()
        made.append(bench)
        return bench

    yield make
    for bench in made:
        await bench.close()


@pytest.fixture
async def bench(make_bench: Callable[..., Awaitable[Bench]]) -> Bench:
    return await make_bench()


def ask(text: str = "hi", conversation: str | None = None) -> ChatRequest:
    return ChatRequest("gpt", (Turn("user", text),), conversation=conversation)


def spec(
    stream: str = "st1",
    session: str = "s" * 22,
    id: str = "a",
    subject: str | None = None,
    request: ChatRequest | None = None,
) -> Spec:
    return Spec(stream, session, id, subject, request or ask(), 300)


START = Start("st1", "gpt", "m")
DONE = Done("gpt", "m", FinishReason.STOP, Usage(1, 2, estimated=False), [], Timing(1, 2))


async def begun(bench: Bench, **fields: object) -> Writer:
    claim = await bench.log.create(spec(**fields))  # type: ignore[arg-type]
    assert isinstance(claim, Created)
    await write(claim.writer, START)
    return claim.writer


async def write(writer: Writer, *records: Record) -> None:
    writer.append(records)
    await settled(writer)


async def settled(writer: Writer) -> None:
    """Wait until everything appended is safe, which it is at once in memory."""
    if isinstance(writer, RedisStream | FollowedWriter):
        await writer.settled()


def ignore() -> None:
    """A reader that does not want to be woken."""


async def attach(
    bench: Bench, after: int = -1, wake: Callable[[], None] = ignore, stream: str = "st1"
) -> Cursor:
    return await bench.log.attach(stream, after, wake, None)


def drain(cursor: Cursor, limit: int = 60_000) -> list[Chunk]:
    chunks = []
    while chunk := cursor.take(limit):
        chunks.append(chunk)
    return chunks


async def test_a_reader_from_the_start_gets_every_record_in_order(bench: Bench) -> None:
    writer = await begun(bench)
    call = ToolCall("c1", "look", {"x": 1})
    await write(writer, Reasoning("hm"), Text("a"), Text("b"), call, DONE)
    chunks = drain(await attach(bench))
    assert [(c.kind, c.first, c.last) for c in chunks] == [
        ("start", 0, 0),
        ("reasoning", 1, 1),
        ("token", 2, 3),
        ("tool_call", 4, 4),
        ("done", 5, 5),
    ]
    assert shown(chunks) == ("ab", "hm", (call,))
    assert chunks[-1].terminal


async def test_text_merges_up_to_the_limit_and_never_past_it(bench: Bench) -> None:
    writer = await begun(bench)
    await write(writer, *[Text("0123456789")] * 10)
    chunks = drain(await attach(bench, 0), limit=35)
    assert [(c.first, c.last) for c in chunks] == [(1, 3), (4, 6), (7, 9), (10, 10)]


async def test_a_record_longer_than_the_limit_is_taken_alone(bench: Bench) -> None:
    writer = await begun(bench)
    await write(writer, Text("0123456789"), Text("x"))
    assert [c.last for c in drain(await attach(bench, 0), limit=3)] == [1, 2]


async def test_long_text_is_cut_into_records_that_fit_a_frame(bench: Bench) -> None:
    writer = await begun(bench)
    text = "\x01" * (2 * MAX_RECORD_CHARS + 1)
    await write(writer, Text(text))
    chunks = drain(await attach(bench, 0))
    assert all(len(c.body) <= 60_000 for c in chunks)
    assert "".join(unescape(c.body) for c in chunks) == text


@pytest.mark.parametrize("text", ['"\\\n\r\t\0', "\u2028\u2029é😄漢", "</script>"])
async def test_any_text_comes_back_as_it_went_in(bench: Bench, text: str) -> None:
    writer = await begun(bench)
    await write(writer, Text(text))
    assert shown(drain(await attach(bench))).text == text


async def test_a_writer_reads_back_what_it_appended_before_it_is_safe(bench: Bench) -> None:
    writer = await begun(bench)
    writer.append([Text("one "), Reasoning("hm")])
    assert shown(writer.chunks())[:2] == ("one ", "hm")
    writer.append([Text("two")])
    chunks = writer.chunks()
    assert shown(chunks)[:2] == ("one two", "hm")
    assert (chunks[0].first, chunks[-1].last) == (0, 3)
    await settled(writer)
    assert shown(writer.chunks())[:2] == ("one two", "hm")


async def test_a_cursor_at_the_head_is_woken_once_by_what_follows(bench: Bench) -> None:
    writer = await begun(bench)
    wakes: list[int] = []
    cursor = await attach(bench, wake=lambda: wakes.append(1))
    await write(writer, Text("a"))
    assert wakes == []
    drain(cursor)
    await write(writer, Text("b"))
    await write(writer, Text("c"))
    assert wakes == [1]
    assert [unescape(c.body) for c in drain(cursor)] == ["bc"]


async def test_a_closed_cursor_is_not_woken(bench: Bench) -> None:
    writer = await begun(bench)
    wakes: list[int] = []
    cursor = await attach(bench, wake=lambda: wakes.append(1))
    drain(cursor)
    cursor.close()
    cursor.close()
    await write(writer, Text("a"))
    assert wakes == []


async def test_two_readers_have_cursors_of_their_own(bench: Bench) -> None:
    writer = await begun(bench)
    await write(writer, Text("a"), Text("b"))
    late, early = await attach(bench, 1), await attach(bench)
    assert shown(drain(late)).text == "b"
    assert shown(drain(early)).text == "ab"


@pytest.mark.parametrize("after", [-2, 1, 99])
async def test_a_seq_never_reached_is_refused(bench: Bench, after: int) -> None:
    await begun(bench)
    with pytest.raises(RelayError) as caught:
        await attach(bench, after)
    assert caught.value.code is Code.BAD_REQUEST


async def test_the_same_chat_again_attaches_to_the_first(bench: Bench) -> None:
    await begun(bench)
    assert await bench.log.create(spec(stream="st2")) == Existing("st1")


async def test_the_same_id_with_other_content_is_refused(bench: Bench) -> None:
    await begun(bench)
    with pytest.raises(RelayError) as caught:
        await bench.log.create(spec(stream="st2", request=ask("other")))
    assert caught.value.code is Code.BAD_REQUEST


async def test_the_same_id_in_another_session_is_another_stream(bench: Bench) -> None:
    await begun(bench)
    assert isinstance(await bench.log.create(spec(stream="st2", session="t" * 22)), Created)


async def test_an_id_is_found_in_its_session_only(bench: Bench) -> None:
    await begun(bench)
    assert await bench.log.find("s" * 22, "a") == "st1"
    for session, id in (("t" * 22, "a"), ("s" * 22, "b")):
        with pytest.raises(StreamExpired):
            await bench.log.find(session, id)


async def test_a_stream_of_another_session_can_be_named_here(bench: Bench) -> None:
    await begun(bench)
    await begun(bench, stream="st2", id="b")
    await bench.log.link("t" * 22, "mine", "st1", None)
    await bench.log.link("t" * 22, "mine", "st1", None)
    assert await bench.log.find("t" * 22, "mine") == "st1"
    with pytest.raises(RelayError) as caught:
        await bench.log.link("t" * 22, "mine", "st2", None)
    assert caught.value.code is Code.BAD_REQUEST


async def test_a_stream_is_its_subjects_alone(bench: Bench) -> None:
    await begun(bench, subject="ann")
    for stranger in ("bob", None):
        for ask_for in (
            bench.log.attach("st1", -1, ignore, stranger),
            bench.log.info("st1", stranger),
            bench.log.cancel("st1", stranger),
            bench.log.erase("st1", stranger),
            bench.log.link("u" * 22, "x", "st1", stranger),
        ):
            with pytest.raises(StreamExpired):
                await ask_for
    assert (await bench.log.info("st1", "ann")).status == "running"


async def test_the_newest_of_a_conversation_is_found_within_the_session(bench: Bench) -> None:
    for name in ("st1", "st2"):
        await begun(bench, stream=name, id=name, request=ask(conversation="c"))
    assert await bench.log.newest("c", "s" * 22, None) == "st2"
    with pytest.raises(StreamExpired):
        await bench.log.newest("c", "t" * 22, None)


async def test_the_newest_of_a_conversation_is_found_on_any_device_of_a_subject(
    bench: Bench,
) -> None:
    await begun(bench, subject="ann", request=ask(conversation="c"))
    assert await bench.log.newest("c", "t" * 22, "ann") == "st1"
    with pytest.raises(StreamExpired):
        await bench.log.newest("c", "s" * 22, "bob")


async def test_a_session_is_known_when_it_comes_back(bench: Bench) -> None:
    assert not await bench.log.open_session("s" * 22, None)
    writer = await begun(bench)
    await write(writer, Text("a"), DONE)
    await bench.log.leave_session("s" * 22)
    assert await bench.log.open_session("s" * 22, None)
    [info] = await bench.log.session_streams("s" * 22)
    assert (info.id, info.stream, info.seq, info.status) == ("a", "st1", 2, "done")


async def test_a_session_is_its_subjects_alone(bench: Bench) -> None:
    await bench.log.open_session("s" * 22, "ann")
    with pytest.raises(RelayError) as caught:
        await bench.log.open_session("s" * 22, "bob")
    assert caught.value.code is Code.FORBIDDEN


async def test_a_session_ends_a_window_after_its_last_connection(bench: Bench) -> None:
    await bench.log.open_session("s" * 22, None)
    await bench.log.open_session("s" * 22, None)
    await bench.log.leave_session("s" * 22)
    await bench.pass_time(4_000)
    assert await bench.log.open_session("s" * 22, None)
    await bench.log.leave_session("s" * 22)
    await bench.log.leave_session("s" * 22)
    await bench.pass_time(3_601)
    assert not await bench.log.open_session("s" * 22, None)


async def test_cancel_reaches_the_owner_once(bench: Bench) -> None:
    writer = await begun(bench)
    told: list[int] = []
    writer.on_cancel(lambda: told.append(1))
    await bench.log.cancel("st1", None)
    await bench.log.cancel("st1", None)
    assert told == [1]


async def test_a_cancel_before_the_owner_listens_is_not_lost(bench: Bench) -> None:
    writer = await begun(bench)
    await bench.log.cancel("st1", None)
    told: list[int] = []
    writer.on_cancel(lambda: told.append(1))
    assert told == [1]


async def test_cancel_of_a_finished_stream_changes_nothing(bench: Bench) -> None:
    writer = await begun(bench)
    told: list[int] = []
    writer.on_cancel(lambda: told.append(1))
    await write(writer, DONE)
    await bench.log.cancel("st1", None)
    assert told == []
    assert (await bench.log.info("st1", None)).status == "done"


async def test_nothing_follows_a_terminal_record(bench: Bench) -> None:
    writer = await begun(bench)
    await write(writer, DONE)
    with pytest.raises(RuntimeError):
        writer.append([Text("late")])


async def test_an_erased_stream_goes_once_its_readers_have_the_end(bench: Bench) -> None:
    writer = await begun(bench)
    cursor = await attach(bench)
    await bench.log.erase("st1", None)
    with pytest.raises(StreamExpired):
        await attach(bench)
    await write(writer, DONE)
    assert [c.kind for c in drain(cursor)] == ["start", "done"]
    cursor.close()
    with pytest.raises(StreamExpired):
        await bench.log.info("st1", None)


async def test_an_erased_stream_without_readers_goes_when_it_ends(bench: Bench) -> None:
    await bench.log.open_session("s" * 22, None)
    writer = await begun(bench)
    await bench.log.erase("st1", None)
    await write(writer, DONE)
    await bench.pass_time(ERASE_LINGER + 1)
    with pytest.raises(StreamExpired):
        await bench.log.find("s" * 22, "a")


async def test_a_stream_counts_who_reads_it(bench: Bench) -> None:
    writer = await begun(bench)
    born = bench.clock.now
    assert writer.unread_since == born
    first, second = await attach(bench), await attach(bench)
    await bench.pass_time(10)
    first.close()
    assert writer.unread_since is None
    second.close()
    await bench.hear()
    assert writer.unread_since == born + 10


async def test_a_finished_stream_is_kept_for_the_window(bench: Bench) -> None:
    await bench.log.open_session("s" * 22, None)
    writer = await begun(bench)
    await write(writer, DONE)
    await bench.pass_time(3_599)
    assert (await bench.log.info("st1", None)).status == "done"
    await bench.pass_time(2)
    for ask_for in (
        bench.log.info("st1", None),
        bench.log.find("s" * 22, "a"),
        bench.log.create(spec(stream="st2")),
    ):
        with pytest.raises(StreamExpired):
            await ask_for


async def test_a_reader_of_a_stream_let_go_gets_all_of_it_or_is_told(bench: Bench) -> None:
    writer = await begun(bench)
    cursor = await attach(bench)
    await write(writer, Text("a"), DONE)
    await bench.pass_time(3_601)
    try:
        chunks = drain(cursor)
    except StreamExpired:
        return
    assert [chunk.kind for chunk in chunks] == ["start", "token", "done"]


async def test_a_running_stream_is_never_let_go(bench: Bench) -> None:
    writer = await begun(bench)
    await bench.pass_time(100_000)
    await write(writer, Text("a"))
    assert shown(drain(await attach(bench))).text == "a"


async def test_in_memory_the_oldest_finished_go_first_when_room_is_short() -> None:
    bench = MemoryBench(retained_bytes=10_000)
    for name in ("st1", "st2", "st3"):
        writer = await begun(bench, stream=name, id=name)
        await write(writer, Text("x" * 3_000), DONE)
    with pytest.raises(StreamExpired):
        await bench.log.info("st1", None)
    assert (await bench.log.info("st3", None)).status == "done"


async def test_in_memory_a_finished_stream_that_is_read_goes_last_when_room_is_short() -> None:
    bench = MemoryBench(retained_bytes=12_000)
    cursors = []
    for name in ("st1", "st2", "st3"):
        writer = await begun(bench, stream=name, id=name)
        if name == "st1":
            cursors.append(await attach(bench))
        await write(writer, Text("x" * 3_000), DONE)
    with pytest.raises(StreamExpired):
        await bench.log.info("st2", None)
    assert [chunk.kind for chunk in drain(cursors[0])] == ["start", "token", "done"]


async def test_one_session_runs_so_many_streams_and_no_more(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench(max_streams_per_session=2)
    first = await begun(bench, stream="st1", id="a")
    await begun(bench, stream="st2", id="b")
    with pytest.raises(RelayError) as caught:
        await bench.log.create(spec(stream="st3", id="c"))
    assert caught.value.code is Code.TOO_MANY_STREAMS
    await write(first, DONE)
    assert isinstance(await bench.log.create(spec(stream="st3", id="c")), Created)


async def test_in_memory_sessions_that_nobody_is_in_count_and_the_oldest_go_first() -> None:
    bench = MemoryBench(retained_bytes=10 * SESSION_BYTES)
    names = [f"session-{number:014d}" for number in range(11)]
    for name in names:
        await bench.log.open_session(name, None)
        bench.clock.now += 1
        await bench.log.leave_session(name)
    assert not await bench.log.open_session(names[0], None)
    assert await bench.log.open_session(names[1], None)
    for name in names[:2]:
        await bench.log.leave_session(name)
    assert bench.log.retained_bytes <= 10 * SESSION_BYTES  # type: ignore[attr-defined]
