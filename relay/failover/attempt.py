"""The attempts of one answer: those under way, and the account of those that ended; pure."""

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
"""Seconds after the finish reason in which counts may still follow. Then the answer is
finished, whether the upstream has closed or not."""

OK = "ok"
"""The outcome of an attempt that ended well."""


@dataclass(eq=False, slots=True)
class Attempt:
    """An attempt under way. Times are the caller's clock's.

    `heard` is its last sign of life; `yielded` whether it gave content, `called` whether that
    was a tool call; `written` counts the characters that it said, shown or not.

    `seam` is there while its text is not known to fit what stands. `discards` where its
    first content takes the place of what stands. `muted` where its reasoning is not shown,
    because it would stand behind text. `told` once what it says is announced and shown.
    `offered` counts the characters that it was given to go on from, 0 from the start,
    `before` those that the log held when it was launched.
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
    told: bool = False
    called: bool = False
    finish: FinishReason | None = None
    finished_at: float = 0.0
    served: str | None = None
    usage: Usage | None = None
    written: int = 0

    @property
    def continues(self) -> bool:
        """Whether it was asked to go on from the text that stands."""
        return self.offered > 0

    @property
    def ended_in_meaning(self) -> bool:
        """Whether its answer is whole, whatever becomes of the connection."""
        return self.called or self.finish is not None

    def dead_at(self, first_token_timeout: float, idle_timeout: float) -> float:
        """When it is given up, unless something comes before. Until the first content only
        the first-token timeout counts, after it only the silence between signs of life."""
        if self.finish is not None:
            return self.finished_at + LINGER
        if self.yielded and self.heard is not None:
            return self.heard + idle_timeout
        return self.started + first_token_timeout

    def counted(self, input_characters: int, *, whole: bool, billed: bool) -> Usage | None:
        """What it used, as `counted` tells it. None where the upstream refused before it
        began, so that nothing is `billed`."""
        if self.usage is None and not billed and self.heard is None:
            return None
        return counted(self.usage, input_characters + self.offered, self.written, whole=whole)


def counted(told: Usage | None, asked: int, said: int, *, whole: bool) -> Usage:
    """What a call used that was `asked` and `said` so many characters. Where the provider's
    count is missing, stems from before a cut (`whole` False), or says that words cost
    nothing, it is estimated from characters."""
    output = estimate_tokens(said)
    if told is None:
        return Usage(estimate_tokens(asked), output, estimated=True)
    if told.output_tokens >= output or (whole and told.output_tokens):
        return told
    return structs.replace(told, output_tokens=output, estimated=True)


class Attempts:
    """An answer's attempts: the one or two under way, and the account of those that ended.

    `actions` are the launches and aborts that were not handed over yet. `made` counts what
    `max_attempts` bounds.
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

    def launch(
        self, ticket: Ticket, form: Form, seam: Seam | None, now: float, *, hedge: bool
    ) -> Attempt:
        """Start an attempt on the ticket's target. Text that stands is offered through `seam`."""
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
        """An attempt is over. `abort` where its upstream is to be closed: then it counts
        even if it gave no sign of life, because the vendor may have worked for it."""
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
        """Enter those of former owners, of which `failed` are the targets' doing. At least
        one further attempt is allowed, whatever became of the owners."""
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
        """When an attempt is overdue, unless something comes before."""
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
