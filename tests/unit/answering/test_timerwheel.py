"""Deadlines of many, one timer: nobody is called early, forgotten, or after leaving."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar, copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.answering.timerwheel import LOOP_TICK, STEP, TimerWheel

PATIENCE = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Member:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.context = copy_context()
        self.called: list[float] = []

    def tick(self) -> None:
        self.called.append(self._clock.now)


async def at(clock: Clock, wheel: TimerWheel, now: float) -> None:
    """Let it be `now`, and all that is due have happened."""
    clock.now = now
    wheel.turn()
    await asyncio.sleep(0)


async def test_a_member_is_called_once_at_its_deadline_or_a_step_after():
    clock = Clock()
    wheel, member = TimerWheel(clock), Member(clock)
    wheel.join(member, 1_007.01)
    await at(clock, wheel, 1_007.0)
    assert member.called == []
    await at(clock, wheel, 1_007.01 + STEP)
    await at(clock, wheel, 1_008.0)
    assert member.called == [1_007.01 + STEP]


async def test_a_timer_that_comes_early_is_not_armed_again_for_the_same_moment(monkeypatch):
    clock, waits = Clock(), []
    wheel = TimerWheel(clock)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda wait, call: waits.append(wait))
    wheel.join(Member(clock), 1_001.0)
    clock.now = 1_000.9997
    wheel.turn()
    assert waits[-1] >= LOOP_TICK


async def test_for_deadlines_that_were_all_left_no_timer_is_armed(monkeypatch):
    clock, waits = Clock(), []
    wheel = TimerWheel(clock)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda wait, call: waits.append(wait) or loop)  # type: ignore[func-returns-value]
    for due in (1_001.0, 1_002.0, 1_003.0, 1_009.0):
        wheel.join(member := Member(clock), due)
        if due < 1_009.0:
            wheel.leave(member, due)
    clock.now = 1_001.5
    wheel.turn()
    assert waits == pytest.approx([1.0 + LOOP_TICK, 7.5 + LOOP_TICK])


async def test_a_deadline_that_has_passed_is_due_at_once():
    clock = Clock()
    wheel, member = TimerWheel(clock), Member(clock)
    wheel.join(member, 12.0)
    await at(clock, wheel, clock.now)
    assert len(member.called) == 1


async def test_each_is_called_in_its_own_context_whoever_armed_the_timer():
    clock, whose, told = Clock(), ContextVar("whose", default="nobody's"), []
    wheel = TimerWheel(clock)

    class Named(Member):
        def tick(self) -> None:
            told.append(whose.get())

    for name in ("a", "b"):
        whose.set(name)
        wheel.join(Named(clock), 1_001.0)
    whose.set("c")
    await at(clock, wheel, 1_002.0)
    assert sorted(told) == ["a", "b"]


async def test_who_left_is_not_called_and_may_leave_again():
    clock = Clock()
    wheel, member, other = TimerWheel(clock), Member(clock), Member(clock)
    wheel.join(member, 1_001.0)
    wheel.join(other, 1_001.0)
    wheel.leave(member, 1_001.0)
    wheel.leave(member, 1_001.0)
    await at(clock, wheel, 1_002.0)
    assert (member.called, other.called) == ([], [1_002.0])
    wheel.leave(member, 1_001.0)


async def test_a_member_may_join_anew_while_it_is_called():
    clock = Clock()
    wheel = TimerWheel(clock)

    class Again(Member):
        def tick(self) -> None:
            super().tick()
            wheel.join(self, self._clock.now + 1.0)

    member = Again(clock)
    wheel.join(member, 1_001.0)
    for now in (1_001.0, 1_002.0, 1_003.0):
        await at(clock, wheel, now)
    assert member.called == [1_001.0, 1_002.0, 1_003.0]


async def test_one_member_that_raises_harms_no_other():
    clock, told = Clock(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: told.append(what))
    wheel = TimerWheel(clock)

    class Broken(Member):
        def tick(self) -> None:
            raise ZeroDivisionError

    members = [Broken(clock), *(Member(clock) for _ in range(5)), Broken(clock)]
    for member in members:
        wheel.join(member, 1_001.0)
    await at(clock, wheel, 1_001.0)
    assert [len(member.called) for member in members] == [0, 1, 1, 1, 1, 1, 0]
    assert len(told) == 2


@given(
    st.lists(st.tuples(st.floats(0, 20), st.none() | st.floats(0, 20)), max_size=30),
    st.lists(st.floats(0.001, 5), max_size=20),
)
def test_whatever_joins_and_leaves_each_is_called_in_its_time(waits, passing):
    async def played() -> None:
        clock = Clock()
        wheel, born = TimerWheel(clock), clock.now
        members = [(Member(clock), born + wait, leaves) for wait, leaves in waits]
        for member, due, _ in members:
            wheel.join(member, due)
        for passed in [*passing, 25.0]:
            now = clock.now + passed
            for member, due, leaves in members:
                if leaves is not None and clock.now < born + leaves <= now:
                    wheel.leave(member, due)
            await at(clock, wheel, now)
            for member, due, leaves in members:
                assert all(called >= due for called in member.called)
                assert len(member.called) <= 1
                stays = leaves is None or born + leaves > now
                assert member.called or not stays or now < due + STEP

    asyncio.run(played())


async def test_the_earliest_deadline_arms_the_timer_of_a_real_loop():
    wheel, early, late = TimerWheel(time.monotonic), asyncio.Event(), asyncio.Event()

    class Sets:
        def __init__(self, event: asyncio.Event) -> None:
            self.tick = event.set
            self.context = copy_context()

    wheel.join(Sets(late), time.monotonic() + 3_600)
    wheel.join(Sets(early), time.monotonic() + 0.01)
    await asyncio.wait_for(early.wait(), PATIENCE)
    assert not late.is_set()
