"""An answer under way whose owner died: how long it waits for a reader, and what must not be
taken for its loss. Two nodes in one process on a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis as sync_redis

from lab.redis_process import RedisProcess
from lab.waiting import until
from relay.core.errors import Code
from relay.core.events import Start, Text
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Created, Orphan, Spec, Writer
from relay.stores.redis import RedisLog
from relay.stores.redis.connection import unanswered
from relay.stores.redis.leases import MISSES
from relay.stores.redis.scripts import Command
from tests.wire.redis_nodes import (
    DONE,
    SESSION,
    MakeNode,
    Reader,
    settled,
)

GRACE = 300.0
WINDOW = 20.0


@pytest.fixture
def limits() -> dict[str, float]:
    return {"lease_seconds": 0.3, "resume_window": WINDOW}


async def begun(log: RedisLog) -> Writer:
    request = ChatRequest("gpt", (Turn("user", "hi"),), conversation="a talk")
    await log.open_session(SESSION, None)
    claim = await log.create(Spec("st1", SESSION, "a", None, request, GRACE))
    assert isinstance(claim, Created)
    claim.writer.append([Start("st1", "gpt", "m"), Text("one ")])
    await settled(claim.writer)
    await log.rest()
    return claim.writer


async def finished_by(heir: RedisLog) -> str:
    """What a reader has who comes back to the session on a node that finishes orphans."""
    heir.on_orphan(lambda orphan: orphan.writer.append([Text("two"), DONE]))
    await until(lambda: heir._connection.health.may_take_over)
    assert await heir.find(SESSION, "a") == "st1"
    assert await heir.newest("a talk", SESSION, None) == "st1"
    reader = await Reader().attach(heir)
    await until(lambda: reader.ended)
    assert reader.error is None
    return reader.text


async def test_an_orphan_waits_its_grace_for_a_reader_where_the_window_is_shorter(
    make_node: MakeNode, server: RedisProcess
) -> None:
    owner = await make_node()
    await begun(owner)
    await owner.close()
    server.age(GRACE + WINDOW / 2)
    assert await finished_by(await make_node()) == "one two"


async def test_an_orphan_outlives_a_connection_of_its_session_that_left_before(
    make_node: MakeNode, server: RedisProcess
) -> None:
    owner = await make_node()
    await begun(owner)
    await owner.leave_session(SESSION)
    await owner.rest()
    await owner.close()
    server.age(GRACE)
    assert await finished_by(await make_node()) == "one two"


async def test_the_end_of_one_stream_leaves_the_session_to_another_that_runs(
    make_node: MakeNode, server: RedisProcess
) -> None:
    owner = await make_node()
    await begun(owner)
    await owner.leave_session(SESSION)
    other = Spec("st2", SESSION, "b", None, ChatRequest("gpt", ()), 0)
    claim = await owner.create(other)
    assert isinstance(claim, Created)
    claim.writer.append([Start("st2", "gpt", "m"), DONE])
    await settled(claim.writer)
    await owner.rest()
    await owner.close()
    server.age(GRACE)
    assert await finished_by(await make_node()) == "one two"


async def test_without_a_window_an_answer_under_way_outlives_the_pauses_of_its_renewal(
    make_node: MakeNode, server: RedisProcess
) -> None:
    owner = await make_node(resume_window=0, lease_seconds=30)
    writer = await begun(owner)
    with sync_redis.Redis.from_url(server.url) as store:
        for key in list(store.scan_iter(match="*")):
            if not key.endswith((b":marker", b":lease")):
                assert store.pttl(key) > 30_000, key
        writer.append([DONE])
        await settled(writer)
        assert 0 < store.pttl("relay:{st1}") <= 1_000
        assert 0 < store.pttl("relay:{st1}:log") <= 1_000


async def test_after_its_end_and_its_last_connection_all_is_kept_for_the_window_only(
    make_node: MakeNode, server: RedisProcess
) -> None:
    owner = await make_node()
    writer = await begun(owner)
    await owner.tick()
    writer.append([DONE])
    await settled(writer)
    await owner.leave_session(SESSION)
    await owner.rest()
    with sync_redis.Redis.from_url(server.url) as store:
        assert len(store.keys()) >= 5
        for key in list(store.scan_iter()):
            assert 0 < store.pttl(key) <= WINDOW * 1000, key


async def test_records_that_come_while_a_look_is_answered_are_not_missed(
    make_node: MakeNode,
) -> None:
    owner, other = await make_node(lease_seconds=30), await make_node(lease_seconds=30)
    writer = await begun(owner)
    reader = await Reader().attach(other)
    call, said = other._connection.run, "one "

    async def answered_late(command: Command) -> Any:
        nonlocal said
        answer = await call(command)
        writer.append([Text("x")])
        said += "x"
        await until(lambda: reader.text == said or reader.ended)
        return answer

    other._connection.run = answered_late  # type: ignore[method-assign]
    for _ in range(MISSES + 1):
        await other._keeper.look_after(other._streams.by_name["st1"])
    reader.read()
    assert reader.error is None
    assert reader.text == said


async def test_a_take_over_that_another_node_overtakes_takes_nothing_from_it(
    make_node: MakeNode, server: RedisProcess
) -> None:
    owner, slow, quick = await make_node(), await make_node(), await make_node()
    await begun(owner)
    await owner.close()
    taken: list[Orphan] = []
    slow.on_orphan(lambda orphan: pytest.fail("it was taken by another node"))
    quick.on_orphan(taken.append)
    read_all = slow._courier.read_all

    async def overtaken(stream: Any, *, from_start: bool = False) -> None:
        await read_all(stream, from_start=from_start)
        if from_start and not taken:
            with sync_redis.Redis.from_url(server.url) as store:
                store.delete("relay:{st1}:lease")
            await Reader().attach(quick)
            await until(lambda: taken)
            taken[0].writer.append([Text("two ")])
            await settled(taken[0].writer)

    slow._courier.read_all = overtaken  # type: ignore[method-assign]
    await until(
        lambda: slow._connection.health.may_take_over and quick._connection.health.may_take_over
    )
    reader = await Reader().attach(slow)
    await until(lambda: reader.text == "one two " or reader.ended)
    taken[0].writer.append([DONE])
    await until(lambda: reader.ended)
    assert reader.error is None
    assert reader.text == "one two "


async def test_a_node_that_gave_up_amid_a_take_over_leaves_the_answer_to_the_next(
    make_node: MakeNode,
) -> None:
    owner, weary, heir = await make_node(), await make_node(), await make_node()
    await begun(owner)
    await owner.close()
    weary.on_orphan(lambda orphan: pytest.fail("it gave up before"))
    read_all = weary._courier.read_all

    async def given_up(stream: Any, *, from_start: bool = False) -> None:
        await read_all(stream, from_start=from_start)
        if from_start:
            stream.trouble = unanswered()
            stream.wake()

    weary._courier.read_all = given_up  # type: ignore[method-assign]
    await until(lambda: weary._connection.health.may_take_over)
    reader = await Reader().attach(weary)
    await until(lambda: reader.ended)
    assert reader.error is not None
    assert reader.error.code is Code.INTERNAL
    assert await finished_by(heir) == "one two"
