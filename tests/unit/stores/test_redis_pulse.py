"""When a node may take streams over, and when it loses patience with Redis."""

import asyncio
from collections.abc import Iterator

import pytest
from loguru import logger

from relay.stores.redis_pulse import SAME_TROUBLE, Pulse


class Bench:
    def __init__(self, patience: float = 0.0) -> None:
        self.now = 100.0
        self.given_up = asyncio.Event()
        self.pulse = Pulse(lambda: self.now, lease=10, patience=patience, give_up=self.given_up.set)

    def answers_for(self, seconds: float, every: float = 3.0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.pulse.answered()
            self.now += every
        self.pulse.answered()


async def test_a_node_may_take_over_after_a_lease_of_answers():
    bench = Bench()
    assert not bench.pulse.may_take_over
    bench.answers_for(9)
    assert not bench.pulse.may_take_over
    bench.answers_for(3)
    assert bench.pulse.may_take_over


async def test_a_failed_call_starts_the_lease_of_answers_anew():
    bench = Bench(patience=60)
    bench.answers_for(20)
    bench.pulse.failed("hangs")
    assert not bench.pulse.may_take_over
    bench.answers_for(9)
    assert not bench.pulse.may_take_over
    bench.answers_for(3)
    assert bench.pulse.may_take_over
    bench.pulse.stop()


async def test_a_silence_that_no_call_noticed_counts_as_a_break():
    bench = Bench()
    bench.answers_for(20)
    bench.now += 7
    bench.pulse.answered()
    assert not bench.pulse.may_take_over


async def test_patience_ends_once_and_the_next_answer_restores_it():
    bench = Bench()
    bench.pulse.failed("hangs")
    assert not bench.pulse.healthy
    await asyncio.wait_for(bench.given_up.wait(), 5)
    assert bench.pulse.gave_up
    bench.pulse.answered()
    assert bench.pulse.healthy
    assert not bench.pulse.gave_up


async def test_an_answer_in_time_keeps_everything():
    bench = Bench(patience=0.01)
    bench.pulse.failed("hangs")
    bench.pulse.answered()
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, later.set)
    await later.wait()
    assert not bench.given_up.is_set()


async def test_a_redis_that_answers_but_keeps_nothing_is_not_healthy_until_it_keeps():
    bench = Bench(patience=60)
    bench.pulse.refused("is full")
    bench.pulse.answered()
    assert not bench.pulse.healthy
    bench.pulse.kept()
    assert bench.pulse.healthy


async def test_a_redis_that_refuses_does_not_earn_a_take_over_by_what_it_lets_read():
    bench = Bench(patience=60)
    bench.pulse.refused("is a replica")
    bench.answers_for(30)
    bench.pulse.kept()
    assert not bench.pulse.may_take_over
    bench.answers_for(10)
    assert bench.pulse.may_take_over


@pytest.fixture
def lines() -> Iterator[list[str]]:
    told: list[str] = []
    sink = logger.add(told.append, format="{level} {message}", level="INFO")
    yield told
    logger.remove(sink)


async def test_a_trouble_is_told_once_for_each_reason_and_so_is_its_end(lines):
    bench = Bench(patience=60)
    for _ in range(3):
        bench.pulse.failed("can't be reached")
    for _ in range(3):
        bench.pulse.failed("is loading")
    bench.now += 5
    bench.pulse.answered()
    bench.pulse.answered()
    assert [line.split(":")[0].strip() for line in lines] == [
        "WARNING Redis can't be reached",
        "WARNING Redis is loading",
        "INFO Redis does its part again, after 5.0 s",
    ]


async def test_a_trouble_that_comes_and_goes_is_not_told_each_time(lines):
    bench = Bench(patience=60)
    for _ in range(100):
        bench.pulse.refused("is full")
        bench.now += 0.1
        bench.pulse.kept()
    assert len(lines) == 2
    bench.now += SAME_TROUBLE + 1
    bench.pulse.refused("is full")
    assert len(lines) == 3
    bench.pulse.stop()


async def test_the_end_of_patience_is_an_error_that_names_the_reason(lines):
    bench = Bench()
    bench.pulse.refused("is full")
    await asyncio.wait_for(bench.given_up.wait(), 5)
    assert lines[-1].startswith("ERROR Redis is full, for 0 s: answers under way end")
