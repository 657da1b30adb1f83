"""Which target of its route an answer asks next, and when. Pure.

An answer reports what happens to its attempts to its `Ladder` only, which remembers it for this
answer and passes it on to the target's breaker, which serves all answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.core.errors import OF_THE_REQUEST, Code, Fault
from relay.core.events import Target
from relay.core.provider import Form
from relay.failover.breaker import Breakers, Ticket
from relay.failover.plan import Plan

FRUITLESS = 2
"""A target is not asked again after so many attempts in a row that yielded nothing, or so many
faults that recur."""

BACKOFF = 0.25
"""Seconds before a target that failed is asked again, plus jitter of up to as many."""

RATE_LIMIT_BACKOFF = 1.0
"""The same for a target that is rate limited and doesn't say for how long."""

WAIT_JITTER = 0.1
"""The wait for a `Retry-After` is longer by up to this share, so that streams that were refused
together do not retry together."""


class NextAttempt(NamedTuple):
    """The next attempt: its target and its earliest time."""

    target: Target
    at: float


@dataclass(slots=True)
class _Rung:
    """What this answer has seen of one target. `tries` counts attempts in a row that yielded
    nothing, `recurred` faults that recur; `failed` is the code of its last fault; `free_at` is when
    its rate limit ends, `free_at_known` whether the vendor gave that time."""

    target: Target
    made: int = 0
    tries: int = 0
    recurred: int = 0
    failed: Code | None = None
    spent: bool = False
    free_at: float = 0.0
    free_at_known: bool = False
    refused: int = 0

    def open(self) -> bool:
        return not self.spent and self.tries < FRUITLESS


