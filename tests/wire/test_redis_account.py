"""What an owner notes beside its records, in a real Redis: when it is written, and what the
next owner makes of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
import redis as sync_redis

from lab.redis_process import RedisProcess
from lab.waiting import until
from relay.core.account import Account, AttemptNote
from relay.core.events import EndedAttempt, Text
from relay.core.records import encode
from relay.core.streamlog import Orphan, StreamLog
from tests.wire.redis_nodes import (
    DONE,
    LEASE,
    MakeNode,
    Reader,
    begun,
    settled,
)

KEY = "relay:{st1}"
ENDED = (EndedAttempt("gpt", "m", "provider_error", 5),)
NOTED = Account(ENDED, (AttemptNote("gpt", "m", 7, 0),), 8, 9, "served")


class Noting:
    """An account that counts how often it was asked."""

    def __init__(self, account: Account = NOTED) -> None:
        self.account = account
        self.asked = 0

    def __call__(self) -> Account:
        self.asked += 1
        return self.account


def calls_of(store: sync_redis.Redis, command: str) -> int:
    found: dict[str, Any] = store.info("commandstats")
    return int(found.get(f"cmdstat_{command}", {}).get("calls", 0))


async def taken_over_by(log: StreamLog) -> Orphan:
    taken: list[Orphan] = []
    log.on_orphan(taken.append)
    await Reader().attach(log)
    await until(lambda: taken)
    return taken[0]


@pytest.fixture
def limits() -> dict[str, Any]:
    return {"lease_seconds": 30}


async def test_it_goes_with_the_records_and_costs_a_token_nothing(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    writer = await begun(await make_node())
    noting = Noting()
    before = calls_of(store, "evalsha")
    writer.append([Text("one ")])
    writer.keep_account(noting)
    await settled(writer)
    assert calls_of(store, "evalsha") == before + 1
    assert store.hexists(KEY, "account")
    for _ in range(20):
        writer.append([Text("more ")])
        await settled(writer)
    assert calls_of(store, "evalsha") == before + 21
    assert noting.asked == 1


async def test_it_is_written_at_once_where_no_record_comes(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    log = await make_node()
    writer = await begun(log)
    writer.keep_account(Noting())
    await settled(writer)
    assert msgspec.json.decode(store.hget(KEY, "attempts"), type=tuple[EndedAttempt, ...]) == ENDED
    writer.append([Text("one")])
    await settled(writer)
    assert (await Reader().attach(log)).text == "one"


async def test_each_renewal_writes_it_as_it_stands_by_then(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    log = await make_node()
    writer = await begun(log)
    noting = Noting()
    writer.keep_account(noting)
    await settled(writer)
    noting.account = msgspec.structs.replace(NOTED, noted_ms=4_000)
    await log.tick()
    assert msgspec.json.decode(store.hget(KEY, "account"), type=Account).noted_ms == 4_000


async def test_the_next_owner_has_it_with_the_chats_age_and_the_last_sign_of_life(
    server: RedisProcess, make_node: MakeNode
) -> None:
    log, other = await make_node(lease_seconds=LEASE), await make_node(lease_seconds=LEASE)
    writer = await begun(log)
    writer.keep_account(Noting())
    await settled(writer)
    await log.close()
    server.age_field_by(100, "accepted")
    server.age_field_by(40, "renewed")
    orphan = await taken_over_by(other)
    assert orphan.account == msgspec.structs.replace(NOTED, epoch=1)
    assert time.monotonic() - orphan.accepted == pytest.approx(100, abs=30)
    assert time.monotonic() - orphan.accepted >= 100
    assert orphan.last_sign_ms == pytest.approx(60_000, abs=2_000)


async def test_what_a_store_lost_its_owner_writes_anew(
    server: RedisProcess, store: sync_redis.Redis, make_node: MakeNode
) -> None:
    log = await make_node()
    writer = await begun(log)
    writer.keep_account(Noting())
    await settled(writer)
    accepted = float(store.hget(KEY, "accepted"))
    server.flush()
    writer.append([Text("one")])
    await settled(writer)
    assert store.hget(KEY, "attempts") == msgspec.json.encode(ENDED)
    assert store.hexists(KEY, "account")
    assert float(store.hget(KEY, "accepted")) == pytest.approx(accepted, abs=50)
    server.flush()
    writer.append([DONE])
    await settled(writer)
    assert store.hmget(KEY, "account", "attempts", "accepted", "request") == [None] * 4


async def test_a_handed_over_answer_has_all_that_was_noted_before(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    log, other = await make_node(lease_seconds=LEASE), await make_node(lease_seconds=LEASE)
    writer = await begun(log)
    writer.on_lost(lambda: writer.keep_account(Noting()))
    assert await log.hand_over(writer)
    orphan = await taken_over_by(other)
    assert orphan.account.attempts == ENDED


async def test_an_owner_of_an_earlier_version_leaves_none(
    server: RedisProcess, store: sync_redis.Redis, make_node: MakeNode
) -> None:
    log, other = await make_node(lease_seconds=LEASE), await make_node(lease_seconds=LEASE)
    await begun(log)
    await log.close()
    store.hdel(KEY, "account", "accepted")
    store.hset(KEY, "attempts", msgspec.json.encode(ENDED))
    server.age_field_by(100, "renewed")
    orphan = await taken_over_by(other)
    assert orphan.account == Account(ENDED)
    assert 100 <= time.monotonic() - orphan.accepted <= 130
    assert orphan.last_sign_ms == 0
    assert store.hget(KEY, "accepted") is not None, "the next owner counts from there too"


async def test_what_was_noted_before_an_earlier_version_owned_it_is_not_taken_for_its_word(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    """An earlier version takes over, writes a record and its attempts, and dies."""
    log, other = await make_node(lease_seconds=LEASE), await make_node(lease_seconds=LEASE)
    writer = await begun(log)
    writer.keep_account(Noting())
    await settled(writer)
    await log.close()
    store.hincrby(KEY, "epoch", 1)
    entry = {"e": 2, "r": msgspec.msgpack.encode([(1, encode(Text("two "))[1])])}
    store.xadd(f"{KEY}:log", entry, id="2-0")
    store.hset(KEY, mapping={"next": 2, "attempts": msgspec.json.encode(ENDED * 2)})
    orphan = await taken_over_by(other)
    assert orphan.account.calls is None
    assert orphan.account.attempts == ENDED * 2
    assert orphan.account.first_text_ms == 9


async def test_a_redis_that_refuses_to_keep_it_is_not_taken_for_well(
    server: RedisProcess, store: sync_redis.Redis, make_node: MakeNode
) -> None:
    log = await make_node()
    writer = await begun(log)
    store.replicaof("127.0.0.1", 1)
    writer.keep_account(Noting())
    await until(lambda: not log.healthy)
    assert not store.hexists(KEY, "account")
    store.replicaof("NO", "ONE")
    await settled(writer)
    assert store.hexists(KEY, "account")
