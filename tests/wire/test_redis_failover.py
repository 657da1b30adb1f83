"""A Redis that turns into a replica, and one that takes its place: nothing is lost without
a word, nothing comes twice, and the nodes find what rules by themselves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis as sync_redis

from lab.ports import free_port
from lab.redis_process import RedisProcess
from lab.waiting import PATIENCE, until
from relay.core.errors import Code, RelayError
from relay.core.events import Text
from relay.core.streamlog import Orphan
from relay.stores.redis import RedisLog
from tests.wire.redis_nodes import (
    DONE,
    SESSION,
    MakeNode,
    Reader,
    begun,
    settled,
    speak,
    speak_slowly,
    spec,
    started,
    text,
)

NOBODY = ("127.0.0.1", 1)
"""A primary that is not there: its replica keeps what it has and refuses to write."""


async def test_after_a_spell_as_a_replica_the_answer_goes_on_with_the_owner_it_had(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    orphans: list[Orphan] = []
    for node in (a, b):
        node.on_orphan(orphans.append)
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await until(lambda: b._health.may_take_over)
    await speak(writer, 0, 20)
    await settled(writer)
    store.replicaof(*NOBODY)
    writer.append([Text("<20>")])
    await until(lambda: not a.healthy and not b.healthy)
    while store.exists("relay:{st1}:lease"):  # reading goes on, and must not pass for health
        assert (await b.info("st1", None)).status == "running"
    assert (here.text, here.error) == (text(20), None)
    store.replicaof("NO", "ONE")
    await speak(writer, 21, 60)
    writer.append([DONE])
    await asyncio.wait_for(settled(writer), PATIENCE)
    await until(lambda: here.ended and there.ended and a.healthy and b.healthy)
    assert (here.text, there.text) == (text(60), text(60))
    assert (here.error, there.error, orphans) == (None, None, [])


async def test_after_too_long_as_a_replica_readers_are_told_to_try_again(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    a, b = await make_node(max_pause=3.5), await make_node(max_pause=3.5)
    lost: list[int] = []
    writer = await begun(a)
    writer.on_lost(lambda: lost.append(1))
    here, there = await Reader().attach(a), await Reader().attach(b)
    store.replicaof(*NOBODY)
    writer.append([Text("never safe")])
    await until(lambda: here.ended and there.ended)
    for reader in (here, there):
        assert reader.error is not None
        assert (reader.text, reader.error.code, reader.error.retryable) == ("", Code.INTERNAL, True)
    assert lost == [1]
    assert not a.healthy
    with pytest.raises(RelayError) as refused:
        await a.create(spec(stream="st2", id="b"))
    assert refused.value.retryable
    store.replicaof("NO", "ONE")
    await until(lambda: a.healthy and b.healthy)
    again = await begun(a, stream="st3", id="c")
    reader = await Reader().attach(b, "st3")
    again.append([DONE])
    await until(lambda: reader.ended)
    assert reader.error is None


async def test_a_node_that_starts_on_a_replica_says_so_at_once_and_recovers(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    store.replicaof(*NOBODY)
    node = await make_node(lease_seconds=60)
    assert not node.healthy
    store.replicaof("NO", "ONE")
    await node.open_session(SESSION, None)
    assert node.healthy


class Pair:
    """A primary, its replica, and the one address by which clients reach whichever rules."""

    def __init__(self, folder: Path) -> None:
        self._front = folder / "front.sock"
        self.url = f"unix://{self._front}"
        self._ports = (free_port(), free_port())
        self.old, self.new = (RedisProcess("--port", str(port)) for port in self._ports)
        self.point_to(self.old)
        self.ask(self.new).replicaof("127.0.0.1", self._ports[0])

    def ask(self, which: RedisProcess) -> sync_redis.Redis:
        return sync_redis.Redis.from_url(which.url)

    def point_to(self, which: RedisProcess) -> None:
        made = self._front.with_suffix(".made")
        made.symlink_to(which.socket)
        os.replace(made, self._front)

    def in_step(self) -> bool:
        told = [self.ask(each).info("replication") for each in (self.old, self.new)]
        synced = told[1].get("master_link_status") == "up"
        return synced and told[0]["master_repl_offset"] == told[1]["slave_repl_offset"]

    def fail_over(self) -> None:
        """As Sentinel does: the replica rules, the former primary follows it."""
        self.ask(self.new).replicaof("NO", "ONE")
        self.ask(self.old).replicaof("127.0.0.1", self._ports[1])
        self.point_to(self.new)

    def connections(self, which: RedisProcess) -> int:
        client = self.ask(which)
        normal, listening = client.client_list("normal"), client.client_list("pubsub")
        return len(normal) + len(listening) - 1  # the one that asks

    def close(self) -> None:
        self.old.close()
        self.new.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def nodes(pair: Pair) -> AsyncIterator[tuple[RedisLog, RedisLog]]:
    made = await started(pair.url), await started(pair.url)
    yield made
    for node in made:
        await node.close()


async def test_nodes_follow_the_address_to_the_new_primary_with_every_connection(
    pair: Pair, nodes: tuple[RedisLog, RedisLog]
) -> None:
    a, b = nodes
    orphans: list[Orphan] = []
    for node in nodes:
        node.on_orphan(orphans.append)
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await speak(writer, 0, 20)
    await settled(writer)
    await until(pair.in_step)
    talking = asyncio.create_task(speak(writer, 20, 200))
    pair.fail_over()
    await talking
    await asyncio.wait_for(settled(writer), PATIENCE)
    await until(lambda: not pair.connections(pair.old) and a.healthy and b.healthy)
    writer.append([DONE])
    await until(lambda: here.ended and there.ended)
    assert (here.text, there.text) == (text(200), text(200))
    assert (here.error, there.error, orphans) == (None, None, [])
    assert (await Reader().attach(b)).text == text(200)
    assert pair.ask(pair.new).exists("relay:{st1}")


async def test_a_new_primary_that_lacks_the_last_records_gets_them_from_the_owner(
    pair: Pair, nodes: tuple[RedisLog, RedisLog]
) -> None:
    a, b = nodes
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await speak_slowly(writer, 5)
    await until(pair.in_step)
    pair.ask(pair.new).replicaof(*NOBODY)  # it is cut off from here on
    writer.append([Text("<5>")])
    await settled(writer)
    await until(lambda: there.text == text(6))
    pair.fail_over()
    await speak(writer, 6, 30)
    writer.append([DONE])
    await until(lambda: here.ended and there.ended)
    assert (here.text, there.text) == (text(30), text(30))
    assert (here.error, there.error) == (None, None)
    assert (await Reader().attach(b)).text == text(30)


async def test_a_stream_whose_owner_dies_with_the_primary_is_taken_over_on_the_new_one(
    pair: Pair, nodes: tuple[RedisLog, RedisLog]
) -> None:
    a, b = nodes
    orphans: list[Orphan] = []
    b.on_orphan(orphans.append)
    writer = await begun(a)
    there = await Reader().attach(b)
    await speak_slowly(writer, 5)
    await until(pair.in_step)
    await a.close()
    pair.old.kill()
    pair.ask(pair.new).replicaof("NO", "ONE")
    pair.point_to(pair.new)
    await until(lambda: orphans)
    orphans[0].writer.append([Text("<5>"), DONE])
    await until(lambda: there.ended)
    assert (there.text, there.error) == (text(6), None)
