"""The attempts of one answer: those under way, and the reports of those that ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from relay.core.account import AttemptNote
from relay.core.events import EndedAttempt, FinishReason, Target, Usage, estimate_tokens
from relay.core.provider import Form
from relay.failover.breaker import Ticket
from relay.failover.plan import Abort, Launch, Plan
from relay.failover.seam import Seam

LINGER = 1.0
"""Seconds after the finish reason in which counts may still follow. Then the answer is finished,
even if the upstream has not closed."""

OK = "ok"
"""The outcome of an attempt that ended well."""


@dataclass(eq=False, slots=True)
class Attempt:
    """An attempt under way. Times are in seconds by the caller's clock.

    `heard` is the time of its last event. `yielded` is set once it gave content, `called` once it
    gave a tool call. `written` counts the characters of its text and reasoning, shown or not.

    `seam` is set while it is undecided how its text continues the text shown. `discards`: its first
    content replaces what is shown. `muted`: its reasoning is not shown, because it would come after
    text. `announced` is set once its target is announced and its content shown. `offered` counts
    the characters that it was asked to go on from (0: from the start), `before` those in the log
    when it was launched.
    """

    number: int
    target: Target
    form: Form
    offered: int
    hedge: bool
    ticket: Ticket
    started: float
    hedge_at: float | None
    before: int = 0
    seam: Seam | None = None
    discards: bool = False
    muted: bool = False
    heard: float | None = None
    yielded: bool = False
    announced: bool = False
    called: bool = False
    finish: FinishReason | None = None
    finished_at: float = 0.0
    served: str | None = None
    usage: Usage | None = None
    written: int = 0

    @property
    def continues(self) -> bool:
        """Whether it was asked to go on from the text shown."""
        return self.offered > 0

    @property
    def answer_complete(self) -> bool:
        """Whether its answer is complete, even if the connection breaks after it."""
        return self.called or self.finish is not None

    def dead_at(self, first_token_timeout: float, idle_timeout: float) -> float:
        """The time at which it is given up, unless an event comes before. Until its first content
        the first-token timeout counts, after that the idle timeout since its last event."""
        if self.finish is not None:
            return self.finished_at + LINGER
        if self.yielded and self.heard is not None:
            return self.heard + idle_timeout
        return self.started + first_token_timeout

    def counted(self, input_characters: int, *, whole: bool, billed: bool) -> Usage | None:
        """Its usage, as the function `counted` computes it; None where the upstream refused the
        call before it began, so that nothing is `billed`."""
        if self.usage is None and not billed and self.heard is None:
            return None
        return counted(self.usage, input_characters + self.offered, self.written, whole=whole)


def counted(reported: Usage | None, asked: int, said: int, *, whole: bool) -> Usage:
    """The usage of a call with `asked` characters of input and `said` characters of output.
    Estimated from the characters where the provider `reported` none, and its output where the
    report is from before the answer was cut (`whole` False) or is 0 although there was text."""
    output = estimate_tokens(said)
    if reported is None:
        return Usage(estimate_tokens(asked), output, estimated=True)
    if reported.output_tokens >= output or (whole and reported.output_tokens):
        return reported
    return structs.replace(reported, output_tokens=output, estimated=True)


class Attempts:
    """An answer's attempts: the one or two under way, and the reports of those that ended.

    `actions` are the launches and aborts that were not handed over yet. `made` counts the attempts
    that `max_attempts` limits.
    """

    __slots__ = ("_plan", "actions", "ended", "made", "under_way")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.under_way: list[Attempt] = []
        self.ended: list[EndedAttempt] = []
        self.made = 0
        self.actions: list[Launch | Abort] = []

    @property
    def used_up(self) -> bool:
        """Whether no further attempt is allowed."""
        return self.made >= self._plan.max_attempts

    def find(self, number: int) -> Attempt | None:
        """The attempt of that number, if it is under way."""
        for attempt in self.under_way:
            if attempt.number == number:
                return attempt
        return None

    def plan_launch(
        self, ticket: Ticket, form: Form, seam: Seam | None, now: float, *, hedge: bool
    ) -> Attempt:
        """Enter an attempt on the ticket's target, and plan the `Launch` that the driver
        carries out. The text shown so far is offered through `seam`."""
        self.made += 1
        target = ticket.target
        partial = seam.partial if seam and form is not Form.RESTART else ""
        attempt = Attempt(
            number=self.made,
            target=target,
            form=form,
            offered=len(partial),
            hedge=hedge,
            ticket=ticket,
            started=now,
            hedge_at=now + self._plan.hedge_after if self._plan.hedge_after > 0 else None,
            seam=seam,
        )
        self.under_way.append(attempt)
        self.actions.append(Launch(attempt.number, target, form, partial, hedge))
        return attempt

    def end(self, attempt: Attempt, outcome: str, now: float, *, abort: bool) -> None:
        """An attempt is over. `abort`: its upstream is to be closed. Its usage counts then even if
        it gave no event, because the vendor may bill it."""
        self.under_way.remove(attempt)
        if abort:
            self.actions.append(Abort(attempt.number))
        whole = attempt.finish is not None or outcome == OK
        usage = attempt.counted(self._plan.input_characters, whole=whole, billed=whole or abort)
        target, spent = attempt.target, milliseconds(now - attempt.started)
        self.ended.append(
            EndedAttempt(target.provider, target.model, outcome, spent, attempt.hedge, usage)
        )

    def inherit(self, attempts: Sequence[EndedAttempt], failed: int) -> None:
        """Add the attempts of former owners, of which `failed` failed because of their targets. At
        least one further attempt stays allowed."""
        self.made = min(failed, self._plan.max_attempts - 1)
        self.ended.extend(attempts)

    def notes(self, began: float) -> tuple[AttemptNote, ...]:
        """Those under way, for the account of an answer that was accepted at `began`."""
        return tuple(
            AttemptNote(
                attempt.target.provider,
                attempt.target.model,
                milliseconds(attempt.started - began),
                attempt.before,
                attempt.offered,
                attempt.hedge,
                attempt.written,
                attempt.usage,
            )
            for attempt in self.under_way
        )

    def usage(self) -> Usage:
        """The sum over all attempts that ended."""
        usages = [attempt.usage for attempt in self.ended if attempt.usage]
        return usages[0] if len(usages) == 1 else _sum(usages)

    def dead_at(self, attempt: Attempt) -> float:
        """The time at which an attempt is overdue, unless an event comes before."""
        return attempt.dead_at(self._plan.first_token_timeout, self._plan.token_idle_timeout)

    def deadline(self) -> float | None:
        """When the first of those under way is overdue; None where there is none."""
        if not self.under_way:
            return None
        first = self.dead_at(self.under_way[0])
        if len(self.under_way) == 1:
            return first
        return min(first, *map(self.dead_at, self.under_way[1:]))


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded."""
    return round(seconds * 1000)


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        sum(usage.input_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        any(usage.estimated for usage in usages),
        _sum_known([usage.cached_input_tokens for usage in usages]),
        _sum_known([usage.reasoning_tokens for usage in usages]),
    )


def _sum_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
