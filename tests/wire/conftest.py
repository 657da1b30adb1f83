"""A Redis server of a test's own, and the nodes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis as sync_redis

from lab.redis_process import RedisProcess
from relay.stores.redis import RedisLog
from tests.wire.redis_nodes import MakeNode, started


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    process = RedisProcess()
    yield process
    process.close()


@pytest.fixture
def store(server: RedisProcess) -> Iterator[sync_redis.Redis]:
    """The server, asked directly."""
    with sync_redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def limits() -> dict[str, Any]:
    """What the nodes of a file's tests have in common: a file that wants others overrides it."""
    return {}


@pytest.fixture
async def make_node(server: RedisProcess, limits: dict[str, Any]) -> AsyncIterator[MakeNode]:
    """Starts nodes on the server; they are closed after the test."""
    made: list[RedisLog] = []

    async def make(**others: Any) -> RedisLog:
        made.append(await started(server.url, **limits | others))
        return made[-1]

    yield make
    for log in made:
        await log.close()
