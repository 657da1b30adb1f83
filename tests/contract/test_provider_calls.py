"""Calls of every vendor's provider, by every way: begun wrongly, closed in every state, and what
is left of them. What they answer is in `test_providers.py`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
from collections.abc import Sequence
from contextvars import ContextVar, copy_context

import pytest

from lab import upstreams as up
from lab.upstreams import Upstream
from relay.core.errors import Code, Fault
from relay.core.events import Event, Text
from relay.core.provider import Call
from relay.core.request import ChatRequest, Turn
from relay.providers.awaited import AwaitedCall, begin_and_wait
from relay.providers.http.call import LeanCall
from relay.providers.registry import build
from relay.providers.vendor import VendorProvider

CALL = Call("some-model", ChatRequest("p", (Turn("user", "Hi"),)), 64)
PATIENCE = 10.0
ANY = pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini"])
BY_ANY_WAY = pytest.mark.parametrize("way", ["sdk", "cold", "warm"])
"""Through the SDK; what it sends is learnt by the call; it was learnt before."""

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


class Told:
    """A caller that remembers, in a context of its own."""

    def __init__(self) -> None:
        self.context = copy_context()
        self.context.run(whose.set, "the caller's")
        self.heard: list[Event] = []
        self.ends: list[BaseException | None] = []
        self.over = asyncio.Event()

    def take(self, events: Sequence[Event]) -> None:
        assert not self.ends, "said something after its end"
        self.heard.extend(events)

    def ended(self, error: BaseException | None) -> None:
        self.ends.append(error)
        self.over.set()


@contextlib.asynccontextmanager
async def connected(kind: str, way: str, script=None):
    async with Upstream(script) as upstream:
        base = upstream.base_url(kind)
        provider = build(kind, name="p", api_key="k-123", base_url=base, lean=way != "sdk")
        assert isinstance(provider, VendorProvider)
        if way == "warm":
            await provider.warm(CALL.model)
        try:
            yield upstream, provider
        finally:
            await provider.close()


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


@ANY
@BY_ANY_WAY
@pytest.mark.parametrize("error", [Fault, ZeroDivisionError])
async def test_a_request_that_cannot_be_built_is_how_its_call_ends(kind, way, error):
    error = error(Code.BAD_REQUEST, "no words")

    def raises(call: Call) -> None:
        if call is CALL:
            raise error
        return built(call)

    async with connected(kind, way, up.answer("fine")) as (upstream, provider):
        built = provider._wire.body
        provider._wire = provider._wire._replace(body=raises)
        told = Told()
        call = provider.begin(CALL, told)
        assert told.ends == [], "told from the event loop only"
        async with asyncio.timeout(PATIENCE):
            await told.over.wait()
        call.close()
        await asyncio.sleep(0.01)
        assert (told.heard, told.ends) == ([], [error])
        assert upstream.requests == []
        provider._wire = provider._wire._replace(body=built)
        heard: list[Event] = []
        await begin_and_wait(provider, CALL, heard.extend)
        assert Text("fine") in heard, "and the next call is none the worse"
        assert (provider._lean.endpoint(CALL.model) is None) == (way == "sdk")


@ANY
@BY_ANY_WAY
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 10, 12, 16, 40, 200])
async def test_a_call_closed_after_any_turn_of_the_loop_says_nothing_and_leaves_nothing(
    kind, way, turns
):
    async with connected(kind, way, up.stalls_after("one")) as (upstream, provider):
        before = asyncio.all_tasks()
        told = Told()
        call = provider.begin(CALL, told)
        for _ in range(turns):
            await asyncio.sleep(0)
        said = len(told.heard)
        call.close()
        call.close()
        async with asyncio.timeout(1.0):
            while any(not request.closed.is_set() for request in upstream.requests):
                await asyncio.sleep(0)
        await until(lambda: not provider._awaited._tasks)
        assert (len(told.heard), told.ends) == (said, [])
        del call
        served = {task for task in asyncio.all_tasks() - before if "Upstream" in repr(task)}
        await until(lambda: asyncio.all_tasks() - before <= served)


@ANY
@BY_ANY_WAY
async def test_a_call_closed_after_its_end_is_told_nothing_more(kind, way):
    async with connected(kind, way, up.answer("fine")) as (_, provider):
        told = Told()
        call = provider.begin(CALL, told)
        async with asyncio.timeout(PATIENCE):
            await told.over.wait()
        call.close()
        await asyncio.sleep(0.01)
        assert told.ends == [None]
        assert not provider._awaited._tasks


@ANY
@BY_ANY_WAY
@pytest.mark.parametrize("turns", [0, 1, 3, 10, 200])
async def test_a_provider_that_closes_ends_the_calls_under_way(kind, way, turns):
    async with connected(kind, way, up.stalls_after("one")) as (_, provider):
        told = Told()
        provider.begin(CALL, told)
        for _ in range(turns):
            await asyncio.sleep(0)
        await provider.close()
        async with asyncio.timeout(PATIENCE):
            await told.over.wait()
        (error,) = told.ends
        assert isinstance(error, Fault)
        assert error.code is Code.PROVIDER_INTERRUPTED
        assert not provider._awaited._tasks


PACKED = [up.Respond(200, gzip.compress(b"{}"), {"content-encoding": "gzip"})]
"""What the lean way leaves to the SDK."""


@ANY
@pytest.mark.parametrize("way", ["cold", "warm"])
async def test_a_call_that_the_sdk_took_up_is_its_callers_own(kind, way):
    seen: list[str] = []
    scripts = up.in_turn(up.answer("first"), PACKED, up.answer("taken up"))
    async with connected(kind, way, scripts) as (upstream, provider):
        await begin_and_wait(provider, CALL, print)  # its connection is used again
        decoder = provider._wire.decoder

        def recording(call: Call):
            seen.append(whose.get())
            return decoder(call)

        provider._wire = provider._wire._replace(decoder=recording)
        told = Told()
        provider.begin(CALL, told)
        async with asyncio.timeout(PATIENCE):
            await told.over.wait()
        assert Text("taken up") in told.heard
        assert told.ends == [None]
        assert len(upstream.requests) == 3
        assert seen == ["nobody's", "the caller's"]


@ANY
@pytest.mark.parametrize("way", ["cold", "warm"])
async def test_a_call_that_the_sdk_took_up_is_closed_like_any_other(kind, way):
    async with connected(kind, way, up.in_turn(PACKED, [up.Hang()])) as (upstream, provider):
        told = Told()
        call = provider.begin(CALL, told)
        await until(lambda: len(upstream.requests) == 2)
        call.close()
        async with asyncio.timeout(1.0):
            await upstream.requests[1].closed.wait()
        await until(lambda: not provider._awaited._tasks)
        assert (told.heard, told.ends) == ([], [])


@ANY
@BY_ANY_WAY
@pytest.mark.parametrize("ending", ["end", "close"])
async def test_a_call_that_is_over_is_gone_without_the_collector(kind, way, ending):
    script = up.answer("fine") if ending == "end" else up.stalls_after("one")
    async with connected(kind, way, script) as (_, provider):
        gc.collect()
        gc.disable()
        try:
            before = alive()
            await over(provider, ending)
            await until(lambda: alive() == before)
        finally:
            gc.enable()


def alive() -> int:
    """How many calls there are in this process."""
    return sum(isinstance(each, LeanCall | AwaitedCall) for each in gc.get_objects())


async def over(provider: VendorProvider, ending: str) -> None:
    """A call that came to its end, or was closed before."""
    told = Told()
    call = provider.begin(CALL, told)
    await until(lambda: told.ends if ending == "end" else told.heard)
    call.close()
