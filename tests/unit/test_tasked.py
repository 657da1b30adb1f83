"""An upstream call in a task: what its caller is told, and when it is told nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar, copy_context

import pytest
from relay.tasked import Tasked

from relay.errors import Code, Fault
from relay.events import Event

name: ContextVar[str] = ContextVar("name", default="")


class Told:
    """A caller that remembers."""

    def __init__(self) -> None:
        self.ends: list[BaseException | None] = []

    def take(self, events: Sequence[Event]) -> None:
        raise AssertionError("nothing is said here")

    def ended(self, error: BaseException | None) -> None:
        self.ends.append(error)


async def over(tasked: Tasked) -> None:
    await asyncio.wait({tasked.task}, timeout=10)
    await asyncio.sleep(0)


@pytest.mark.parametrize("error", [None, Fault(Code.PROVIDER_ERROR, "no"), KeyError()])
async def test_a_caller_is_told_how_it_ended(error: Exception | None) -> None:
    async def run() -> None:
        if error is not None:
            raise error

    tasked = Tasked(run(), told := Told(), copy_context())
    await over(tasked)
    assert told.ends == [error]


async def test_a_call_that_is_closed_ends_without_a_word() -> None:
    closed = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    tasked = Tasked(run(), told := Told(), copy_context())
    await asyncio.sleep(0)
    tasked.close()
    tasked.close()
    await over(tasked)
    assert closed.is_set()
    assert told.ends == []


async def test_what_it_raises_against_being_closed_is_told() -> None:
    defect = KeyError()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise defect

    tasked = Tasked(run(), told := Told(), copy_context())
    await asyncio.sleep(0)
    tasked.close()
    await over(tasked)
    assert told.ends == [defect]


async def test_it_runs_in_the_context_it_is_given() -> None:
    seen = []

    async def run() -> None:
        seen.append(name.get())

    context = copy_context()
    context.run(name.set, "a stream's")
    await over(Tasked(run(), Told(), context))
    assert seen == ["a stream's"]
    assert name.get() == ""
