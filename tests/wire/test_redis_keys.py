"""What rests in Redis, for how long, and what never does: seen in a real one."""

from __future__ import annotations

from typing import Any

import pytest
import redis as sync_redis
from redis.crc import key_slot

from lab.redis_process import RedisProcess
from relay.core.account import Account
from relay.core.errors import Code, RelayError, StreamExpired
from relay.core.events import EndedAttempt, Start, Text
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Created, Spec, Writer
from relay.stores.redis import RedisLog, scripts
from relay.stores.redis.log import ERASE_LINGER
from tests.wire.redis_nodes import (
    DONE,
    SESSION,
    MakeNode,
    settled,
)

PROMPT, ANSWER = "what the user asked", "what the model said"
TRIED = EndedAttempt("gpt", "m", "provider_error", 5)
WINDOW = 100.0
GRACE = 300.0


async def begun(log: RedisLog, stream: str = "st1", id: str = "a") -> Writer:
    request = ChatRequest("gpt", (Turn("user", PROMPT),), conversation="a talk")
    claim = await log.create(Spec(stream, SESSION, id, "ann", request, GRACE))
    assert isinstance(claim, Created)
    claim.writer.append([Start(stream, "gpt", "m"), Text(ANSWER)])
    await settled(claim.writer)
    return claim.writer


@pytest.fixture
async def log(make_node: MakeNode) -> RedisLog:
    made = await make_node(lease_seconds=10, resume_window=WINDOW, max_streams_per_session=2)
    await made.open_session(SESSION, "ann")
    return made


async def ended(log: RedisLog, writer: Writer) -> None:
    writer.append([DONE])
    await settled(writer)
    await log.rest()


def everything(store: sync_redis.Redis) -> bytes:
    """Every key and every value, as an intruder would read them."""
    found = []
    for key in list(store.scan_iter()):
        kind = store.type(key)
        reads: dict[Any, Any] = {
            b"hash": store.hgetall,
            b"string": store.get,
            b"zset": lambda name: store.zrange(name, 0, -1),
            b"list": lambda name: store.lrange(name, 0, -1),
            b"stream": store.xrange,
        }
        found.append(key + b" " + repr(reads[kind](key)).encode())
    return b"\n".join(found)


async def test_every_key_expires(log: RedisLog, store: sync_redis.Redis) -> None:
    writer = await begun(log)
    cursor = await log.attach("st1", -1, lambda: None, "ann")
    await log.tick()
    await log.rest()
    check_that_all_expire(store, within=GRACE + 2 * WINDOW)
    await ended(log, writer)
    await log.leave_session(SESSION)
    await log.rest()
    check_that_all_expire(store, within=WINDOW)
    cursor.close()


def check_that_all_expire(store: sync_redis.Redis, *, within: float) -> None:
    assert store.keys()
    for key in list(store.scan_iter()):
        assert 0 < store.pttl(key) <= within * 1000, key


