"""What `done` tells of an answer that several nodes wrote: every call of every node, and the
time since the chat was accepted. Real nodes, killed and drained, on one real Redis."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import websockets

from lab.redis_process import RedisProcess
from lab.upstreams import Pause, Refuse, Request, Step, Token, Upstream, continues
from lab.waiting import until
from relay.core.events import estimate_tokens
from tests.wire.nodes import Client, Node, node
from tests.wire.test_takeover import TEXT, WORDS

MODEL = "model-1"
SHARE = 20
"""Words that a call says which halts."""

OVERLAP = 53
"""Characters with which a call begins that others have said."""


class Model:
    """Says `SHARE` words more and halts, `halts` times; then the rest. Begins each time with
    the last words that it is given."""

    def __init__(self, halts: int = 1, share: int = SHARE) -> None:
        self._halts, self._share = halts, share

    def __call__(self, request: Request) -> Sequence[Step]:
        steps = continues(*WORDS, overlap=OVERLAP)(request)
        if request.number >= self._halts:
            return steps
        known, said = len(request.partial), OVERLAP if request.partial else 0
        limit = said + len("".join(_after(known)[: self._share]))
        kept: list[Step] = []
        for step in steps:
            if isinstance(step, Token) and limit > 0:
                kept.append(step)
                limit -= len(step.text)
        return [*kept, Pause(until=asyncio.Event())]


def _after(known: int) -> list[str]:
    left, at = [], 0
    for word in WORDS:
        at += len(word)
        if at > known:
            left.append(word)
    return left


@asynccontextmanager
async def house(
    script: Any, server: RedisProcess, folder: Path, count: int = 2, **variables: str
) -> AsyncIterator[tuple[Upstream, list[Node]]]:
    """A model and so many nodes."""
    settings = {"OPENAI_MODEL_DEFAULT": MODEL, **variables}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream(script))
        yield (
            upstream,
            [
                await stack.enter_async_context(node(upstream, server, folder, **settings))
                for _ in range(count)
            ],
        )


class Watch:
    """A client that notes when it asked and when it had read what."""

    def __init__(self) -> None:
        self.client = Client()
        self.asked = self.started = self.worded = self.ended = 0.0
        self.socket: websockets.ClientConnection | None = None

    async def ask(self, at: Node, words: int) -> None:
        self.asked = time.monotonic()
        self.socket = await self.client.chat(at.port)
        await self.client.read(self.socket, lambda: bool(self.client.frames))
        self.started = time.monotonic()
        await self.has(words)
        self.worded = time.monotonic()

    async def has(self, words: int) -> None:
        assert self.socket is not None
        wanted = "".join(WORDS[:words])
        await self.client.read(self.socket, lambda: wanted in self.client.text)

    async def goes_to(self, at: Node) -> None:
        assert self.socket is not None
        with suppress(websockets.ConnectionClosed):
            await self.client.read(self.socket)
        self.socket = await self.client.resume(at.port)

    async def end(self) -> dict[str, Any]:
        assert self.socket is not None
        await self.client.read(self.socket)
        self.ended = time.monotonic()
        await self.socket.close()
        assert self.client.end is not None
        return self.client.end

    def check_times(self, done: dict[str, Any], *, at_least: float) -> None:
        """`at_least` seconds went by since the client had read `start`."""
        timing = done["timing"]
        assert at_least * 1000 <= timing["total_ms"] <= (self.ended - self.asked) * 1000
        assert timing["first_token_ms"] <= (self.worded - self.asked) * 1000


async def killed(each: Node) -> None:
    each.signal(signal.SIGKILL)
    await each.ended()


def told(done: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["provider"], each["outcome"]) for each in done["attempts"]]


async def metrics(each: Node) -> dict[str, float]:
    url = f"http://127.0.0.1:{each.port}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        text = await response.text()
    return {name: float(value) for name, value in re.findall(r"^(\w+\{.*\}) (\S+)$", text, re.M)}


async def log_of(each: Node, folder: Path, wanted: str) -> str:
    file = folder / f"node-{each.port}" / "app.log"
    await until(lambda: wanted in file.read_text())
    return file.read_text()


async def test_a_killed_nodes_call_is_told_of_and_time_counts_from_acceptance(
    server: RedisProcess, tmp_path: Path
) -> None:
    async with house(Model(), server, tmp_path) as (_, (a, b)):
        watch = Watch()
        await watch.ask(a, SHARE)
        stream = watch.client.frames[0]["stream"][:8]
        assert f"stream={stream} | accepted a chat for gpt" in await log_of(
            a, tmp_path, "accepted a"
        )
        await killed(a)
        died = time.monotonic()
        await watch.goes_to(b)
        done = await watch.end()
        assert watch.client.text == TEXT
        assert told(done) == [("gpt", "internal"), ("gpt", "ok")]
        watch.check_times(done, at_least=died - watch.started)
        dead, last = (each["usage"] for each in done["attempts"])
        assert dead["estimated"]
        assert dead["output_tokens"] == estimate_tokens(len("".join(WORDS[:SHARE])))
        assert done["usage"]["output_tokens"] == dead["output_tokens"] + last["output_tokens"]
        assert done["attempts"][0]["ms"] <= (died - watch.asked) * 1000
        counted = await metrics(b)
        for outcome in ("internal", "ok"):
            key = f'relay_attempts_total{{model="{MODEL}",outcome="{outcome}",provider="gpt"}}'
            assert counted.get(key) == 1.0, counted
        said = await log_of(b, tmp_path, "done stop")
        assert f"stream={stream} | took over an answer for gpt" in said
        assert f"all after {done['timing']['total_ms']} ms, 2 attempts" in said


async def test_after_two_kills_all_three_calls_are_told_of(
    server: RedisProcess, tmp_path: Path
) -> None:
    async with house(Model(halts=2), server, tmp_path, 3) as (upstream, (a, b, c)):
        watch = Watch()
        await watch.ask(a, SHARE)
        await killed(a)
        await watch.goes_to(b)
        await watch.has(2 * SHARE)
        await killed(b)
        died = time.monotonic()
        await watch.goes_to(c)
        done = await watch.end()
        assert watch.client.text == TEXT
        assert told(done) == [("gpt", "internal")] * 2 + [("gpt", "ok")]
        assert len(upstream.requests) == 3
        watch.check_times(done, at_least=died - watch.started)
        shown = len("".join(WORDS[SHARE : 2 * SHARE]))
        second = done["attempts"][1]["usage"]["output_tokens"]
        assert estimate_tokens(shown) <= second <= estimate_tokens(shown + OVERLAP)


async def test_a_node_started_again_goes_on_as_another_would(
    server: RedisProcess, tmp_path: Path
) -> None:
    async with house(Model(), server, tmp_path, 1) as (upstream, (a,)):
        watch = Watch()
        await watch.ask(a, SHARE)
        await killed(a)
        died = time.monotonic()
        async with node(upstream, server, tmp_path, OPENAI_MODEL_DEFAULT=MODEL) as again:
            await watch.goes_to(again)
            done = await watch.end()
        assert told(done) == [("gpt", "internal"), ("gpt", "ok")]
        watch.check_times(done, at_least=died - watch.started)


async def test_a_call_that_had_said_nothing_is_told_of_and_first_words_count_from_acceptance(
    server: RedisProcess, tmp_path: Path
) -> None:
    async with house(Model(share=0), server, tmp_path) as (upstream, (a, b)):
        watch = Watch()
        await watch.ask(a, 0)
        await upstream.request(0)
        await asyncio.sleep(0.3)
        await killed(a)
        died = time.monotonic()
        await watch.goes_to(b)
        done = await watch.end()
        assert told(done) == [("gpt", "internal"), ("gpt", "ok")]
        assert done["attempts"][0]["usage"]["output_tokens"] == 0
        assert done["timing"]["first_token_ms"] >= (died - watch.started) * 1000


async def test_a_drained_nodes_call_is_told_of(server: RedisProcess, tmp_path: Path) -> None:
    async with house(Model(), server, tmp_path, DRAIN_TIMEOUT="0.2") as (_, (a, b)):
        watch = Watch()
        await watch.ask(a, SHARE)
        a.signal(signal.SIGTERM)
        assert await a.ended() == 0
        left = time.monotonic()
        await watch.goes_to(b)
        done = await watch.end()
        assert told(done) == [("gpt", "draining"), ("gpt", "ok")]
        watch.check_times(done, at_least=0.2)
        first = done["attempts"][0]
        assert 200 <= first["ms"] <= (left - watch.asked) * 1000
        assert first["usage"]["output_tokens"] == estimate_tokens(len("".join(WORDS[:SHARE])))
        counted = await metrics(b)
        assert not [name for name in counted if 'outcome="draining"' in name], "a told of it"


async def test_the_cancel_of_an_orphan_tells_of_the_dead_call(
    server: RedisProcess, tmp_path: Path
) -> None:
    async with house(Model(), server, tmp_path) as (upstream, (a, b)):
        watch = Watch()
        await watch.ask(a, SHARE)
        await killed(a)
        died = time.monotonic()
        await watch.goes_to(b)
        assert watch.socket is not None
        await watch.socket.send(json.dumps({"type": "cancel", "id": "a"}))
        done = await watch.end()
        assert done["finish_reason"] == "cancelled"
        assert told(done) == [("gpt", "internal")]
        assert len(upstream.requests) == 1
        watch.check_times(done, at_least=died - watch.started)
        assert done["usage"] == done["attempts"][0]["usage"]


async def test_killed_in_the_middle_of_a_fallback_the_second_target_goes_on(
    server: RedisProcess, tmp_path: Path
) -> None:
    async with Upstream(lambda request: [Refuse("auth")]) as first:
        routed = {
            "SUPPORTED_PROVIDERS": "gpt,other",
            "PROVIDER_FALLBACKS": "gpt=other",
            "OPENAI_MODEL_DEFAULT": MODEL,
            "OTHER_API_KEY": "k",
            "OTHER_MODEL_DEFAULT": "m",
        }
        async with Upstream(Model(share=0)) as second:
            routed["OTHER_BASE_URL"] = second.base_url("openai")
            async with (
                node(first, server, tmp_path, **routed) as a,
                node(first, server, tmp_path, **routed) as b,
            ):
                watch = Watch()
                await watch.ask(a, 0)
                await second.request(0)
                await asyncio.sleep(0.3)
                await killed(a)
                await watch.goes_to(b)
                done = await watch.end()
                assert told(done) == [
                    ("gpt", "provider_auth"),
                    ("other", "internal"),
                    ("other", "ok"),
                ]
                (fallback,) = (f for f in watch.client.frames if f["type"] == "fallback")
                assert (fallback["reason"], fallback["keep"]) == ("provider_auth", True)
                assert len(first.requests) == 1
