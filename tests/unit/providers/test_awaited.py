"""Calls that are awaited: what their callers are told, when nothing, and what closing does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar, copy_context

import pytest

from relay.core.errors import Code, Fault
from relay.core.events import Event, Text
from relay.core.provider import Call, Caller, Form, Take, UpstreamCall
from relay.providers.awaited import AwaitedCalls, Way, begin_and_wait
from relay.providers.http.lean import greeting

name: ContextVar[str] = ContextVar("name", default="")


class Told:
    """A caller that remembers."""

    def __init__(self) -> None:
        self.context = copy_context()
        self.ends: list[BaseException | None] = []

    def take(self, events: Sequence[Event]) -> None:
        raise AssertionError("nothing is said here")

    def ended(self, error: BaseException | None) -> None:
        self.ends.append(error)


async def over(calls: AwaitedCalls) -> None:
    """Wait until no call is under way."""
    async with asyncio.timeout(10):
        while calls._tasks:
            await asyncio.sleep(0)
    await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("error", [None, Fault(Code.PROVIDER_ERROR, "no"), KeyError()])
async def test_a_caller_is_told_how_it_ended(error: Exception | None) -> None:
    async def way(take: Take) -> None:
        if error is not None:
            raise error

    calls, told = AwaitedCalls(), Told()
    calls.begin(way, told)
    assert told.ends == [], "told from the event loop only"
    await over(calls)
    assert told.ends == [error]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_call_that_is_closed_at_any_time_ends_without_a_word(turns: int) -> None:
    closed = []

    async def way(take: Take) -> None:
        try:
            await for_ever()
        finally:
            closed.append(True)

    calls, told = AwaitedCalls(), Told()
    call = calls.begin(way, told)
    for _ in range(turns):
        await asyncio.sleep(0)
    call.close()
    call.close()
    await over(calls)
    call.close()
    assert len(closed) == (turns > 0), "one that never ran has nothing to close"
    assert told.ends == []


async def test_a_call_that_ended_in_the_moment_it_is_closed_ends_without_a_word() -> None:
    async def way(take: Take) -> None:
        await asyncio.sleep(0)

    calls, told = AwaitedCalls(), Told()
    call = calls.begin(way, told)
    while not next(iter(calls._tasks)).done():
        await asyncio.sleep(0)
    call.close()
    await over(calls)
    assert told.ends == []


async def test_what_is_said_after_it_was_closed_is_not_heard() -> None:
    async def way(take: Take) -> None:
        try:
            await for_ever()
        finally:
            take([Text("late")])

    calls, told = AwaitedCalls(), Told()
    call = calls.begin(way, told)
    await asyncio.sleep(0)
    call.close()
    await over(calls)
    assert told.ends == []


async def test_what_it_raises_against_being_closed_is_told() -> None:
    defect = KeyError()

    async def way(take: Take) -> None:
        try:
            await for_ever()
        finally:
            raise defect

    calls, told = AwaitedCalls(), Told()
    call = calls.begin(way, told)
    await asyncio.sleep(0)
    call.close()
    await over(calls)
    assert told.ends == [defect]


@pytest.mark.parametrize("turns", [0, 1])
async def test_closing_them_all_tells_each_caller_that_its_answer_broke(turns: int) -> None:
    closed = []

    async def way(take: Take) -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0.01)
            closed.append(True)

    calls, callers = AwaitedCalls(), [Told(), Told(), Told()]
    begun = [calls.begin(way, told) for told in callers]
    for _ in range(turns):
        await asyncio.sleep(0)
    begun[0].close()
    await calls.close()
    assert len(closed) == 3 * turns
    assert callers[0].ends == []
    for told in callers[1:]:
        (error,) = told.ends
        assert isinstance(error, Fault)
        assert error.code is Code.PROVIDER_INTERRUPTED
    await calls.close()
    assert not calls._tasks


async def test_a_coroutine_that_cancels_itself_is_told_as_a_break() -> None:
    async def way(take: Take) -> None:
        raise asyncio.CancelledError

    calls, told = AwaitedCalls(), Told()
    calls.begin(way, told)
    await over(calls)
    (error,) = told.ends
    assert isinstance(error, Fault)


async def test_an_error_in_beginning_is_told_as_the_end_from_the_event_loop() -> None:
    calls, told, error = AwaitedCalls(), Told(), KeyError()
    calls.fail(error, told)
    assert told.ends == []
    await over(calls)
    assert told.ends == [error]


async def test_an_error_in_beginning_is_not_told_once_the_call_is_closed() -> None:
    calls, told = AwaitedCalls(), Told()
    calls.fail(KeyError(), told).close()
    await over(calls)
    assert told.ends == []


async def test_it_runs_in_its_callers_context() -> None:
    seen = []

    async def way(take: Take) -> None:
        seen.append(name.get())

    calls, told = AwaitedCalls(), Told()
    told.context.run(name.set, "a stream's")
    calls.begin(way, told)
    await over(calls)
    assert seen == ["a stream's"]
    assert name.get() == ""


class Scripted:
    """A provider whose calls are all made the same way."""

    name = "scripted"

    def __init__(self, way: Way) -> None:
        self._way = way
        self.calls = AwaitedCalls()

    def forms(self, model: str) -> tuple[Form, ...]:
        return (Form.RESTART,)

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        return self.calls.begin(self._way, caller)

    async def warm(self, model: str) -> None: ...

    async def probe(self) -> None: ...

    async def close(self) -> None:
        await self.calls.close()


async def test_asking_hears_an_answer_to_its_end() -> None:
    async def way(take: Take) -> None:
        take([Text("a")])
        await asyncio.sleep(0)
        take([Text("b")])

    heard: list[Event] = []
    async with asyncio.timeout(10):
        await begin_and_wait(Scripted(way), greeting("m"), heard.extend)
    assert heard == [Text("a"), Text("b")]


async def test_asking_raises_what_the_call_ended_in() -> None:
    async def way(take: Take) -> None:
        raise Fault(Code.PROVIDER_OVERLOADED, "busy")

    with pytest.raises(Fault, match="busy"):
        await begin_and_wait(Scripted(way), greeting("m"), print)


async def test_asking_in_vain_closes_the_call() -> None:
    closed = asyncio.Event()

    async def way(take: Take) -> None:
        try:
            await for_ever()
        finally:
            closed.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await begin_and_wait(Scripted(way), greeting("m"), print)
    async with asyncio.timeout(0.1):
        await closed.wait()


async def test_asking_runs_in_the_context_of_who_asks() -> None:
    seen = []

    async def way(take: Take) -> None:
        seen.append(name.get())

    token = name.set("mine")
    await begin_and_wait(Scripted(way), greeting("m"), print)
    name.reset(token)
    assert seen == ["mine"]
