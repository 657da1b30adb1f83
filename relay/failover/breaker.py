"""Circuit breakers, one per target: they decide whether a target may be asked. Pure.

One `Breakers` serves every stream of a process. Each attempt takes a `Ticket` when it is launched
and reports exactly once how it ended. Nothing here reads a clock: every call is given the time, in
seconds by the caller's clock. A *rest* is the time for which an open breaker lets nothing through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from relay.core.errors import Code
from relay.core.events import Target

FAILURES_TO_OPEN = 5
"""Failures in a row that open a breaker."""

RATE_WINDOW = 30.0
"""Seconds over which the failure rate is taken."""

RATE_SAMPLE = 20
"""The most outcomes that the failure rate is taken from."""

RATE_MINIMUM = 10
"""With fewer outcomes than this within the window the failure rate is not used."""

RATE_TO_OPEN = 0.5
"""The share of failures at which a breaker opens."""

COOLDOWN_GROWTH = 1.5
"""The factor by which the rest grows with every probe that failed."""

MOST_GROWN = 10
"""Failed probes in a row after which a rest grows no further."""

LONGEST_COOLDOWN = 20.0
"""The longest rest in seconds, jitter included, so that a recovery is noticed well within 30 s. A
longer `BREAKER_COOLDOWN` or `Retry-After` still applies."""

JITTER = 0.2
"""A rest is longer by up to this share, so that processes do not probe in step."""

PROBE_LEASE = 60.0
"""Seconds after which a probe whose end was never reported no longer blocks the next one."""


class BreakerState(StrEnum):
    """What a breaker lets through: everything, nothing, or one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Condition:
    """The facts about one target, for `/health` and metrics. `retry_at` is when the next
    probe is let through, by the caller's clock; None while closed. `code` is the failure
    that it opened for, and while it is closed the last one."""

    state: BreakerState
    failures: int
    retry_at: float | None
    code: Code | None


class Ticket(Struct, eq=False):
    """One attempt's permission to ask a target. `probe`: the attempt tests whether the target works
    again. `forced`: the attempt is made although the breaker is open."""

    target: Target
    probe: bool
    forced: bool


@dataclass(slots=True)
class _Health:
    failures: int = 0
    probes_failed: int = 0
    opened: bool = False
    retry_at: float = 0.0
    floor: float = 0.0
    last_failure: float = float("-inf")
    code: Code | None = None
    opened_for: Code | None = None
    probe: Ticket | None = None
    probe_since: float = 0.0
    recent: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=RATE_SAMPLE))

    def resting(self, now: float) -> bool:
        return self.opened and now < self.retry_at

    def probing(self, now: float) -> bool:
        return self.probe is not None and now < self.probe_since + PROBE_LEASE

    def sick(self, now: float) -> bool:
        if self.failures >= FAILURES_TO_OPEN:
            return True
        seen = [failed for at, failed in self.recent if at > now - RATE_WINDOW]
        return len(seen) >= RATE_MINIMUM and sum(seen) >= RATE_TO_OPEN * len(seen)


class Breakers:
    """The breakers of every target that was ever asked.

    `cooldown` is `BREAKER_COOLDOWN` in seconds; `jitter` yields numbers from 0 to 1.
    """

    def __init__(self, cooldown: float, jitter: Callable[[], float]) -> None:
        self._cooldown = cooldown
        self._jitter = jitter
        self._health: dict[Target, _Health] = {}

    def admits(self, target: Target, now: float) -> bool:
        """Whether an attempt may be launched: closed, or half open with the probe free."""
        health = self._health.get(target)
        if health is None or not health.opened:
            return True
        return not health.resting(now) and not health.probing(now)

    def closed(self, target: Target) -> bool:
        """Whether the target's breaker is closed."""
        health = self._health.get(target)
        return health is None or not health.opened

    def longest_rested(self, targets: Iterable[Target]) -> Target:
        """The target whose last failure is longest ago; the first of those that tie.
        Raises `ValueError` for no targets."""
        return min(targets, key=lambda target: self._of(target).last_failure)

    def enter(self, target: Target, now: float) -> Ticket:
        """Permission to launch one attempt. Always given: where the breaker does not admit it, the
        ticket is `forced`. Report how the attempt ended with one of `succeeded`, `failed` and
        `released`."""
        health = self._of(target)
        if not health.opened:
            return Ticket(target, probe=False, forced=False)
        free = not health.resting(now) and not health.probing(now)
        ticket = Ticket(target, probe=free, forced=not free)
        if free:
            health.probe, health.probe_since = ticket, now
        return ticket

    def answering(self, ticket: Ticket) -> None:
        """The attempt yields content: a probe closes the breaker, on trial. The next
        failure opens it again, a success ends the trial."""
        health = self._of(ticket.target)
        if health.opened and (ticket.probe or ticket.forced):
            health.opened = False
            health.probe = None
            health.failures = FAILURES_TO_OPEN - 1

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """The attempt ended well. Closes the breaker, unless the attempt was launched before the
        breaker opened: then it says nothing about the target's present state."""
        health = self._of(ticket.target)
        health.recent.append((now, False))
        if health.opened and not (ticket.probe or ticket.forced):
            return
        self._give_back(health, ticket)
        health.opened = False
        health.failures = 0
        health.probes_failed = 0
        health.floor = 0.0

    def failed(
        self, ticket: Ticket, code: Code, now: float, retry_after: float | None = None
    ) -> None:
        """The attempt failed because of the target. The rest lasts at least `retry_after`
        seconds."""
        health = self._of(ticket.target)
        health.failures += 1
        health.code = code
        health.last_failure = now
        health.recent.append((now, True))
        health.floor = max(health.floor, now + (retry_after or 0.0))
        if ticket.probe and health.probe is ticket:
            health.probe = None
            health.probes_failed += 1
            self._rest(health, now)
        elif health.opened:
            health.retry_at = max(health.retry_at, health.floor)
        elif health.sick(now):
            self._rest(health, now)

    def released(self, ticket: Ticket) -> None:
        """The attempt ended in a way that says nothing about the target (cancelled, or a bad
        request): a probe is free for the next attempt."""
        self._give_back(self._of(ticket.target), ticket)

    def state(self, target: Target, now: float) -> Condition:
        """What is known of a target."""
        health = self._health.get(target)
        if health is None:
            return Condition(BreakerState.CLOSED, 0, None, None)
        if not health.opened:
            return Condition(BreakerState.CLOSED, health.failures, None, health.code)
        state = BreakerState.OPEN if health.resting(now) else BreakerState.HALF_OPEN
        return Condition(state, health.failures, health.retry_at, health.opened_for)

    def states(self, now: float) -> dict[Target, Condition]:
        """What is known of every target that was ever asked."""
        return {target: self.state(target, now) for target in self._health}

    def _of(self, target: Target) -> _Health:
        health = self._health.get(target)
        if health is None:
            health = self._health[target] = _Health()
        return health

    def _give_back(self, health: _Health, ticket: Ticket) -> None:
        if health.probe is ticket:
            health.probe = None

    def _rest(self, health: _Health, now: float) -> None:
        grown = self._cooldown * COOLDOWN_GROWTH ** min(health.probes_failed, MOST_GROWN)
        jittered = grown * (1 + JITTER * self._jitter())
        longest = max(LONGEST_COOLDOWN, self._cooldown * (1 + JITTER))
        health.opened = True
        health.opened_for = health.code
        health.recent.clear()
        health.retry_at = max(now + min(jittered, longest), health.floor)
