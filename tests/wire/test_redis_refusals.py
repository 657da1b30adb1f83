"""A Redis that is there and fails: it loads, can't save, or refuses its
password. Answers wait, the logs say why in words, and all goes on by itself."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator

import pytest
import redis as sync_redis
from loguru import logger

from lab.redis_process import RedisProcess
from lab.waiting import PATIENCE, block_until, until
from relay.core.errors import Code
from relay.core.events import Text
from relay.core.streamlog import Orphan
from relay.stores.redis import RedisLog
from relay.stores.redis.connection import RETRY_PAUSE
from tests.wire.redis_nodes import (
    DONE,
    MakeNode,
    Reader,
    begun,
    settled,
    speak,
    started,
    text,
)

PASSWORD = "sEcReT-word"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    told: list[str] = []
    sink = logger.add(told.append, format="{level} {message}", level="INFO")
    yield told
    logger.remove(sink)


class Refusal:
    """A way in which a server refuses, begun and ended at will; `said` is told in the logs."""

    said = ""

    def __init__(self, server: RedisProcess) -> None:
        self.server = server
        self.store = sync_redis.Redis.from_url(server.url)
        self.store.ping()

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def drop_clients(self) -> None:
        for kind in ("normal", "pubsub"):
            self.store.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


class CannotSave(Refusal):
    """Its last snapshot failed: it writes nothing more (stop-writes-on-bgsave-error)."""

    said = "can't save to its disk and keeps nothing (MISCONF)"

    def begin(self) -> None:
        (self.server.folder / "dump.rdb" / "in the way").mkdir(parents=True)
        self.store.config_set("save", "3600 1")
        self._save("err")

    def end(self) -> None:
        shutil.rmtree(self.server.folder / "dump.rdb")
        self._save("ok")

    def _save(self, expected: str) -> None:
        self.store.bgsave()

        def over() -> bool:
            info = self.store.info("persistence")
            status = info["rdb_last_bgsave_status"]
            return not info["rdb_bgsave_in_progress"] and status == expected

        block_until(over)


class WantsAPassword(Refusal):
    """One was set while nodes run that know of none."""

    said = "refuses the user or password of REDIS_URL (NOAUTH, WRONGPASS)"

    def begin(self) -> None:
        self.store.config_set("requirepass", PASSWORD)
        self.drop_clients()

    def end(self) -> None:
        self.store.config_set("requirepass", "")


class WantsAnotherPassword(WantsAPassword):
    """The nodes know one, and it was changed."""

    def begin(self) -> None:
        self.store.config_set("requirepass", "another")
        self.drop_clients()

    def end(self) -> None:
        self.store.config_set("requirepass", PASSWORD)


class TakesRightsAway(Refusal):
    """The user may no longer run scripts."""

    said = "does not let the user of REDIS_URL do all it has to (NOPERM)"

    def begin(self) -> None:
        self.store.acl_setuser("default", enabled=True, commands=["-evalsha"])

    def end(self) -> None:
        self.store.acl_setuser("default", enabled=True, commands=["+evalsha"])


def _url_before(trouble: Refusal, server: RedisProcess) -> str:
    """Where nodes find the server, which has a password where another one is to come."""
    if not isinstance(trouble, WantsAnotherPassword):
        return server.url
    trouble.store.config_set("requirepass", PASSWORD)
    return f"{server.url}?password={PASSWORD}"


REFUSALS = [CannotSave, WantsAPassword, WantsAnotherPassword, TakesRightsAway]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: each.__name__)
async def test_readers_get_the_whole_text_once_a_refusal_has_ended(
    server: RedisProcess, lines: list[str], refusal: Callable[[RedisProcess], Refusal]
) -> None:
    trouble = refusal(server)
    url = _url_before(trouble, server)
    a, b = await started(url), await started(url)
    orphans: list[Orphan] = []
    for node in (a, b):
        node.on_orphan(orphans.append)
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await speak(writer, 0, 20)
    await settled(writer)
    trouble.begin()
    writer.append([Text("<20>")])
    await until(lambda: not a.healthy and not b.healthy)
    await until(lambda: f"WARNING Redis {trouble.said}" in "".join(lines))
    assert here.text == text(20)
    trouble.end()
    await speak(writer, 21, 60)
    writer.append([DONE])
    await asyncio.wait_for(settled(writer), PATIENCE)
    await until(lambda: here.ended and there.ended and a.healthy and b.healthy)
    assert (here.text, there.text) == (text(60), text(60))
    assert (here.error, there.error, orphans) == (None, None, [])
    assert "INFO Redis recovered" in lines[-1]
    assert PASSWORD not in "".join(lines)
    assert server.socket not in "".join(lines)
    for node in (a, b):
        await node.close()


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: each.__name__)
async def test_readers_are_told_to_try_again_where_a_refusal_lasts(
    server: RedisProcess, lines: list[str], refusal: Callable[[RedisProcess], Refusal]
) -> None:
    trouble = refusal(server)
    url = _url_before(trouble, server)
    a, b = await started(url, max_pause=3.5), await started(url, max_pause=3.5)
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    trouble.begin()
    writer.append([Text("never safe")])
    await until(lambda: here.ended and there.ended)
    for reader in (here, there):
        assert reader.error is not None
        assert (reader.text, reader.error.code, reader.error.retryable) == ("", Code.INTERNAL, True)
    assert f"ERROR Redis {trouble.said}, for " in "".join(lines)
    trouble.end()
    await until(lambda: a.healthy and b.healthy)
    again = await begun(a, stream="st2", id="b")
    again.append([DONE])
    await settled(again)
    for node in (a, b):
        await node.close()


SLOWLY = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")


def fill(server: RedisProcess, keys: int) -> None:
    """Give it so much to load that its next start takes a while, and have it on disk."""
    with sync_redis.Redis.from_url(server.url) as store:
        store.mset({f"filler:{number}": "x" * 64 for number in range(keys)})
        store.save()


async def test_an_answer_outlives_a_redis_that_restarts_and_loads_for_a_while(
    server: RedisProcess, make_node: MakeNode, lines: list[str]
) -> None:
    a, b = await make_node(), await make_node()
    writer = await begun(a)
    here, there = await Reader().attach(a), await Reader().attach(b)
    await speak(writer, 0, 20)
    await settled(writer)
    await asyncio.to_thread(fill, server, 2_000)
    server.kill()
    await asyncio.to_thread(server.start, *SLOWLY, loading=True)
    await until(
        lambda: any("WARNING Redis is loading its data (LOADING)" in line for line in lines)
    )
    await speak(writer, 20, 60)
    writer.append([DONE])
    await asyncio.wait_for(settled(writer), PATIENCE)
    await until(lambda: here.ended and there.ended and a.healthy and b.healthy)
    assert (here.text, there.text) == (text(60), text(60))
    assert (here.error, there.error) == (None, None)


async def test_a_start_waits_for_a_redis_that_is_loading(
    server: RedisProcess, make_node: MakeNode
) -> None:
    await asyncio.to_thread(fill, server, 1_000)
    server.kill()
    await asyncio.to_thread(server.start, *SLOWLY, loading=True)
    node = await make_node()
    assert node.healthy
    await begun(node)


async def test_a_start_does_not_wait_for_ever(server: RedisProcess, make_node: MakeNode) -> None:
    await asyncio.to_thread(fill, server, 20_000)
    server.kill()
    await asyncio.to_thread(server.start, *SLOWLY, loading=True)
    with pytest.raises(ConnectionError, match=r"^is loading its data \(LOADING\)$"):
        await make_node(max_pause=3.2)


async def test_a_start_with_a_wrong_password_is_refused_without_telling_it(
    server: RedisProcess,
) -> None:
    with sync_redis.Redis.from_url(server.url) as store:
        store.config_set("requirepass", "right")
        for url in (server.url, f"{server.url}?password={PASSWORD}"):
            with pytest.raises(ConnectionError) as refused:
                await started(url)
            assert str(refused.value).startswith("refuses the user or password of REDIS_URL")
            assert PASSWORD not in str(refused.value)
        store.config_set("requirepass", "")


async def test_a_start_on_a_node_of_a_cluster_is_refused() -> None:
    server = RedisProcess("--cluster-enabled", "yes")
    try:
        with pytest.raises(ConnectionError, match=r"^is one node of a cluster; the relay"):
            await started(server.url)
        with sync_redis.Redis.from_url(server.url) as store:
            store.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        with pytest.raises(ConnectionError, match=r"^is one node of a cluster"):
            await started(server.url)
    finally:
        server.close()


async def test_scripts_that_were_flushed_are_no_trouble(
    store: sync_redis.Redis, make_node: MakeNode, lines: list[str]
) -> None:
    a, b = await make_node(), await make_node()
    calls: list[Callable[[RedisLog], object]] = [
        lambda log: log.open_session("s" * 22, None),
        lambda log: begun(log),
        lambda log: Reader().attach(log),
        lambda log: log.cancel("st1", None),
        lambda log: log.erase("st1", None),
    ]
    for call in calls:
        for log in (a, b):
            store.script_flush()
            if log is b and call in (calls[1], calls[-1]):
                continue
            answer = call(log)
            assert asyncio.iscoroutine(answer)
            await answer
            await log.rest()
    assert a.healthy
    assert b.healthy
    assert lines == []


async def test_what_is_refused_of_one_stream_ends_that_stream_and_no_other(
    store: sync_redis.Redis, make_node: MakeNode
) -> None:
    a, b = await make_node(max_pause=4), await make_node(max_pause=4)
    broken, sound = await begun(a), await begun(a, stream="st2", id="b")
    here, there = await Reader().attach(a), await Reader().attach(b)
    other = await Reader().attach(b, "st2")
    store.set("relay:{st1}:log", "somebody else's")
    broken.append([Text("lost")])
    for number in range(1_000):
        sound.append([Text(f"<{number}>")])
        await settled(sound)
        if here.ended and there.ended:
            break
        await asyncio.sleep(0.01)
    for reader in (here, there):
        assert reader.error is not None
        assert (reader.text, reader.error.code, reader.error.retryable) == ("", Code.INTERNAL, True)
    await until(lambda: a.healthy and b.healthy)
    asked = store.info("commandstats")["cmdstat_xrange"]["calls"]
    await asyncio.sleep(5 * RETRY_PAUSE)
    assert store.info("commandstats")["cmdstat_xrange"]["calls"] <= asked + 2  # not for ever
    sound.append([DONE])
    await until(lambda: other.ended)
    assert (other.text, other.error) == (text(number + 1), None)
    await until(lambda: a.healthy and b.healthy)
