"""Which target is tried when, and what of its answer is shown: the policy, pure.

`Failover` is one answer's state. It is told what happened (`begin`, `batch`, `returned`,
`failed`, `tick`, `cancel`) with the time, and answers with a `Step`: records to append
and actions to carry out. It never awaits, reads no clock and logs nothing. The rules are
told in `docs/failover.md`; their shape is the table in `relay/failover/flow.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.account import Account
from relay.errors import Code, Fault
from relay.events import (
    EndedAttempt,
    Event,
    Finish,
    FinishReason,
    Reasoning,
    Record,
    Served,
    Text,
    ToolCall,
    Usage,
)
from relay.failover.attempt import Running
from relay.failover.course import NOTHING, Course
from relay.failover.estate import Estate
from relay.failover.flow import Move, Phase
from relay.failover.hedging import HedgeBudget
from relay.failover.plan import Abort, Action, Launch, Plan, Rescue, Step

__all__ = ["Abort", "Action", "Failover", "HedgeBudget", "Launch", "Plan", "Rescue", "Step"]

_EMPTY_ENDS = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER})
"""Finish reasons that end an answer even where nothing was said."""


class Failover(Course):
    """One answer, from the first attempt to the terminal record.

    After every call the driver looks at `deadline` and calls `tick` no later than then.
    Calls that name an attempt which was aborted or has ended are answered with an empty
    step. `jitter` yields numbers from 0 to 1. `log` reads the stream's records: all that
    this policy handed over, whether readers have them yet or not.
    """

    __slots__ = ()

    # What the driver looks at

    @property
    def phase(self) -> Phase:
        """Where the answer stands."""
        return self._phase

    @property
    def deadline(self) -> float | None:
        """When `tick` has to be called, by the caller's clock; None for never. Content
        moves it without a call: look again when it has passed, and re-arm."""
        if self._plain is not None:
            return self._attempts.dead_at(self._plain)
        return self._pause.at if self._pause else self._attempts.deadline()

    @property
    def attempts(self) -> Sequence[EndedAttempt]:
        """The attempts that ended so far."""
        return self._attempts.ended

    @property
    def changes(self) -> int:
        """Rises whenever `account` tells something new that can't wait."""
        return self._attempts.made + len(self._attempts.ended) + self._answer.changes

    def account(self, now: float) -> Account:
        """What the records do not tell, for a node that may have to take over."""
        return self._answer.account(self._attempts, now)

    # What happens

    def begin(self, now: float) -> Step:
        """Append `Start` and launch the first attempt."""
        self._hedges.answer_begun()
        self._answer.begin(now)
        self._open(now)
        return self._step()

    def take_over(self, left: Estate, now: float) -> Step:
        """Go on with an answer that another owner left, with the target that was asked last:
        the owner's end was not its doing."""
        goes_on = self._inherit(left)
        if left.shown.calls:
            self._finish(FinishReason.TOOL_CALLS, now)
        elif not self._may_go_on():
            self._give_up(now)
        else:
            self._open(now, goes_on)
        return self._step()

    def inherit(self, left: Estate) -> None:
        """Enter what another owner left, to be ended by `cancel`."""
        self._inherit(left)

    def withdraw(self, now: float, outcome: Code) -> None:
        """End without a record, because another owner goes on, or the driver says the end:
        attempts under way end with `outcome`, and a breaker's probe is free again."""
        if self._phase is not Phase.ENDED:
            self._stop_all(now, outcome)
            self._move(Move.CANCEL)
            self._step()

    def batch(self, attempt: int, events: Sequence[Event], now: float) -> Step:
        """What one read of the attempt's upstream brought."""
        running = self._attempts.find(attempt)
        if running is None:
            return NOTHING
        running.heard = now
        for event in events:
            self._hear(running, event, now)
            if not self._is_under_way(running):
                break
        return self._step()

    def passing(self, attempt: int, events: Sequence[Event], now: float) -> Sequence[Record]:
        """The records, where a read brought text of the leading attempt that goes to the
        readers as it is, with counts perhaps; else nothing, and `batch` is to be asked.

        The hot path: in effect the same as `batch`, in one call for a whole read.
        """
        plain = self._plain
        if plain is None or plain.number != attempt:
            return ()
        size, usage = 0, None
        for event in events:
            if event.__class__ is Text:
                size += len(event.text)
            elif event.__class__ is Usage:
                usage = event
            else:
                return ()
        plain.heard = now
        plain.written += size
        self._answer.appended += size
        if usage is not None:
            plain.usage = usage
            return [event for event in events if isinstance(event, Text)]
        return events  # type: ignore[return-value]  # all of them are texts

    def returned(self, attempt: int, now: float) -> Step:
        """The attempt's `run` returned: the vendor's end was seen."""
        running = self._attempts.find(attempt)
        if running is None:
            return NOTHING
        self._conclude(running, now)
        return self._step()

    def failed(self, attempt: int, fault: Fault, now: float) -> Step:
        """The attempt's `run` raised."""
        running = self._attempts.find(attempt)
        if running is None:
            return NOTHING
        if running.ended_in_meaning:
            self._conclude(running, now)
        else:
            self._fall(running, fault, now)
        return self._step()

    def tick(self, now: float) -> Step:
        """Time passed: waits, hedges and timeouts that are due."""
        pause = self._pause
        if pause is not None and now >= pause.at:
            self._pause = None
            self._launch(pause.target, now)
        for running in list(self._attempts.running):
            if self._is_under_way(running) and now >= self._attempts.dead_at(running):
                self._overdue(running, now)
        hedge_due = self._attempts.hedge_due()
        if hedge_due is not None and now >= hedge_due:
            self._hedge(now)
        return self._step()

    def cancel(self, now: float, *, abandoned: bool = False) -> Step:
        """End the answer: `done` `cancelled`, or `error` `abandoned` where nobody came
        back for it."""
        if self._phase is Phase.ENDED:
            return NOTHING
        self._stop_all(now)
        if abandoned:
            message = "nobody came back for this answer in time; send the chat again"
            self._answer.fail(Code.ABANDONED, message, self._attempts, retryable=True)
        else:
            self._answer.finish(FinishReason.CANCELLED, self._attempts, now)
        self._move(Move.CANCEL)
        return self._step()

    # Listening

    def _hear(self, running: Running, event: Event, now: float) -> None:
        match event:
            case Text() | Reasoning() | ToolCall():
                if running.finish is None:
                    self._lead(running, now)
                    self._take(running, event, now)
            case Served(model):
                running.served = model
            case Usage():
                running.usage = event
            case Finish(reason):
                self._see_finish(running, reason, now)

    def _take(self, running: Running, event: Text | Reasoning | ToolCall, now: float) -> None:
        if isinstance(event, ToolCall):
            running.called = True
            self._close_seam(running, now)
            if self._is_under_way(running):
                self._show(running, event, now)
            return
        running.written += len(event.text)
        if isinstance(event, Text) and running.seam is not None:
            self._join(running, running.seam.feed(event.text), now)
        elif isinstance(event, Text) or not running.muted:
            self._show(running, event, now)

    def _lead(self, running: Running, now: float) -> None:
        """The attempt gave content: it wins, and whatever ran beside it is aborted."""
        if running.yielded:
            return
        running.yielded = True
        self._breakers.answering(running.ticket)
        self._ladder.yielded(running.target)
        self._drop_losers(running, now)
        self._move(Move.SHOW if running.seam is None else Move.CHOOSE)

    def _drop_losers(self, winner: Running, now: float) -> None:
        losers = [each for each in self._attempts.running if each is not winner]
        if losers and winner.hedge:
            self._hedges.hedge_won()
            self._answer.blame(Code.PROVIDER_TIMEOUT)
        for loser in losers:
            if loser.heard is None:
                self._breakers.failed(loser.ticket, Code.PROVIDER_TIMEOUT, now)
                self._ladder.spend(loser.target)
            self._attempts.abort(loser, now)

    def _see_finish(self, running: Running, reason: FinishReason, now: float) -> None:
        if running.finish is not None:
            return
        running.finish = reason
        running.finished_at = now
        self._plain = None
        if len(self._attempts.running) > 1 and reason in _EMPTY_ENDS:
            self._drop_losers(running, now)
            self._move(Move.DROP)
        self._close_seam(running, now)
        if self._is_under_way(running) and len(self._attempts.running) == 1:
            self._move(Move.SETTLE)

    def _overdue(self, running: Running, now: float) -> None:
        if running.ended_in_meaning:
            self._conclude(running, now, abort=True)
            return
        what = "stopped sending" if running.yielded else "did not begin to answer"
        fault = Fault(Code.PROVIDER_TIMEOUT, f"the provider {what} in time")
        self._fall(running, fault, now, abort=True)
