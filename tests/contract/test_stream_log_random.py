"""Chats, readers, cancels and broken connections in any order, on every stream log: each
reader has had the records from its cursor on, in order, each once, and none too few."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from lab.redis_process import RedisProcess
from relay.core.errors import RelayError, StreamExpired
from relay.core.events import Done, FinishReason, Start, Text, Timing, Usage
from relay.core.records import unescape
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Created, Cursor, Existing, Spec, Writer
from tests.contract.test_stream_log import BENCHES, Bench, MemoryBench, settled

SESSION = "s" * 22
DONE = Done("gpt", "m", FinishReason.STOP, Usage(1, 2, estimated=False), [], Timing(1, 2))
_server: list[RedisProcess] = []


@pytest.fixture(scope="module", autouse=True)
def redis_server() -> Iterator[None]:
    _server.append(RedisProcess())
    yield
    _server.pop().close()


class Answer:
    """What a stream should hold."""

    def __init__(self, name: str, id: str, writer: Writer) -> None:
        self.name, self.id, self.writer = name, id, writer
        self.records: list[str] = ["<start>"]
        self.cancels = 0
        self.cancelled = self.ended = False
        writer.on_cancel(self._told)

    def _told(self) -> None:
        self.cancels += 1


class Reader:
    """What one reader has had."""

    def __init__(self, answer: Answer, cursor: Cursor, after: int) -> None:
        self.answer, self.cursor = answer, cursor
        self.first = after + 1
        self.had: list[str] = []
        self.wakes = 0


class StreamLogMachine(RuleBasedStateMachine):
    kind = "memory"

    answers = Bundle("answers")
    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.count = 0
        self.known: list[Reader] = []

    def do(self, work: Any) -> Any:
        return self.runner.run(asyncio.wait_for(work, 20))

    @initialize()
    def open(self) -> None:
        async def opened() -> Bench:
            made = BENCHES.get(self.kind)
            bench = made(_server[0]) if made else MemoryBench()
            await bench.start()
            await bench.log.open_session(SESSION, None)
            return bench

        self.bench = self.do(opened())

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.do(self.bench.close())
        self.runner.close()

    @rule(target=answers)
    def chat(self) -> Answer:
        self.count += 1
        return self.do(self._chat(f"st{self.count}", f"id{self.count}"))

    async def _chat(self, name: str, id: str) -> Answer:
        claim = await self.bench.log.create(self._spec(name, id))
        assert isinstance(claim, Created)
        claim.writer.append([Start(name, "gpt", "m")])
        await settled(claim.writer)
        return Answer(name, id, claim.writer)

    def _spec(self, name: str, id: str) -> Spec:
        return Spec(name, SESSION, id, None, ChatRequest("gpt", (Turn("user", id),)), 300)

    @rule(answer=answers)
    def chat_again(self, answer: Answer) -> None:
        claim = self.do(self.bench.log.create(self._spec("other", answer.id)))
        assert claim == Existing(answer.name)

    @rule(answer=answers, texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4))
    def say(self, answer: Answer, texts: list[str]) -> None:
        async def said() -> None:
            answer.writer.append([Text(text) for text in texts])
            await settled(answer.writer)

        if not answer.ended:
            self.do(said())
            answer.records += texts

    @rule(answer=answers)
    def finish(self, answer: Answer) -> None:
        async def finished() -> None:
            answer.writer.append([DONE])
            await settled(answer.writer)

        if not answer.ended:
            self.do(finished())
            answer.ended = True
            answer.records.append("<done>")

    @rule(target=readers, answer=answers, back=st.integers(0, 12))
    def attach(self, answer: Answer, back: int) -> Any:
        after = len(answer.records) - 1 - back
        if after < -1:
            return multiple()
        return self.do(self._attach(answer, after))

    async def _attach(self, answer: Answer, after: int) -> Reader:
        reader: list[Reader] = []

        def wake() -> None:
            reader[0].wakes += 1

        cursor = await self.bench.log.attach(answer.name, after, wake, None)
        reader.append(Reader(answer, cursor, after))
        self.known.append(reader[0])
        return reader[0]

    @rule(answer=answers, beyond=st.integers(0, 3))
    def attach_beyond_the_head(self, answer: Answer, beyond: int) -> None:
        after = len(answer.records) + beyond
        with pytest.raises(RelayError):
            self.do(self.bench.log.attach(answer.name, after, lambda: None, None))

    @rule(reader=readers, limit=st.integers(1, 200))
    def take(self, reader: Reader, limit: int) -> None:
        chunk = reader.cursor.take(limit)
        if chunk is None:
            return
        assert chunk.first == reader.first + len(reader.had)
        expected = reader.answer.records[chunk.first : chunk.last + 1]
        if chunk.kind == "token":
            assert unescape(chunk.body) == "".join(expected)
        else:
            assert expected == [f"<{chunk.kind}>"]
        reader.had += expected

    @rule(reader=consumes(readers))
    def read_on_to_the_head(self, reader: Reader) -> None:
        """Nothing that was settled is missing behind a cursor."""
        while reader.first + len(reader.had) < len(reader.answer.records):
            had = len(reader.had)
            self.take(reader, 60_000)
            assert len(reader.had) > had
        assert reader.cursor.take(100) is None
        reader.cursor.close()
        reader.cursor.close()

    @rule(reader=consumes(readers))
    def leave(self, reader: Reader) -> None:
        reader.cursor.close()

    @rule(answer=answers)
    def cancel(self, answer: Answer) -> None:
        self.do(self.bench.log.cancel(answer.name, None))
        answer.cancelled = answer.cancelled or not answer.ended

    @rule()
    def come_and_go(self) -> None:
        async def turned() -> bool:
            known = await self.bench.log.open_session(SESSION, None)
            await self.bench.log.leave_session(SESSION)
            return known

        assert self.do(turned())

    @rule()
    def lose_every_connection(self) -> None:
        if self.kind != "memory":
            _server[0].disconnect_all()

    @rule(answer=answers)
    def look(self, answer: Answer) -> None:
        info = self.do(self.bench.log.info(answer.name, None))
        assert (info.id, info.seq) == (answer.id, len(answer.records) - 1)
        assert info.status == ("done" if answer.ended else "running")

    @rule()
    def look_at_what_never_was(self) -> None:
        with pytest.raises(StreamExpired):
            self.do(self.bench.log.info("nothing", None))

    @invariant()
    def a_cancel_is_told_once(self) -> None:
        for reader in self.known:
            assert reader.answer.cancels == int(reader.answer.cancelled)


class RedisMachine(StreamLogMachine):
    kind = "redis"


class TwoNodesMachine(StreamLogMachine):
    kind = "redis-follower"


_SETTINGS = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestMemory = StreamLogMachine.TestCase
TestRedis = RedisMachine.TestCase
TestTwoNodes = TwoNodesMachine.TestCase
TestMemory.settings = TestRedis.settings = TestTwoNodes.settings = _SETTINGS