async def test_a_session_cannot_be_taken_up_by_who_reads_redis(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    await begun(log)
    assert SESSION.encode() not in everything(store)
    store.hdel("relay:{st1}", "request")
    assert b"a talk" not in everything(store)


async def test_the_request_and_its_attempts_go_with_the_terminal_record(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    writer = await begun(log)
    writer.keep_account(lambda: Account((TRIED,), calls=()))
    await log.rest()
    assert PROMPT.encode() in everything(store)
    assert store.hget("relay:{st1}", "attempts")
    assert store.hget("relay:{st1}", "account")
    await ended(log, writer)
    assert PROMPT.encode() not in everything(store)
    left = store.hgetall("relay:{st1}")
    assert not left.keys() & {b"attempts", b"account", b"accepted"}
    assert ANSWER.encode() in everything(store)


async def test_a_finished_stream_that_is_erased_is_gone_at_once(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    await ended(log, await begun(log))
    await log.erase("st1", "ann")
    assert ANSWER.encode() not in everything(store)
    assert not store.exists("relay:{st1}", "relay:{st1}:log")


async def test_a_running_stream_that_is_erased_is_gone_soon_after_its_end(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    writer = await begun(log)
    await log.erase("st1", "ann")
    assert PROMPT.encode() not in everything(store)
    await log.tick()
    await ended(log, writer)
    for key in ("relay:{st1}", "relay:{st1}:log"):
        assert 0 < store.pttl(key) <= ERASE_LINGER * 1000
    with pytest.raises(StreamExpired):
        await log.info("st1", "ann")


async def test_a_long_stream_and_its_session_do_not_expire_while_it_runs(
    log: RedisLog, server: RedisProcess
) -> None:
    await log.leave_session(SESSION)
    writer = await begun(log)
    for _ in range(10):
        server.age(WINDOW / 2)
        log._sessions.forgotten()
        await log.tick()
        await log.rest()
    await ended(log, writer)
    assert await log.find(SESSION, "a") == "st1"
    assert await log.newest("a talk", SESSION, "ann") == "st1"


async def test_a_dead_owners_streams_cease_to_count_in_their_session(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    for stream, id in (("st1", "a"), ("st2", "b")):
        await begun(log, stream, id)
    with pytest.raises(RelayError) as full:
        await begun(log, "st3", "c")
    assert full.value.code is Code.TOO_MANY_STREAMS
    [running] = store.keys("*:running")
    store.zadd(running, {"st1": 1, "st2": 1}, xx=True)
    await begun(log, "st3", "c")


async def test_a_stream_refused_leaves_nothing_behind(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    for stream, id in (("st1", "a"), ("st2", "b")):
        await begun(log, stream, id)
    with pytest.raises(RelayError):
        await begun(log, "st3", "c")
    await log.rest()
    assert store.keys("*st3*") == []


async def test_a_session_forgets_its_oldest_ids_beyond_the_limit(
    log: RedisLog, store: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "MAX_IDS", 3)
    for number in range(4):
        await ended(log, await begun(log, f"st{number}", f"id{number}"))
    listed = [each.id for each in await log.session_streams(SESSION)]
    assert listed == ["id1", "id2", "id3"]
    [ids] = store.keys("*:ids")
    assert store.hlen(ids) == 3


async def test_a_larger_request_than_the_limit_is_not_kept(
    make_node: MakeNode, store: sync_redis.Redis
) -> None:
    request = ChatRequest("gpt", (Turn("user", "x" * 200),))
    for limit, kept in ((150, False), (1_000, True)):
        log = await make_node(max_kept_request=limit)
        await log.create(Spec(f"st{limit}", SESSION, f"id{limit}", None, request, 300))
        assert store.hexists(f"relay:{{st{limit}}}", "request") is kept


async def test_a_token_costs_one_append_and_many_at_once_no_more_round_trips(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    writer = await begun(log)
    await log.rest()
    before = _calls(store)
    for _ in range(10):
        writer.append([Text("x")])
        await settled(writer)
    one_by_one = _calls(store) - before
    before = _calls(store)
    for _ in range(1_000):
        writer.append([Text("x")])
    await settled(writer)
    at_once = _calls(store) - before
    assert one_by_one <= 12
    assert at_once <= 4


def _calls(store: sync_redis.Redis) -> int:
    return int(store.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_keys_that_one_script_touches_share_a_cluster_slot(
    log: RedisLog, store: sync_redis.Redis
) -> None:
    await begun(log)
    cursor = await log.attach("st1", -1, lambda: None, "ann")
    slots: dict[int, set[bytes]] = {}
    for key in list(store.scan_iter()):
        tag = key[key.index(b"{") + 1 : key.index(b"}")]
        assert key_slot(key) == key_slot(tag)
        slots.setdefault(key_slot(key), set()).add(tag)
    assert all(len(tags) == 1 for tags in slots.values())
    cursor.close()
