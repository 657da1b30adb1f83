"""What may be wrong with Redis, in words that an operator can act on and that hold no
address and no password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer

from relay.errors import Code, RelayError

OLDEST = 7
"""The oldest major version of Redis that has what the relay needs (sharded publish)."""

TROUBLE = (RedisError, OSError, TimeoutError)
"""What a call to Redis raises where it does not do what it was asked."""

_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (BusyLoadingError, "is loading its data (LOADING)"),
    (AuthenticationError, "refuses the user or password of REDIS_URL (NOAUTH, WRONGPASS)"),
    (NoPermissionError, "does not let the user of REDIS_URL do all it has to (NOPERM)"),
    (ReadOnlyError, "is a replica and keeps nothing (READONLY)"),
    (OutOfMemoryError, "is full and keeps nothing (OOM, maxmemory)"),
    (MaxConnectionsError, "is asked more at once than this server has connections for"),
    (MovedError, "is one node of a cluster (MOVED)"),
    (MasterDownError, "is a replica that lost its primary (MASTERDOWN)"),
    (ClusterDownError, "is one node of a cluster (CLUSTERDOWN)"),
    (NoAnswer, "does not answer in time"),
    (TimeoutError, "does not answer in time"),
    (NoConnection, "can't be reached"),
    (OSError, "can't be reached"),
)
_BY_FIRST_WORD = {
    "MISCONF": "can't save to its disk and keeps nothing (MISCONF)",
    "NOREPLICAS": "lacks replicas that it must write to and keeps nothing (NOREPLICAS)",
}


class Unfit(Exception):
    """A server that the relay can't work with, however long it waits; the text says why."""


def reason(error: BaseException) -> str:
    """What is wrong, to follow the word Redis."""
    while isinstance(error, NoConnection) and isinstance(error.__cause__, RedisError):
        error = error.__cause__  # what the client met while it connected
    for kind, said in _REASONS:
        if isinstance(error, kind):
            return said
    word = str(error).partition(" ")[0]
    if isinstance(error, ResponseError) and word.isalpha() and word.isupper():
        return _BY_FIRST_WORD.get(word, f"refuses what it is asked ({word})")
    return f"does not do its part ({type(error).__name__})"


def unfit(info: Mapping[str, Any]) -> str | None:
    """Why the relay can't work with a server of this `INFO`, to follow the word Redis; None
    where it can. A cluster's node has some of the streams only, and subscribes channels of
    one slot at a time."""
    if int(info.get("cluster_enabled", 0)):
        return "is one node of a cluster; the relay wants one server, replicas of it beside"
    version = str(info.get("redis_version", ""))
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST:
        return f"has version {version}; the relay wants {OLDEST} or later, or Valkey"
    return None


def unanswered() -> RelayError:
    """What clients are told where Redis does not do its part."""
    return RelayError(Code.INTERNAL, "the relay's store does not answer; try again", retryable=True)
