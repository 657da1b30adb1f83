"""Nodes that die, drain and freeze while they write an answer, on one real Redis: another
one finishes it, and the client's text is the answer, nothing missing, nothing twice."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import redis as sync_redis
import websockets

from lab.ports import free_port
from lab.redis_process import RedisProcess
from lab.relay_process import RelayFailed, RelayProcess
from lab.upstreams import (
    Counts,
    End,
    Finish,
    Pause,
    Request,
    Step,
    Token,
    Upstream,
    continues,
)
from lab.waiting import PATIENCE, until
from tests.wire.nodes import LEASE, Client, Node, node

TEXT = (
    "The harbour wakes before the town does. Nets hang from iron rails, gulls quarrel over "
    "scraps, and somebody whistles while tarred ropes dry along the quay. By seven the first "
    "boats have turned into grey specks beyond the lighthouse, leaving behind only diesel "
    "smoke, wet stones, two sleeping cats, an empty bucket, and a boy who counts waves until "
    "school begins."
)
WORDS = re.findall(r"\s*\S+", TEXT)
HALF = 20


class Model:
    """Halts its first answer after `HALF` words. Asked to go on with an unfinished answer
    it begins with the last words of that, as it is told to."""

    OVERLAP = 48

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.partials: list[str] = []

    def __call__(self, request: Request) -> Sequence[Step]:
        self.partials.append(request.partial)
        if request.number == 0:
            ahead, rest = WORDS[:HALF], WORDS[HALF:]
            said = [*map(Token, ahead), Pause(until=self.gate), *map(Token, rest)]
            return [*said, Counts(), Finish(), End()]
        return continues(*WORDS, overlap=self.OVERLAP)(request)


@pytest.fixture
async def model() -> Model:
    return Model()


@pytest.fixture
async def upstream(model: Model) -> AsyncIterator[Upstream]:
    async with Upstream(model) as up:
        yield up


@pytest.fixture
async def pair(
    upstream: Upstream, server: RedisProcess, tmp_path: Path
) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes on one Redis."""
    async with node(upstream, server, tmp_path) as a, node(upstream, server, tmp_path) as b:
        yield a, b


Socket = websockets.ClientConnection


async def half_read_on_both(a: Node, b: Node) -> tuple[Client, Socket, Client, Socket]:
    """One answer, owned by `a`, of which a client of each node has the first half."""
    owner, reader = Client(), Client()
    first = await owner.chat(a.port)
    await owner.read(first, shown(owner))
    second = await reader.resume(b.port)
    await reader.read(second, shown(reader))
    return owner, first, reader, second


def shown(client: Client, words: int = HALF) -> Callable[[], bool]:
    return lambda: "".join(WORDS[:words]) in client.text


async def test_a_killed_nodes_answer_is_finished_by_the_one_the_client_comes_back_to(
    pair: tuple[Node, Node], model: Model
) -> None:
    a, b = pair
    client = Client()
    socket = await client.chat(a.port)
    await client.read(socket, shown(client))
    a.signal(signal.SIGKILL)
    await a.ended()
    with suppress(websockets.ConnectionClosed):
        await client.read(socket)
    back = await client.resume(b.port)
    await client.read(back)
    assert client.end is not None
    assert client.end["type"] == "done"
    assert client.text == TEXT
    assert model.partials == ["", "".join(WORDS[:HALF]).rstrip()]
    await back.close()


async def test_a_reader_on_another_node_sees_the_owner_die_and_the_answer_go_on(
    pair: tuple[Node, Node],
) -> None:
    a, b = pair
    _, _, reader, second = await half_read_on_both(a, b)
    a.signal(signal.SIGKILL)
    await reader.read(second)
    assert reader.end is not None
    assert (reader.end["type"], reader.text) == ("done", TEXT)
    await second.close()