class Ladder:
    """The targets of one answer and what is left to try on each.

    `enter` is called for each attempt, and then one of `succeeded`, `failed`, `refused`,
    `silent` and `released` when it ends.
    """

    __slots__ = ("_breakers", "_jitter", "_plan", "_preferred", "_rungs", "only_restart")

    def __init__(self, plan: Plan, breakers: Breakers, jitter: Callable[[], float]) -> None:
        self._plan = plan
        self._breakers = breakers
        self._jitter = jitter
        self._preferred: Target | None = None
        self._rungs: list[_Rung] = []
        self.only_restart = False
        """Set where the text shown can't be joined with certainty."""

    # Reports on attempts

    def enter(self, target: Target, now: float) -> Ticket:
        """An attempt on `target` is launched."""
        rung = self._rung(target)
        rung.made += 1
        rung.tries += 1
        return self._breakers.enter(target, now)

    def answering(self, ticket: Ticket) -> None:
        """The attempt gave content."""
        self._breakers.answering(ticket)
        self._rung(ticket.target).tries = 0

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """The attempt ended well."""
        self._breakers.succeeded(ticket, now)

    def failed(
        self, ticket: Ticket, fault: Fault, now: float, *, yielded: bool, in_vain: bool
    ) -> None:
        """The attempt failed. `yielded` where it had given content, `in_vain` where that added
        nothing to the text.

        The target is not asked again where the fault's remedy is not to retry; where a timeout, a
        probe or a forced attempt gave no content; where its faults recur; and where an attempt in
        vain failed with the same code as the last fault.
        """
        self._report(ticket, fault, now)
        rung = self._rung(ticket.target)
        rung.recurred += fault.recurs
        once = ticket.probe or ticket.forced or fault.code is Code.PROVIDER_TIMEOUT
        nothing = once and not yielded
        the_same = in_vain and rung.failed is fault.code
        if nothing or the_same or fault.remedy != "retry" or rung.recurred >= FRUITLESS:
            rung.spent = True
        rung.failed = fault.code
        if fault.retry_after is not None:
            rung.free_at, rung.free_at_known = now + fault.retry_after, True
        elif fault.code is Code.PROVIDER_RATE_LIMITED:
            rung.free_at = now + RATE_LIMIT_BACKOFF * (1 + self._jitter())
            rung.free_at_known = False

    def refused(self, ticket: Ticket) -> None:
        """The target refused the form of the continuation. This is not counted against it."""
        self._breakers.released(ticket)
        rung = self._rung(ticket.target)
        rung.refused += 1
        rung.tries -= 1

    def silent(self, ticket: Ticket, now: float) -> None:
        """The attempt gave no sign of life when another gave content."""
        self._breakers.failed(ticket, Code.PROVIDER_TIMEOUT, now)
        self.spend(ticket.target)

    def released(self, ticket: Ticket) -> None:
        """The attempt ended in a way that says nothing about its target."""
        self._breakers.released(ticket)

    def spend(self, target: Target) -> None:
        """Never ask this target again for this answer."""
        self._rung(target).spent = True

    # Choice of targets

    def prefer(self, target: Target | None) -> None:
        """Make `first` return this target, if it may be asked."""
        self._preferred = target

    def passed_over(self, target: Target, now: float) -> Code | None:
        """The failure for which a target's breaker opened; None where the breaker admits an
        attempt."""
        if self._breakers.admits(target, now):
            return None
        return self._breakers.state(target, now).code or Code.PROVIDER_ERROR

    def first(self, now: float) -> Target:
        """The first target whose breaker lets an attempt through, the preferred one before
        all others; where none does, the one that has rested longest."""
        allowed, preferred = self._plan.allowed, self._preferred
        if preferred in allowed and self._breakers.admits(preferred, now):
            return preferred
        for target in allowed:
            if self._breakers.admits(target, now):
                return target
        return self._breakers.longest_rested(allowed)

    def form(self, target: Target) -> Form:
        """How the text shown is offered to `target`: its best form that it has not refused."""
        if self.only_restart or self._plan.rescue == "restart":
            return Form.RESTART
        forms = self._plan.forms.get(target) or (Form.RESTART,)
        refused = self._rung(target).refused
        return forms[refused] if refused < len(forms) else Form.RESTART

    def beside(self, now: float) -> Target | None:
        """A target for a hedge: not asked yet, its breaker closed."""
        return next((t for t in self._fresh(now) if self._breakers.closed(t)), None)

    def unasked(self, now: float) -> Target | None:
        """A target that this answer has not asked yet and whose breaker lets it through."""
        return next(iter(self._fresh(now)), None)

    def next(self, last: Target, fault: Fault, now: float, *, move_on: bool) -> NextAttempt | None:
        """Where to go after `fault` on `last`: the same target again, another one, or None.

        The same target comes first unless `move_on` says that another is more likely to succeed
        (the answer broke after it had begun, or was empty). Open breakers are skipped; when nothing
        else is left they are tried anyway.
        """
        again = self._again(last, fault, now)
        if again and not (move_on or _is_hopeless_now(fault)):
            return again
        other = self._other(last, now)
        if other:
            return NextAttempt(other, now)
        return again or self._shortest_wait(now) or self._forced(last, now)

    def retry_after(self, now: float) -> float | None:
        """Seconds until the first rate limit ends whose end a vendor gave; None where there is
        none."""
        known = [rung for rung in self._rungs if rung.free_at_known]
        waits = [rung.free_at - now for rung in known if rung.free_at > now]
        return min(waits, default=None)

    def _report(self, ticket: Ticket, fault: Fault, now: float) -> None:
        if fault.code in OF_THE_REQUEST:
            self._breakers.released(ticket)
        else:
            self._breakers.failed(ticket, fault.code, now, fault.retry_after)

    def _rung(self, target: Target) -> _Rung:
        """What was seen of a target. Made at the first call: most answers use only one of their
        targets."""
        for rung in self._rungs:
            if rung.target == target:
                return rung
        self._rungs.append(_Rung(target))
        return self._rungs[-1]

    def _all(self) -> Sequence[_Rung]:
        return [self._rung(target) for target in self._plan.allowed]

    def _fresh(self, now: float) -> Sequence[Target]:
        return [
            rung.target
            for rung in self._all()
            if not rung.made and not rung.spent and self._breakers.admits(rung.target, now)
        ]

    def _again(self, last: Target, fault: Fault, now: float) -> NextAttempt | None:
        rung = self._rung(last)
        if not rung.open() or not self._breakers.closed(last):
            return None
        if fault.retry_after is not None:
            return self._wait(rung, now)
        if fault.code is Code.PROVIDER_RATE_LIMITED:
            return NextAttempt(last, rung.free_at)
        return NextAttempt(last, now + BACKOFF * (1 + self._jitter()))

    def _wait(self, rung: _Rung, now: float) -> NextAttempt | None:
        wait = max(0.0, rung.free_at - now)
        if wait > self._plan.retry_after_max:
            return None
        return NextAttempt(rung.target, now + wait * (1 + WAIT_JITTER * self._jitter()))

    def _other(self, last: Target, now: float) -> Target | None:
        """The other target that was asked least, in the route's order."""
        others = [
            rung
            for rung in self._all()
            if rung.target != last
            and rung.open()
            and rung.free_at <= now
            and self._breakers.admits(rung.target, now)
        ]
        return min(others, key=lambda rung: rung.made).target if others else None

    def _shortest_wait(self, now: float) -> NextAttempt | None:
        limited = [rung for rung in self._all() if rung.open() and rung.free_at > now]
        waits = [wait for rung in limited if (wait := self._wait(rung, now))]
        return min(waits, key=lambda wait: wait.at, default=None)

    def _forced(self, last: Target, now: float) -> NextAttempt | None:
        left = [r.target for r in self._all() if r.open() and r.free_at <= now]
        if not left:
            return None
        target = self._breakers.longest_rested(left)
        return NextAttempt(target, now + BACKOFF if target == last else now)


def _is_hopeless_now(fault: Fault) -> bool:
    """Whether it is pointless to ask the same target soon: it limits the rate, and doesn't say for
    how long."""
    return fault.code is Code.PROVIDER_RATE_LIMITED and fault.retry_after is None
