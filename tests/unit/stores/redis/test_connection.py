"""When a node may take streams over, when it loses patience with Redis, and what operators are
told: the same words for the same trouble, and no secret."""

import asyncio
from collections.abc import Iterator

import pytest
from loguru import logger
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from relay.stores.redis.connection import SAME_TROUBLE, StoreHealth, reason, unfit


class Bench:
    def __init__(self, patience: float = 0.0) -> None:
        self.now = 100.0
        self.given_up = asyncio.Event()
        self.health = StoreHealth(
            lambda: self.now, lease=10, patience=patience, give_up=self.given_up.set
        )

    def answers_for(self, seconds: float, every: float = 3.0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.health.answered()
            self.now += every
        self.health.answered()


async def test_a_node_may_take_over_after_a_lease_of_answers():
    bench = Bench()
    assert not bench.health.may_take_over
    bench.answers_for(9)
    assert not bench.health.may_take_over
    bench.answers_for(3)
    assert bench.health.may_take_over


async def test_a_failed_call_starts_the_lease_of_answers_anew():
    bench = Bench(patience=60)
    bench.answers_for(20)
    bench.health.failed("hangs")
    assert not bench.health.may_take_over
    bench.answers_for(9)
    assert not bench.health.may_take_over
    bench.answers_for(3)
    assert bench.health.may_take_over
    bench.health.stop()


async def test_a_silence_that_no_call_noticed_counts_as_a_break():
    bench = Bench()
    bench.answers_for(20)
    bench.now += 7
    bench.health.answered()
    assert not bench.health.may_take_over


async def test_patience_ends_once_and_the_next_answer_restores_it():
    bench = Bench()
    bench.health.failed("hangs")
    assert not bench.health.healthy
    await asyncio.wait_for(bench.given_up.wait(), 5)
    assert bench.health.gave_up
    bench.health.answered()
    assert bench.health.healthy
    assert not bench.health.gave_up


async def test_an_answer_in_time_keeps_everything():
    bench = Bench(patience=0.01)
    bench.health.failed("hangs")
    bench.health.answered()
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, later.set)
    await later.wait()
    assert not bench.given_up.is_set()


async def test_a_redis_that_answers_but_keeps_nothing_is_not_healthy_until_it_keeps():
    bench = Bench(patience=60)
    bench.health.refused("is full")
    bench.health.answered()
    assert not bench.health.healthy
    bench.health.kept()
    assert bench.health.healthy


async def test_a_redis_that_refuses_does_not_earn_a_take_over_by_what_it_lets_read():
    bench = Bench(patience=60)
    bench.health.refused("is a replica")
    bench.answers_for(30)
    bench.health.kept()
    assert not bench.health.may_take_over
    bench.answers_for(10)
    assert bench.health.may_take_over


@pytest.fixture
def lines() -> Iterator[list[str]]:
    told: list[str] = []
    sink = logger.add(told.append, format="{level} {message}", level="INFO")
    yield told
    logger.remove(sink)


async def test_a_trouble_is_told_once_for_each_reason_and_so_is_its_end(lines):
    bench = Bench(patience=60)
    for _ in range(3):
        bench.health.failed("can't be reached")
    for _ in range(3):
        bench.health.failed("is loading")
    bench.now += 5
    bench.health.answered()
    bench.health.answered()
    assert [line.split(":")[0].strip() for line in lines] == [
        "WARNING Redis can't be reached",
        "WARNING Redis is loading",
        "INFO Redis recovered after 5.0 s",
    ]


async def test_a_trouble_that_comes_and_goes_is_not_told_each_time(lines):
    bench = Bench(patience=60)
    for _ in range(100):
        bench.health.refused("is full")
        bench.now += 0.1
        bench.health.kept()
    assert len(lines) == 2
    bench.now += SAME_TROUBLE + 1
    bench.health.refused("is full")
    assert len(lines) == 3
    bench.health.stop()


async def test_the_end_of_patience_is_an_error_that_names_the_reason(lines):
    bench = Bench()
    bench.health.refused("is full")
    await asyncio.wait_for(bench.given_up.wait(), 5)
    assert lines[-1].startswith("ERROR Redis is full, for 0 s: running answers end")


def answered(line: str) -> Exception:
    """The error that the client makes of a server's answer."""
    error: Exception = Connection()._parser.parse_error(line)
    return error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("READONLY You can't write against a read only replica.", "is a replica"),
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("MISCONF Redis is configured to save RDB snapshots", "can't save to its disk"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "is full"),
        ("NOAUTH Authentication required.", "refuses the user or password"),
        ("WRONGPASS invalid username-password pair", "refuses the user or password"),
        ("NOPERM User default has no permissions", "does not let the user"),
        ("NOREPLICAS Not enough good replicas to write.", "lacks replicas"),
        ("CLUSTERDOWN Hash slot not served", "is one node of a cluster"),
        ("MASTERDOWN Link with MASTER is down", "is a replica that lost its primary"),
        ("MOVED 3999 127.0.0.1:6381", "is one node of a cluster"),
        ("BUSY Redis is busy running a script.", "refuses what it is asked (BUSY)"),
        ("ERR max number of clients reached", "can't be reached"),
    ],
)
def test_each_answer_has_its_words(line: str, said: str) -> None:
    assert reason(answered(line)).startswith(said)


@pytest.mark.parametrize(
    "error",
    [
        NoConnection("Error 111 connecting to redis://:sEcReT@10.0.0.7:6379. refused."),
        ResponseError("sEcReT@10.0.0.7 is what it said"),
        OSError("10.0.0.7 sEcReT"),
        TimeoutError("10.0.0.7 sEcReT"),
        ValueError("10.0.0.7 sEcReT"),
    ],
)
def test_no_address_and_no_password_is_told(error: Exception) -> None:
    said = reason(error)
    assert "sEcReT" not in said
    assert "10.0.0.7" not in said


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"cluster_enabled": 1, "redis_version": "7.2.4"}, "is one node of a cluster"),
        ({"cluster_enabled": 0, "redis_version": "6.2.14"}, "has version 6.2.14"),
        ({"redis_version": "5.0.0"}, "has version 5.0.0"),
    ],
)
def test_a_server_that_will_never_do_is_told_why(info: dict[str, object], said: str) -> None:
    found = unfit(info)
    assert found is not None
    assert found.startswith(said)


@pytest.mark.parametrize(
    "info",
    [
        {"cluster_enabled": 0, "redis_version": "7.0.0"},
        {"redis_version": "7.2.4", "server_name": "valkey"},
        {"redis_version": "10.1.0"},
        {},
    ],
)
def test_others_are_taken(info: dict[str, object]) -> None:
    assert unfit(info) is None