async def test_a_draining_node_hands_its_answers_over_and_ends_in_order(
    server: RedisProcess, model: Model, upstream: Upstream, tmp_path: Path
) -> None:
    async with (
        node(upstream, server, tmp_path, DRAIN_TIMEOUT="0.2") as a,
        node(upstream, server, tmp_path) as b,
    ):
        client = Client()
        socket = await client.chat(a.port)
        await client.read(socket, shown(client))
        a.signal(signal.SIGTERM)
        with suppress(websockets.ConnectionClosed):
            await client.read(socket)
        assert socket.close_code == 1012
        assert await a.ended() == 0
        assert client.end is None
        back = await client.resume(b.port)
        await client.read(back)
        assert client.end is not None
        assert (client.end["type"], client.text) == ("done", TEXT)
        assert (await upstream.request(0)).cut_off
        await back.close()


async def test_a_node_that_was_frozen_writes_nothing_more_and_closes_its_upstream(
    pair: tuple[Node, Node], upstream: Upstream
) -> None:
    a, b = pair
    owner, first, reader, second = await half_read_on_both(a, b)
    a.signal(signal.SIGSTOP)
    await reader.read(second)
    assert reader.text == TEXT
    a.signal(signal.SIGCONT)
    asked = await upstream.request(0)
    await asyncio.wait_for(asked.closed.wait(), 10)
    assert asked.cut_off
    await owner.read(first)
    assert owner.text == TEXT
    assert len(upstream.requests) == 2
    for socket in (first, second):
        await socket.close()


async def test_the_cancel_of_an_orphan_ends_it_without_another_call(
    pair: tuple[Node, Node], upstream: Upstream
) -> None:
    a, b = pair
    client = Client()
    socket = await client.chat(a.port)
    await client.read(socket, shown(client))
    a.signal(signal.SIGKILL)
    await a.ended()
    url = f"http://127.0.0.1:{b.port}/streams/{client.frames[0]['stream']}"
    async with aiohttp.ClientSession() as http:
        back = await client.resume(b.port)
        await back.send(json.dumps({"type": "cancel", "id": "a"}))
        await client.read(back)
        assert client.end is not None
        assert client.end["finish_reason"] == "cancelled"
        assert client.end["timing"]["total_ms"] < 60_000
        assert len(upstream.requests) == 1
        async with http.delete(url) as response:
            assert response.status == 204
        async with http.get(url) as response:
            assert response.status == 404
    await back.close()


async def test_an_orphan_that_nobody_came_back_for_in_time_is_abandoned(
    server: RedisProcess, model: Model, upstream: Upstream, tmp_path: Path
) -> None:
    grace = {"RESUME_GRACE": "0.3"}
    async with (
        node(upstream, server, tmp_path, **grace) as a,
        node(upstream, server, tmp_path, **grace) as b,
    ):
        client = Client()
        socket = await client.chat(a.port)
        await client.read(socket, shown(client))
        a.signal(signal.SIGKILL)
        await a.ended()
        server.age_field_by(2 * LEASE + 1, "renewed")
        back = await client.resume(b.port)
        await client.read(back)
        assert client.end is not None
        assert client.end["code"] == "abandoned"
        assert len(upstream.requests) == 1
        await back.close()


async def test_a_request_too_large_to_be_kept_ends_with_an_error_that_says_try_again(
    pair: tuple[Node, Node],
) -> None:
    a, b = pair
    client = Client()
    socket = await client.chat(a.port, messages="x" * 1_100_000)
    await client.read(socket, shown(client))
    a.signal(signal.SIGKILL)
    await a.ended()
    back = await client.resume(b.port)
    await client.read(back)
    assert client.end is not None
    assert (client.end["code"], client.end["retryable"]) == ("provider_interrupted", True)
    await back.close()


async def test_any_node_serves_a_stream_of_any_other(
    pair: tuple[Node, Node], model: Model, upstream: Upstream
) -> None:
    a, b = pair
    owner, first, reader, second = await half_read_on_both(a, b)
    model.gate.set()
    await asyncio.gather(owner.read(first), reader.read(second))
    assert owner.text == reader.text == TEXT
    assert len(upstream.requests) == 1
    again = Client()
    third = await again.chat(b.port)
    await again.read(third)
    assert (again.text, len(upstream.requests)) == (TEXT, 1)
    for socket in (first, second, third):
        await socket.close()


