"""What Redis may do to streams under way: connected readers get the whole text or an honest
error, nothing twice, and the node serves on."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis as sync_redis

from lab.redis_process import RedisProcess
from lab.waiting import PATIENCE, until
from relay.core.errors import Code, Fenced, RelayError, StreamExpired
from relay.core.events import Text
from relay.core.streamlog import Created, Orphan, Writer
from relay.stores.redis.connection import CALLS_AT_ONCE
from relay.stores.redis.stream import RedisStream
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
    text,
)

Trouble = Callable[[RedisProcess], Awaitable[None]]


async def flushed(server: RedisProcess) -> None:
    for _ in range(5):
        await asyncio.to_thread(server.flush)


async def disconnected(server: RedisProcess) -> None:
    for _ in range(5):
        await asyncio.to_thread(server.disconnect_all)


async def scripts_forgotten(server: RedisProcess) -> None:
    with sync_redis.Redis.from_url(server.url) as client:
        client.script_flush()


async def restarted_empty(server: RedisProcess) -> None:
    server.kill()
    await asyncio.sleep(0.3)  # what nodes do meanwhile fails, which is the point
    server.start()


async def frozen_for_five_seconds(server: RedisProcess) -> None:
    server.freeze()
    await asyncio.sleep(5)
    server.thaw()


async def full_for_a_while(server: RedisProcess) -> None:
    server.configure(maxmemory=1, maxmemory_policy="noeviction")
    await asyncio.sleep(0.5)
    server.configure(maxmemory=0)


TROUBLES = [
    flushed,
    disconnected,
    scripts_forgotten,
    restarted_empty,
    frozen_for_five_seconds,
    full_for_a_while,
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda each: each.__name__)
async def test_connected_readers_on_both_nodes_get_the_whole_text(
    server: RedisProcess, make_node: MakeNode, trouble: Trouble
) -> None:
    a, b = await make_node(), await make_node()
    orphans: list[Orphan] = []
    for node in (a, b):
        node.on_orphan(orphans.append)
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await speak(writer, 0, 20)
    await settled(writer)
    talking = asyncio.create_task(speak(writer, 20, 200))
    await trouble(server)
    await talking
    await until(lambda: a.healthy and b.healthy)
    writer.append([DONE])
    await asyncio.wait_for(settled(writer), PATIENCE)
    await until(lambda: here.ended and there.ended)
    assert (here.text, there.text) == (text(200), text(200))
    assert (here.error, there.error, orphans) == (None, None, [])
    assert (await a.info("st1", None)).status == "done"
    late = await Reader().attach(b)
    assert late.text == text(200)


@pytest.mark.parametrize("trouble", [flushed, restarted_empty], ids=lambda each: each.__name__)
async def test_what_had_ended_is_gone_and_told_so_and_sessions_in_use_live_on(
    server: RedisProcess, make_node: MakeNode, trouble: Trouble
) -> None:
    a, b = await make_node(), await make_node()
    await a.open_session(SESSION, None)
    ended, running = await begun(a), await begun(a, stream="st2", id="b")
    ended.append([DONE])
    await settled(ended)
    await trouble(server)
    running.append([Text("x")])
    await settled(running)
    await a.tick()
    assert await b.open_session(SESSION, None)
    assert await b.find(SESSION, "b") == "st2"
    assert [each.stream for each in await b.session_streams(SESSION)] == ["st2"]
    with pytest.raises(StreamExpired):
        await b.attach("st1", -1, lambda: None, None)


@pytest.mark.parametrize("away", ["silent", "full"])
async def test_after_too_long_a_pause_readers_are_told_and_the_upstream_is_closed(
    server: RedisProcess, make_node: MakeNode, away: str
) -> None:
    a, b = await make_node(max_pause=3.5), await make_node(max_pause=3.5)
    writer = await begun(a)
    lost: list[int] = []
    writer.on_lost(lambda: lost.append(1))
    here, there = await Reader().attach(a), await Reader().attach(b)
    if away == "silent":
        server.kill()
    else:
        server.configure(maxmemory=1, maxmemory_policy="noeviction")
    writer.append([Text("never safe")])
    with pytest.raises(RelayError):
        await asyncio.wait_for(settled(writer), PATIENCE)
    assert lost == [1]
    assert here.error is not None
    assert (here.error.code, here.error.retryable) == (Code.INTERNAL, True)
    assert here.text == ""
    with pytest.raises(Fenced):
        writer.append([Text("more")])
    with pytest.raises(RelayError) as refused:
        await a.create(spec(stream="st2", id="b"))
    assert refused.value.retryable
    assert not a.healthy
    if away == "silent":
        await until(lambda: there.error is not None)
        server.start()
    else:
        server.configure(maxmemory=0)
    await until(lambda: a.healthy)
    second = await begun(a, stream="st3", id="c")
    second.append([DONE])
    await settled(second)


async def test_a_chat_sent_while_redis_is_away_waits_for_it(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a = await make_node()
    server.kill()
    asked = asyncio.create_task(a.create(spec()))
    await until(lambda: not a.healthy)
    assert not asked.done()
    server.start()
    assert isinstance(await asyncio.wait_for(asked, PATIENCE), Created)


async def test_nothing_is_shown_before_redis_has_it(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a = await make_node()
    writer = await begun(a)
    reader = await Reader().attach(a)
    server.freeze()
    writer.append([Text("held")])
    await until(lambda: not a.healthy)
    assert reader.text == ""
    server.thaw()
    await settled(writer)
    assert reader.text == "held"


async def test_a_reader_may_come_to_the_owner_with_more_than_it_knows_to_be_safe(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has a record and tells its followers; the owner's own answer is still under way."""
    a, b = await make_node(), await make_node()
    writer = await begun(a)
    reader = await Reader().attach(b)
    exchange, answered = a._courier._exchange, asyncio.Event()

    async def answered_late(*given: Any) -> Any:
        answers = await exchange(*given)
        await answered.wait()
        return answers

    monkeypatch.setattr(a._courier, "_exchange", answered_late)
    writer.append([Text("early")])
    await until(lambda: reader.text == "early")
    reader.close()
    await reader.attach(a)
    answered.set()
    writer.append([Text(" and late"), DONE])
    await until(lambda: reader.ended)
    assert (reader.text, reader.error) == ("early and late", None)


