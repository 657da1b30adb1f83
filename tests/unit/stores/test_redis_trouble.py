"""What operators are told of Redis: the same words for the same trouble, and no secret."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from relay.stores.redis_trouble import reason, unfit


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