async def test_cancel_on_one_node_closes_the_upstream_of_another(
    pair: tuple[Node, Node], upstream: Upstream
) -> None:
    a, b = pair
    client = Client()
    first = await client.chat(a.port)
    await client.read(first, shown(client))
    other = await Client().resume(b.port)
    await other.send(json.dumps({"type": "cancel", "id": "a"}))
    await client.read(first)
    assert client.end is not None
    assert client.end["finish_reason"] == "cancelled"
    asked = await upstream.request(0)
    await until(asked.closed.is_set)
    assert asked.cut_off
    for socket in (first, other):
        await socket.close()


def demote(server: RedisProcess) -> None:
    """It becomes a replica, of a primary that is not there, and refuses to write."""
    with sync_redis.Redis.from_url(server.url) as store:
        store.replicaof("127.0.0.1", 1)


def promote(server: RedisProcess) -> None:
    with sync_redis.Redis.from_url(server.url) as store:
        store.replicaof("NO", "ONE")


async def outlives(
    pair: tuple[Node, Node], model: Model, begin: Callable[[], None], end: Callable[[], None]
) -> None:
    """Half of an answer is there when Redis' trouble begins, and health says so; all of it
    comes once that has ended."""
    owner, first, reader, second = await half_read_on_both(*pair)
    for each in pair:
        await health_says(each, "ok")
    begin()
    for each in pair:
        await health_says(each, "degraded")
    model.gate.set()
    end()
    await asyncio.gather(owner.read(first), reader.read(second))
    assert owner.text == reader.text == TEXT
    for each in pair:
        await health_says(each, "ok")
    for socket in (first, second):
        await socket.close()


async def test_an_answer_outlives_a_redis_that_restarts_empty_and_health_says_it_was_away(
    pair: tuple[Node, Node], server: RedisProcess, model: Model, upstream: Upstream
) -> None:
    await outlives(pair, model, server.kill, server.start)
    assert len(upstream.requests) == 1


async def test_an_answer_outlives_a_redis_that_was_a_replica_for_a_while_and_health_says_so(
    pair: tuple[Node, Node], server: RedisProcess, model: Model, upstream: Upstream
) -> None:
    await outlives(pair, model, lambda: demote(server), lambda: promote(server))
    assert len(upstream.requests) == 1


async def test_clients_of_a_redis_that_stays_a_replica_are_told_to_try_again_and_may(
    pair: tuple[Node, Node], server: RedisProcess, model: Model, upstream: Upstream
) -> None:
    owner, first, reader, second = await half_read_on_both(*pair)
    demote(server)
    model.gate.set()
    await asyncio.gather(owner.read(first), reader.read(second))
    for client in (owner, reader):
        assert client.end is not None
        assert (client.end["code"], client.end["retryable"]) == ("internal", True)
        assert client.text == "".join(WORDS[:HALF])
    asked = await upstream.request(0)
    await asyncio.wait_for(asked.closed.wait(), PATIENCE)
    promote(server)
    for each in pair:
        await health_says(each, "ok")
    again = Client(id="b")
    third = await again.chat(pair[1].port)
    await again.read(third)
    assert again.text == TEXT
    for socket in (first, second, third):
        await socket.close()


async def health_says(each: Node, store: str) -> None:
    async def said() -> bool:
        health = await each.health()
        assert health["store"] != store or store == "ok" or health["status"] == "degraded"
        return health["store"] == store

    await until(said)


async def refusal_of(url: str, folder: Path) -> str:
    """What a start says that this `REDIS_URL` stops."""
    log = folder / "said.txt"
    relay = RelayProcess(folder, {"REDIS_URL": url, "OPENAI_API_KEY": "k"}, log=log)
    with pytest.raises(RelayFailed):
        await relay.start()
    assert relay.status == 2
    return log.read_text()


async def test_a_redis_that_is_not_there_stops_the_start_without_telling_its_password(
    tmp_path: Path,
) -> None:
    said = await refusal_of(f"redis://:sEcReT-word@127.0.0.1:{free_port()}/0", tmp_path)
    assert "REDIS_URL names a Redis that can't be reached" in said
    assert "sEcReT" not in said


async def test_a_node_of_a_cluster_stops_the_start(tmp_path: Path) -> None:
    cluster = RedisProcess("--cluster-enabled", "yes")
    said = await refusal_of(cluster.url, tmp_path)
    cluster.close()
    assert "REDIS_URL names a Redis that is one node of a cluster" in said
