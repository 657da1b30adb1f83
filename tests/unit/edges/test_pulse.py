"""Every member has its beat an interval, none has two, and no timer runs for nobody."""

import asyncio

import pytest

from relay.edges.pulse import STEP, Pulse


class Clock:
    """Stands in for the running loop: time passes by its hand."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.due = []
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)

    def call_later(self, delay, call):
        handle = Handle(self.now + delay, call)
        self.due.append(handle)
        return handle

    def pass_to(self, until):
        while self.waiting and min(each.at for each in self.waiting) <= until + 1e-9:
            first = min(self.waiting, key=lambda each: each.at)
            self.due.remove(first)
            self.now = first.at
            first.call()
        self.now = until

    @property
    def waiting(self):
        return [each for each in self.due if not each.cancelled]


class Handle:
    def __init__(self, at, call):
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class Member:
    def __init__(self, clock):
        self.beats = []
        self._clock = clock

    def beat(self):
        self.beats.append(self._clock.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_member_has_its_beats_an_interval_apart_whenever_it_joined(clock):
    pulse = Pulse(20.0)
    members = []
    for at in (0.0, 0.05, 3.3, 19.99):
        clock.pass_to(at)
        members.append((at, Member(clock)))
        pulse.join(members[-1][1])
    clock.pass_to(120.0)
    for joined, member in members:
        assert 20.0 - STEP <= member.beats[0] - joined <= 20.0 + STEP
        gaps = [b - a for a, b in zip(member.beats, member.beats[1:], strict=False)]
        assert all(abs(gap - 20.0) < 1e-6 for gap in gaps)
        assert len(member.beats) >= 5


def test_an_interval_shorter_than_a_step_is_kept(clock):
    pulse, member = Pulse(0.05), Member(clock)
    pulse.join(member)
    clock.pass_to(0.5)
    assert len(member.beats) == 10


def test_who_left_has_no_beat_and_without_members_no_timer_runs(clock):
    pulse, gone, stays = Pulse(1.0), Member(clock), Member(clock)
    pulse.join(gone)
    pulse.join(stays)
    pulse.leave(gone)
    pulse.leave(gone)
    clock.pass_to(2.5)
    assert gone.beats == []
    assert len(stays.beats) == 2
    pulse.leave(stays)
    assert clock.waiting == []
    pulse.join(gone)
    clock.pass_to(4.0)
    assert len(gone.beats) == 1


def test_a_member_may_leave_within_its_beat(clock):
    pulse, other = Pulse(1.0), Member(clock)
    leaver = Member(clock)
    leaver.beat = lambda: pulse.leave(leaver)
    pulse.join(leaver)
    pulse.join(other)
    clock.pass_to(1.5)
    assert len(other.beats) == 1
