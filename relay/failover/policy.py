"""The failover policy: what to do when something happens to one answer. Pure.

`Failover` is a state machine. Each call gives it an event and the time; it decides by the phase of
the answer and returns a `Step`: records to append and actions to carry out. It never awaits, reads
no clock and logs nothing. Its state is kept by three objects: `Attempts` knows what is under way,
`Showing` what readers have been shown, and `Ladder` which target is next. `docs/failover.md`
explains the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.core.account import Account
from relay.core.errors import Code, Fault
from relay.core.events import (
    EndedAttempt,
    Event,
    Finish,
    FinishReason,
    Reasoning,
    Record,
    Served,
    Target,
    Text,
    ToolCall,
    Usage,
)
from relay.core.provider import Form
from relay.core.records import Chunk
from relay.failover.attempt import OK, Attempt, Attempts
from relay.failover.breaker import Breakers
from relay.failover.flow import Move, Phase, next_phase
from relay.failover.hedging import HedgeBudget
from relay.failover.inherited import NODE_ENDED, Inherited, interrupted
from relay.failover.ladder import Ladder, NextAttempt
from relay.failover.plan import Plan, Step
from relay.failover.seam import Fit, Joined, Seam
from relay.failover.showing import Showing

NOTHING = Step()

_EMPTY_ENDS = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER})
"""Finish reasons that end an answer even where nothing was said."""


class Failover:
    """One answer, from the first attempt to the terminal record.

    Its driver calls `begin` once, and before that `inherit` for an answer of a former owner. Then
    it calls `batch` (or `pass_through`) and `ended` as its upstreams report, and `tick` no later
    than `deadline`, which it reads after every call. `cancel` and `withdraw` end the answer in
    every phase. A call for an attempt that was aborted or has ended returns an empty step.

    `jitter` yields numbers from 0 to 1. `log` returns all records of the stream that were handed
    over; it is called only where another attempt may have to go on from them.
    """

    __slots__ = (
        "_attempts",
        "_complete",
        "_hedges",
        "_ladder",
        "_next",
        "_phase",
        "_plan",
        "_showing",
        "_streaming",
        "_temporary",
    )

    def __init__(
        self,
        plan: Plan,
        breakers: Breakers,
        hedges: HedgeBudget,
        jitter: Callable[[], float],
        log: Callable[[], Sequence[Chunk]],
    ) -> None:
        self._plan = plan
        self._hedges = hedges
        self._ladder = Ladder(plan, breakers, jitter)
        self._attempts = Attempts(plan)
        self._showing = Showing(plan, log)
        self._phase = Phase.NEW
        self._streaming: Attempt | None = None  # set in STREAMING only
        self._next: NextAttempt | None = None  # set in WAITING only
        self._temporary = False  # a temporary fault occurred: the client may try again
        self._complete = False  # a continuation added nothing to the text shown

    # What the driver reads

    @property
    def phase(self) -> Phase:
        """The phase of the answer."""
        return self._phase

    @property
    def deadline(self) -> float | None:
        """When `tick` has to be called, by the caller's clock; None for never. Content moves it
        later without notice: read it again when it has passed, and re-arm."""
        if self._next is not None:
            return self._next.at
        overdue, hedge = self._attempts.deadline(), self._hedge_at()
        return overdue if hedge is None or overdue is None else min(overdue, hedge)

    @property
    def ended_attempts(self) -> Sequence[EndedAttempt]:
        """The attempts that ended so far."""
        return self._attempts.ended

    @property
    def changes(self) -> int:
        """Rises whenever `account` changes in a way that must be stored soon."""
        return self._attempts.made + len(self._attempts.ended) + self._showing.changes

    def account(self, now: float) -> Account:
        """What the records do not say, for a node that may have to take over."""
        return self._showing.account(self._attempts, now)

    # Events

    def inherit(self, inherited: Inherited) -> None:
        """Take over the state of an answer from its former owner. The target that was asked last is
        asked first, because it did not cause the owner's end."""
        attempts = [*inherited.attempts, *inherited.cut_short(self._plan.input_characters)]
        last = interrupted(attempts)
        self._showing.inherit(inherited, Code(last.outcome) if last else Code.INTERNAL)
        self._attempts.inherit(attempts, sum(each.outcome not in NODE_ENDED for each in attempts))
        self._ladder.prefer(Target(last.provider, last.model) if last else inherited.announced)
        self._temporary = True
        self._move(Move.INHERIT)

    def begin(self, now: float) -> Step:
        """Append `start` and launch the first attempt, or go on with what was inherited."""
        if self._phase is Phase.NEW:
            self._hedges.answer_begun()
            self._showing.begin(now)
            self._launch_first(now)
        elif self._phase is Phase.INHERITED:
            self._go_on(now)
        return self._step()

    def batch(self, number: int, events: Sequence[Event], now: float) -> Step:
        """Handle the events of one read of an attempt's upstream."""
        attempt = self._attempts.find(number)
        if attempt is None:
            return NOTHING
        attempt.heard = now
        for event in events:
            self._hear(attempt, event, now)
            if not self._is_under_way(attempt):
                break
        return self._step()

    def pass_through(self, number: int, events: Sequence[Event], now: float) -> Sequence[Record]:
        """The records to append, where `events` are text (perhaps with counts) of the streaming
        attempt, which readers get unchanged; otherwise empty, and `batch` must be called.

        The hot path: has the same effect as `batch`, in one call for a whole read.
        """
        attempt = self._streaming
        if attempt is None or attempt.number != number:
            return ()
        size, usage = 0, None
        for event in events:
            if event.__class__ is Text:
                size += len(event.text)
            elif event.__class__ is Usage:
                usage = event
            else:
                return ()
        attempt.heard = now
        attempt.written += size
        self._showing.appended += size
        if usage is not None:
            attempt.usage = usage
            return [event for event in events if isinstance(event, Text)]
        return events  # type: ignore[return-value]  # all of them are texts

    def ended(self, number: int, fault: Fault | None, now: float) -> Step:
        """An attempt's upstream call ended: its end was seen, or it failed with `fault`."""
        attempt = self._attempts.find(number)
        if attempt is None:
            return NOTHING
        if fault is None or attempt.answer_complete:
            self._conclude(attempt, now)
        else:
            self._fail_attempt(attempt, fault, now)
        return self._step()

    def tick(self, now: float) -> Step:
        """Carry out the waits, hedges and timeouts whose time has come."""
        if self._next is not None and now >= self._next.at:
            self._launch(self._next.target, now)
        for attempt in list(self._attempts.under_way):
            if self._is_under_way(attempt) and now >= self._attempts.dead_at(attempt):
                self._time_out(attempt, now)
        hedge = self._hedge_at()
        if hedge is not None and now >= hedge:
            self._hedge(now)
        return self._step()

    def cancel(self, now: float, *, abandoned: bool = False) -> Step:
        """End the answer: `done` `cancelled`, or `error` `abandoned` where nobody came
        back for it."""
        if self._phase is Phase.ENDED:
            return NOTHING
        self._abort_all(now)
        if abandoned:
            message = "no reader came back for this answer in time; send the chat again"
            self._showing.fail(Code.ABANDONED, message, self._attempts, retryable=True)
        else:
            self._showing.finish(FinishReason.CANCELLED, self._attempts, now)
        self._move(Move.CANCEL)
        return self._step()

    def withdraw(self, now: float, outcome: Code) -> None:
        """End without a record, because another owner goes on or the driver writes the terminal
        record itself. Attempts under way end with `outcome`, and a breaker's probe is free
        again."""
        if self._phase is not Phase.ENDED:
            self._abort_all(now, outcome)
            self._move(Move.CANCEL)
            self._step()

    # Launching

    def _launch_first(self, now: float) -> None:
        """Launch the first attempt. Where the announced target is skipped, the reason is the
        failure for which its breaker opened."""
        target, announced = self._ladder.first(now), self._showing.announced
        if target != announced:
            why = self._ladder.passed_over(announced, now)
            self._showing.reason = why or self._showing.reason
        self._launch(target, now)

    def _go_on(self, now: float) -> None:
        """Go on with an inherited answer, where it is not complete and another attempt is
        allowed."""
        if self._showing.called:
            self._finish(FinishReason.TOOL_CALLS, now)
        elif not self._may_go_on():
            self._give_up(now)
        else:
            self._launch_first(now)

    def _launch(self, target: Target, now: float, *, hedge: bool = False) -> None:
        """Plan a `Launch`, which the driver carries out."""
        text = self._showing.text()
        form = self._ladder.form(target) if text.strip() else Form.RESTART
        discards = self._discards(text)
        seam = Seam(text, form) if text and not discards else None
        ticket = self._ladder.enter(target, now)
        attempt = self._attempts.plan_launch(ticket, form, seam, now, hedge=hedge)
        attempt.before = self._showing.appended + self._showing.thought
        attempt.discards = discards
        attempt.muted = not discards and (bool(text) or self._showing.reasoned)
        self._move(Move.HEDGE if hedge else Move.ASK)

    def _discards(self, text: str) -> bool:
        """Whether an answer from the start replaces what is shown, without checking how far they
        agree."""
        if not self._plan.can_unsay:
            return False
        return self._plan.rescue == "restart" if text else self._showing.reasoned

    def _launch_if_allowed(self, target: Target, now: float) -> None:
        """Launch one more attempt, or give up where no more are allowed."""
        if self._attempts.used_up:
            self._give_up(now)
        else:
            self._launch(target, now)

    def _hedge_at(self) -> float | None:
        """The time at which a second attempt may start beside the silent one; None for never."""
        if self._phase is not Phase.ASKING:
            return None
        return self._attempts.under_way[0].hedge_at

    def _hedge(self, now: float) -> None:
        """Start an attempt on the next target beside the silent one, where that is allowed."""
        self._attempts.under_way[0].hedge_at = None
        target = self._ladder.beside(now)
        if target is not None and not self._attempts.used_up and self._hedges.take():
            self._launch(target, now, hedge=True)

    # Listening

    def _hear(self, attempt: Attempt, event: Event, now: float) -> None:
        match event:
            case Text() | Reasoning() | ToolCall():
                if attempt.finish is None:
                    self._take(attempt, event, now)
            case Served(model):
                attempt.served = model
            case Usage():
                attempt.usage = event
            case Finish(reason):
                if attempt.finish is None:
                    self._take_finish(attempt, reason, now)

    def _take(self, attempt: Attempt, event: Text | Reasoning | ToolCall, now: float) -> None:
        if not attempt.yielded:
            self._lead(attempt, now)
        if isinstance(event, ToolCall):
            attempt.called = True
            self._close_seam(attempt, now)
            if self._is_under_way(attempt):
                self._show(attempt, event, now)
            return
        attempt.written += len(event.text)
        if isinstance(event, Text) and attempt.seam is not None:
            self._join(attempt, attempt.seam.feed(event.text), now)
        elif isinstance(event, Text) or not attempt.muted:
            self._show(attempt, event, now)

    def _lead(self, attempt: Attempt, now: float) -> None:
        """The attempt gave the first content: it wins, and an attempt beside it is aborted."""
        attempt.yielded = True
        self._ladder.answering(attempt.ticket)
        if self._phase is Phase.HEDGED:
            self._abort_loser(attempt, now)
        self._move(Move.LEAD)

    def _abort_loser(self, winner: Attempt, now: float) -> None:
        (loser,) = [each for each in self._attempts.under_way if each is not winner]
        if winner.hedge:
            self._showing.blame(Code.PROVIDER_TIMEOUT)
        if loser.heard is None:
            self._ladder.silent(loser.ticket, now)
        else:
            self._ladder.released(loser.ticket)
        self._attempts.end(loser, Code.CANCELLED, now, abort=True)

    def _take_finish(self, attempt: Attempt, reason: FinishReason, now: float) -> None:
        """The finish reason was seen. Where two attempts run, an end without content does not win:
        the other may still give some."""
        attempt.finish = reason
        attempt.finished_at = now
        if self._phase is Phase.HEDGED:
            if reason not in _EMPTY_ENDS:
                return
            self._abort_loser(attempt, now)
            self._move(Move.DROP)
        self._move(Move.SETTLE)
        self._close_seam(attempt, now)

    # Showing

    def _join(self, attempt: Attempt, joined: Joined, now: float) -> None:
        match joined.fit:
            case Fit.HELD:
                return
            case Fit.UNSURE:
                self._ask_from_the_start(attempt, now)
                return
            case Fit.FRESH if not self._plan.can_unsay:
                self._abort(attempt, now)
                self._fail(
                    Code.PROVIDER_INTERRUPTED, "the answer broke off and can't be continued", now
                )
                return
            case Fit.FRESH:
                attempt.discards = True
                attempt.muted = False
        attempt.seam = None
        self._show(attempt, Text(joined.text), now)

    def _close_seam(self, attempt: Attempt, now: float) -> None:
        """The attempt's end was seen: decide about the text that its seam holds."""
        if attempt.seam is not None and attempt.yielded:
            self._join(attempt, attempt.seam.end(), now)

    def _ask_from_the_start(self, attempt: Attempt, now: float) -> None:
        """The continuation can't be joined with certainty: ask the same target for an answer from
        the start."""
        self._ladder.only_restart = True
        self._abort(attempt, now)
        self._launch_if_allowed(attempt.target, now)

    def _show(self, attempt: Attempt, event: Text | Reasoning | ToolCall, now: float) -> None:
        self._complete = False
        self._showing.show(attempt, event, now)
        if self._streaming is None and isinstance(event, Text) and event.text:
            self._stream(attempt)

    def _stream(self, attempt: Attempt) -> None:
        """Text of the leading attempt is shown. More may follow, unless its finish was seen."""
        if self._phase is Phase.LEADING:
            self._move(Move.STREAM)
            self._streaming = attempt

    # Ends of attempts

    def _conclude(self, attempt: Attempt, now: float, *, abort: bool = False) -> None:
        """The attempt's answer is complete."""
        self._close_seam(attempt, now)
        if not self._is_under_way(attempt):
            return
        if attempt.finish is None:
            attempt.finish = FinishReason.TOOL_CALLS if attempt.called else FinishReason.STOP
        if attempt.finish is FinishReason.CONTENT_FILTER:
            self._end_refused(attempt, now, abort=abort)
        elif attempt.announced or attempt.finish is FinishReason.LENGTH:
            self._succeed(attempt, attempt.finish, now, abort=abort)
        elif attempt.continues:
            self._add_nothing(attempt, now, abort=abort)
        else:
            fault = Fault(Code.PROVIDER_ERROR, "the provider's answer was empty")
            self._fail_attempt(attempt, fault, now, abort=abort)

    def _succeed(self, attempt: Attempt, reason: FinishReason, now: float, *, abort: bool) -> None:
        self._ladder.succeeded(attempt.ticket, now)
        if not attempt.announced and not self._showing.has_text:
            self._showing.announce(attempt)
        self._attempts.end(attempt, OK, now, abort=abort)
        self._finish(reason, now)

    def _end_refused(self, attempt: Attempt, now: float, *, abort: bool) -> None:
        """The model refused to answer; no other is asked."""
        self._ladder.succeeded(attempt.ticket, now)
        outcome = OK if self._showing.has_text else Code.CONTENT_POLICY
        self._attempts.end(attempt, outcome, now, abort=abort)
        self._end_for(Code.CONTENT_POLICY, "the model refused to answer", now)

    def _add_nothing(self, attempt: Attempt, now: float, *, abort: bool) -> None:
        """A continuation was empty. The answer was complete when it broke, if every target that was
        not asked yet adds nothing either."""
        self._ladder.released(attempt.ticket)
        self._ladder.spend(attempt.target)
        self._attempts.end(attempt, OK, now, abort=abort)
        self._complete = True
        if self._phase is Phase.HEDGED:
            self._go_on_alone(now)
            return
        other = None if self._attempts.used_up else self._ladder.unasked(now)
        if other is None:
            self._finish(FinishReason.STOP, now)
        else:
            self._launch(other, now)

    def _time_out(self, attempt: Attempt, now: float) -> None:
        if attempt.answer_complete:
            self._conclude(attempt, now, abort=True)
            return
        what = "stopped sending" if attempt.yielded else "did not begin to answer in time"
        fault = Fault(Code.PROVIDER_TIMEOUT, f"the provider {what}")
        self._fail_attempt(attempt, fault, now, abort=True)

    def _fail_attempt(
        self, attempt: Attempt, fault: Fault, now: float, *, abort: bool = False
    ) -> None:
        """The attempt failed: report it, and go on with what is left."""
        refused = attempt.continues and (fault.prefill_refused or fault.code is Code.BAD_REQUEST)
        self._report(attempt, fault, now, refused=refused)
        self._attempts.end(attempt, fault.code, now, abort=abort)
        hedged = self._phase is Phase.HEDGED
        if not refused and not (hedged and attempt.hedge):
            self._showing.blame(fault.code)
            if self._is_final(fault):
                self._abort_all(now)
                self._end_for(fault.code, fault.message, now)
                return
        self._temporary = self._temporary or fault.remedy == "retry"
        if hedged:
            self._go_on_alone(now)
        elif refused:  # asked in another form; the reason stays the fault that broke the answer
            self._launch_if_allowed(attempt.target, now)
        else:
            self._descend(attempt, fault, now)

    def _report(self, attempt: Attempt, fault: Fault, now: float, *, refused: bool) -> None:
        if refused:
            self._ladder.refused(attempt.ticket)
            return
        added = self._showing.has_text and attempt.seam is None
        in_vain = attempt.yielded and not added
        self._ladder.failed(attempt.ticket, fault, now, yielded=attempt.yielded, in_vain=in_vain)

    def _is_final(self, fault: Fault) -> bool:
        """Whether no other target can help. Where text is shown, a bad request can only be due to
        the form of the continuation: another target may accept it."""
        if fault.remedy != "none":
            return False
        return fault.code is Code.CONTENT_POLICY or not self._showing.has_text

    def _go_on_alone(self, now: float) -> None:
        """One of two attempts ended; a third target may replace it at once."""
        self._move(Move.DROP)
        (other,) = self._attempts.under_way
        if other.answer_complete:
            self._move(Move.SETTLE)
        elif other.hedge_at is None:
            other.hedge_at = now

    def _descend(self, attempt: Attempt, fault: Fault, now: float) -> None:
        """Go on with the next target of the ladder, at once or after a wait, or give up."""
        found = None
        if not self._attempts.used_up and self._may_go_on():
            move_on = attempt.yielded or attempt.answer_complete
            found = self._ladder.next(attempt.target, fault, now, move_on=move_on)
        if found is None:
            self._give_up(now, fault)
        elif found.at <= now:
            self._launch(found.target, now)
        else:
            self._move(Move.WAIT)
            self._next = found

    def _abort(self, attempt: Attempt, now: float, outcome: Code = Code.CANCELLED) -> None:
        """Close an attempt's upstream for a reason that its target did not cause."""
        self._ladder.released(attempt.ticket)
        self._attempts.end(attempt, outcome, now, abort=True)

    def _abort_all(self, now: float, outcome: Code = Code.CANCELLED) -> None:
        for attempt in list(self._attempts.under_way):
            self._abort(attempt, now, outcome)

    # Ends of the answer

    def _may_go_on(self) -> bool:
        """Whether another attempt is allowed, given what was shown already."""
        if self._showing.has_text:
            return self._plan.fallback and self._plan.rescue != "off"
        return self._plan.fallback or not self._showing.reasoned

    def _give_up(self, now: float, fault: Fault | None = None) -> None:
        """Nothing is left to try."""
        if self._complete:
            self._finish(FinishReason.STOP, now)
        elif not self._may_go_on():
            message = "the answer broke off and may not be continued"
            self._fail(Code.PROVIDER_INTERRUPTED, message, now)
        elif fault is not None and self._attempts.made == 1 and fault.remedy != "retry":
            self._fail(fault.code, fault.message, now)
        else:
            self._fail(Code.PROVIDERS_EXHAUSTED, "no provider could give the answer", now)

    def _end_for(self, code: Code, message: str, now: float) -> None:
        """The request was refused, and no other target is asked: end with `content_filter` where
        text is shown, else with the error."""
        if self._showing.has_text:
            self._finish(FinishReason.CONTENT_FILTER, now)
        else:
            self._fail(code, message, now)

    def _finish(self, reason: FinishReason, now: float) -> None:
        self._showing.finish(reason, self._attempts, now)
        self._move(Move.FINISH)

    def _fail(self, code: Code, message: str, now: float) -> None:
        wait = self._ladder.retry_after(now)
        self._showing.fail(
            code, message, self._attempts, retryable=self._temporary, retry_after=wait
        )
        self._move(Move.FAIL)

    # Bookkeeping

    def _is_under_way(self, attempt: Attempt) -> bool:
        return attempt in self._attempts.under_way

    def _move(self, move: Move) -> None:
        """Change the phase, and clear the state that only the last one has."""
        self._phase = next_phase(self._phase, move)
        self._streaming = None
        self._next = None

    def _step(self) -> Step:
        records, actions = self._showing.pending, self._attempts.actions
        if not (records or actions):
            return NOTHING
        self._showing.pending, self._attempts.actions = [], []
        return Step(records, actions, self._phase is Phase.ENDED)
