from __future__ import annotations

import pytest

from relay.core.errors import Code
from relay.core.events import Target
from relay.failover.breaker import (
    FAILURES_TO_OPEN,
    LONGEST_COOLDOWN,
    PROBE_LEASE,
    RATE_MINIMUM,
    RATE_WINDOW,
    Breakers,
    BreakerState,
)
from tests.by_default import usual_breakers

T, U = Target("gpt", "m"), Target("claude", "m")
DOWN = Code.PROVIDER_OVERLOADED


def fail(breakers: Breakers, now: float, times: int = 1, retry_after=None, target=T) -> None:
    for _ in range(times):
        breakers.failed(breakers.enter(target, now), DOWN, now, retry_after)


def opened(now: float = 0.0, **kwargs) -> Breakers:
    breakers = Breakers(10.0, lambda: 0.0)
    fail(breakers, now, FAILURES_TO_OPEN, **kwargs)
    return breakers


def test_an_unknown_target_is_closed():
    breakers = usual_breakers()
    assert breakers.admits(T, 0.0)
    assert breakers.state(T, 0.0).state is BreakerState.CLOSED
    assert breakers.states(0.0) == {}


def test_it_opens_on_the_fifth_failure_in_a_row_and_not_on_the_fourth():
    breakers = usual_breakers()
    fail(breakers, 0.0, FAILURES_TO_OPEN - 1)
    assert breakers.closed(T)
    fail(breakers, 0.0)
    assert not breakers.admits(T, 0.0)
    assert breakers.closed(U)


def test_a_success_ends_a_row():
    breakers = usual_breakers()
    fail(breakers, 0.0, FAILURES_TO_OPEN - 1)
    breakers.succeeded(breakers.enter(T, 0.0), 0.0)
    fail(breakers, 0.0, FAILURES_TO_OPEN - 1)
    assert breakers.closed(T)


@pytest.mark.parametrize(("spread", "closed"), [(1.0, False), (RATE_WINDOW / 5, True)])
def test_it_opens_on_a_failure_rate_within_the_window(spread, closed):
    breakers = usual_breakers()
    for n in range(RATE_MINIMUM):
        now = n * spread
        if n % 2:
            fail(breakers, now)
        else:
            breakers.succeeded(breakers.enter(T, now), now)
    assert breakers.closed(T) is closed


def test_it_rests_for_the_cooldown_and_then_lets_exactly_one_probe_through():
    breakers = opened()
    assert not breakers.admits(T, 9.99)
    condition = breakers.state(T, 9.99)
    assert (condition.state, condition.retry_at, condition.code) == (BreakerState.OPEN, 10.0, DOWN)
    assert breakers.admits(T, 10.0)
    assert breakers.state(T, 10.0).state is BreakerState.HALF_OPEN
    probe = breakers.enter(T, 10.0)
    assert probe.probe
    assert not breakers.admits(T, 10.0)
    second = breakers.enter(T, 10.0)
    assert (second.probe, second.forced) == (False, True)


def test_a_successful_probe_closes_it_for_good():
    breakers = opened()
    breakers.succeeded(breakers.enter(T, 10.0), 11.0)
    fail(breakers, 11.0, FAILURES_TO_OPEN - 1)
    assert breakers.closed(T)


def test_an_answering_probe_closes_it_on_trial():
    breakers = opened()
    probe = breakers.enter(T, 10.0)
    breakers.answering(probe)
    assert breakers.closed(T)
    breakers.failed(probe, DOWN, 11.0)
    assert not breakers.closed(T)


def test_a_probe_given_back_is_free_for_the_next_attempt():
    breakers = opened()
    breakers.released(breakers.enter(T, 10.0))
    assert breakers.enter(T, 10.0).probe


def test_a_probe_that_is_never_reported_on_does_not_bar_the_target_for_ever():
    breakers = opened()
    breakers.enter(T, 10.0)
    assert not breakers.admits(T, 10.0 + PROBE_LEASE - 0.1)
    assert breakers.admits(T, 10.0 + PROBE_LEASE)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_the_rest_grows_with_failed_probes_but_recovery_is_noticed_within_30_s(jitter):
    breakers = Breakers(10.0, lambda: jitter)
    fail(breakers, 0.0, FAILURES_TO_OPEN)
    now, rests = 0.0, []
    for _ in range(2_000):
        retry_at = breakers.state(T, now).retry_at
        rests.append(retry_at - now)
        now = retry_at
        fail(breakers, now)
    assert rests[0] < rests[1]
    assert max(rests) <= LONGEST_COOLDOWN < 30
    assert min(rests) >= 10.0


def test_a_longer_configured_cooldown_is_obeyed():
    breakers = Breakers(60.0, lambda: 0.0)
    fail(breakers, 0.0, FAILURES_TO_OPEN)
    assert breakers.state(T, 0.0).retry_at == 60.0


def test_retry_after_is_a_floor():
    breakers = opened(retry_after=45.0)
    assert breakers.state(T, 0.0).retry_at == 45.0
    late = opened()
    before = late.enter(T, 0.0)
    late.failed(before, DOWN, 5.0, 30.0)
    assert late.state(T, 5.0).retry_at == 35.0
    assert opened(retry_after=1.0).state(T, 0.0).retry_at == 10.0


def test_failures_of_attempts_launched_before_or_by_force_do_not_prolong_the_rest():
    breakers = opened()
    forced = breakers.enter(T, 5.0)
    breakers.failed(forced, DOWN, 6.0)
    assert breakers.state(T, 6.0).retry_at == 10.0


def test_a_success_from_before_the_outage_does_not_close_it_and_a_forced_one_does():
    breakers = Breakers(10.0, lambda: 0.0)
    old = breakers.enter(T, 0.0)
    fail(breakers, 0.0, FAILURES_TO_OPEN)
    breakers.succeeded(old, 1.0)
    assert not breakers.closed(T)
    breakers.succeeded(breakers.enter(T, 2.0), 3.0)
    assert breakers.closed(T)


def test_the_longest_rested_target_is_the_one_whose_failure_is_longest_ago():
    breakers = opened()
    fail(breakers, 3.0, FAILURES_TO_OPEN, target=U)
    assert breakers.longest_rested([U, T]) == T
    fail(breakers, 4.0)
    assert breakers.longest_rested([T, U]) == U


def test_it_tells_what_it_opened_for_whatever_late_calls_fail_of():
    breakers = usual_breakers()
    late = breakers.enter(T, 0.0)
    for _ in range(FAILURES_TO_OPEN):
        breakers.failed(breakers.enter(T, 0.0), Code.PROVIDER_OVERLOADED, 0.0)
    breakers.failed(late, Code.PROVIDER_TIMEOUT, 1.0)
    assert breakers.state(T, 1.0).code is Code.PROVIDER_OVERLOADED
    probe = breakers.enter(T, 50.0)
    breakers.failed(probe, Code.PROVIDER_AUTH, 50.0)
    assert breakers.state(T, 51.0).code is Code.PROVIDER_AUTH