class Driver:
    """Whoever writes an answer: holds its writer, and is called by it."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        writer.on_cancel(self.end)
        writer.on_lost(self.end)

    def end(self) -> None:
        pass


async def test_what_wrote_an_answer_goes_with_its_end_and_waits_for_no_collector(
    make_node: MakeNode,
) -> None:
    log = await make_node()
    writer = await begun(log)
    reader = await Reader().attach(log)
    driver = weakref.ref(Driver(writer))
    assert driver() is not None
    gc.disable()
    try:
        writer.append([Text("x"), DONE])
        await until(lambda: reader.ended)
        assert driver() is None
    finally:
        gc.enable()


def _store(server: RedisProcess) -> sync_redis.Redis:
    return sync_redis.Redis.from_url(server.url)


def roll_back(server: RedisProcess, to: int, stream: str = "st1") -> None:
    """As a Redis that restarted from an older snapshot: records from `to` on are gone."""
    with _store(server) as client:
        for entry, _ in client.xrange(f"relay:{{{stream}}}:log"):
            if int(entry.split(b"-")[0]) > to:
                client.xdel(f"relay:{{{stream}}}:log", entry)
        client.hset(f"relay:{{{stream}}}", mapping={"next": to, "epoch": 1})


async def test_the_owner_writes_anew_what_an_older_snapshot_lacks(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    writer = await begun(a)
    reader = await Reader().attach(b)
    await speak_slowly(writer, 10)
    await until(lambda: reader.last == 10)
    roll_back(server, to=4)
    await a.tick()
    await a.rest()
    late = await Reader().attach(b)
    writer.append([Text("<10>"), DONE])
    await settled(writer)
    await until(lambda: reader.ended and late.ended)
    assert reader.text == late.text == text(11)


async def test_a_reader_who_had_more_than_the_new_owner_is_told_not_given_a_mixture(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    c = await make_node(lease_seconds=60)  # it hears of the new owner before it looks
    orphans: list[Orphan] = []
    writer = await begun(a)
    reader = await Reader().attach(c)
    await speak_slowly(writer, 10)
    await until(lambda: reader.last == 10)
    await a.close()
    roll_back(server, to=4)
    b.on_orphan(orphans.append)
    fresh = await Reader().attach(b)
    await until(lambda: orphans)
    assert fresh.text == text(3)
    orphans[0].writer.append([Text("another ending"), *[Text("!")] * 12, DONE])
    await settled(orphans[0].writer)
    await until(lambda: reader.ended and fresh.ended)
    assert isinstance(reader.error, StreamExpired)
    assert reader.text == text(10)
    assert fresh.text == text(3) + "another ending" + "!" * 12


async def test_an_orphan_whose_records_are_lost_is_told_gone(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    b.on_orphan(lambda orphan: pytest.fail("taken over without its beginning"))
    writer = await begun(a)
    await speak(writer, 0, 5)
    await settled(writer)
    await a.close()
    with _store(server) as client:
        client.delete("relay:{st1}:log")
    reader = await Reader().attach(b)
    await until(lambda: reader.ended)
    assert isinstance(reader.error, StreamExpired)
    assert reader.text == ""


async def test_a_stream_whose_owner_died_before_its_first_record_is_begun_anew(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    orphans: list[Orphan] = []
    await a.create(spec())
    await a.close()
    b.on_orphan(orphans.append)
    reader = await Reader().attach(b)
    await until(lambda: orphans)
    writer = orphans[0].writer
    assert isinstance(writer, RedisStream)
    assert (orphans[0].chunks, writer.epoch) == ([], 2)
    assert orphans[0].spec is not None
    assert orphans[0].spec.request == spec().request
    reader.close()


async def test_a_zombies_append_is_refused_and_its_reader_follows_the_new_owner(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    orphans: list[Orphan] = []
    b.on_orphan(orphans.append)
    writer = await begun(a)
    lost: list[int] = []
    writer.on_lost(lambda: lost.append(1))
    here, there = await Reader().attach(a), await Reader().attach(b)
    await a._keeper.stop()  # it renews no more, as if it were frozen
    await until(lambda: orphans)
    writer.append([Text("of a zombie")])
    with pytest.raises(Fenced):
        await asyncio.wait_for(settled(writer), PATIENCE)
    assert lost == [1]
    orphans[0].writer.append([Text("of the new owner"), DONE])
    await settled(orphans[0].writer)
    await until(lambda: there.ended)
    assert there.text == "of the new owner"
    assert here.text == ""


async def test_a_stream_handed_over_is_taken_at_once_and_its_readers_stay(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(lease_seconds=3), await make_node(lease_seconds=3)
    orphans: list[Orphan] = []
    b.on_orphan(orphans.append)
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await until(lambda: b._health.may_take_over)
    writer.append([Text("said before")])
    began = time.monotonic()
    assert await a.hand_over(writer)
    await until(lambda: orphans)
    assert time.monotonic() - began < 2, "it waited for the lease to run out"
    assert not orphans[0].late
    orphans[0].writer.append([Text(", said after"), DONE])
    await until(lambda: here.ended and there.ended)
    assert here.text == there.text == "said before, said after"


async def test_a_cancel_of_an_orphan_without_readers_ends_it(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    orphans: list[Orphan] = []
    await begun(a)
    await a.close()
    b.on_orphan(orphans.append)
    await b.cancel("st1", None)
    await until(lambda: orphans)
    assert orphans[0].cancelled
    orphans[0].writer.append([DONE])
    await settled(orphans[0].writer)
    await until(lambda: not b._streams.by_name)


async def test_many_calls_at_once_hold_few_connections(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    await begun(a)
    readers = await asyncio.gather(*(Reader().attach(b) for _ in range(500)))
    with _store(server) as client:
        assert len(client.client_list()) <= 2 * (CALLS_AT_ONCE + 5)
    for reader in readers:
        reader.close()


async def test_nothing_is_left_on_a_node_once_nobody_reads_or_writes(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await b.cancel("st1", None)
    with pytest.raises(RelayError):
        await b.attach("st1", 99, lambda: None, None)
    writer.append([DONE])
    await settled(writer)
    await until(lambda: there.ended)
    here.close()
    there.close()
    assert (a._streams.by_name, b._streams.by_name) == ({}, {})
    with _store(server) as client:
        await until(lambda: len(client.execute_command("PUBSUB", "SHARDCHANNELS")) == 2)
        await until(lambda: not client.exists("relay:{st1}:readers"))


async def test_a_long_answer_appended_at_once_goes_out_in_batches(
    server: RedisProcess, make_node: MakeNode
) -> None:
    a, b = await make_node(), await make_node()
    writer = await begun(a)
    reader = await Reader().attach(b)
    writer.append([Text("x" * 100) for _ in range(5_000)])
    writer.append([DONE])
    await settled(writer)
    await until(lambda: reader.ended)
    assert reader.text == "x" * 500_000
    with _store(server) as client:
        entries = client.xrange("relay:{st1}:log")
    assert len(entries) > 5
    assert max(len(fields[b"r"]) for _, fields in entries) < 80_000
