"""What is decided about one answer: launch, show, go on, give up; pure.

`Course` is the inner half of the failover policy. `Failover` tells it what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.errors import OF_THE_REQUEST, Code, Fault
from relay.events import FinishReason, Reasoning, Target, Text, ToolCall
from relay.failover.answer import Answer
from relay.failover.attempt import OK, Attempts, Running
from relay.failover.breaker import Breakers
from relay.failover.estate import LEFT, Estate, interrupted
from relay.failover.flow import Move, Phase, after
from relay.failover.hedging import HedgeBudget
from relay.failover.ladder import Choice, Ladder
from relay.failover.plan import Plan, Step
from relay.failover.seam import Joined, Seam, Verdict
from relay.provider import Form
from relay.records import Chunk

NOTHING = Step()

"""Faults that say nothing about the target's health."""


class Course:
    """One answer's state, and every decision that changes it. `log` reads the records that
    were handed over so far; it is asked only where another attempt may go on from them."""

    __slots__ = (
        "_answer",
        "_attempts",
        "_breakers",
        "_hedges",
        "_ladder",
        "_nothing_more",
        "_passing",
        "_pause",
        "_phase",
        "_plain",
        "_plan",
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
        self._breakers = breakers
        self._hedges = hedges
        self._ladder = Ladder(plan, breakers, jitter)
        self._attempts = Attempts(plan, breakers)
        self._answer = Answer(plan, log)
        self._phase = Phase.NEW
        self._plain: Running | None = None
        self._pause: Choice | None = None
        self._passing = False
        self._nothing_more = False

    # Launching

    def _open(self, now: float, preferred: Target | None = None) -> None:
        """Launch the first attempt, on `preferred` if it may be asked. A target that was
        announced and is not asked, because its breaker is open, is told to be so."""
        target, told = self._ladder.first(now, preferred), self._answer.announced
        if target != told and not self._breakers.admits(told, now):
            self._answer.reason = self._breakers.state(told, now).code or Code.PROVIDER_ERROR
        self._launch(target, now)

    def _inherit(self, left: Estate) -> Target | None:
        """Enter what another owner left; answers the target that is to go on, if any."""
        attempts = [*left.attempts, *left.cut_short(self._plan.input_characters)]
        last = interrupted(attempts)
        reason = Code(last.outcome) if last else Code.INTERNAL
        self._answer.take_over(left, reason)
        self._attempts.take_over(attempts, sum(each.outcome not in LEFT for each in attempts))
        self._passing = True
        return Target(last.provider, last.model) if last else left.announced

    def _launch(self, target: Target, now: float, *, hedge: bool = False) -> None:
        text = self._answer.text()
        form = self._ladder.form(target) if text.strip() else Form.RESTART
        discards = self._discards(text)
        seam = Seam(text, form) if text and not discards else None
        before = self._answer.appended + self._answer.thought
        running = self._attempts.launch(target, form, now, hedge=hedge, seam=seam, before=before)
        running.discards = discards
        running.muted = not discards and (bool(text) or self._answer.reasoned)
        self._ladder.launched(target)
        self._move(Move.HEDGE if hedge else _launching(form, text))

    def _discards(self, text: str) -> bool:
        """Whether an answer from the start takes the place of what stands, without a look
        at how far they agree."""
        if not self._plan.can_unsay:
            return False
        return self._plan.rescue == "restart" if text else self._answer.reasoned

    def _hedge(self, now: float) -> None:
        """Start the next target beside the one that keeps silent, where that is allowed."""
        (running,) = self._attempts.running
        running.hedge_at = None
        target = self._ladder.beside(now)
        if target is not None and not self._attempts.used_up and self._hedges.take():
            self._launch(target, now, hedge=True)

    # Showing

    def _join(self, running: Running, joined: Joined, now: float) -> None:
        match joined.verdict:
            case Verdict.HELD:
                return
            case Verdict.UNSURE:
                self._ask_from_the_start(running, now)
                return
            case Verdict.FRESH if not self._plan.can_unsay:
                self._attempts.abort(running, now)
                self._fail(Code.PROVIDER_INTERRUPTED, "the answer broke off for good", now)
                return
            case Verdict.FRESH:
                running.discards = True
                running.muted = False
        running.seam = None
        self._move(Move.SHOW)
        self._show(running, Text(joined.text), now)

    def _close_seam(self, running: Running, now: float) -> None:
        """The attempt's end was seen: what its seam holds is decided."""
        if running.seam is not None and running.yielded:
            self._join(running, running.seam.end(), now)

    def _show(self, running: Running, event: Text | Reasoning | ToolCall, now: float) -> None:
        self._nothing_more = False
        self._answer.show(running, event, now)
        if isinstance(event, Text) and running.finish is None:
            self._plain = running

    # Ends of attempts

    def _conclude(self, running: Running, now: float, *, abort: bool = False) -> None:
        """The attempt's answer is whole."""
        self._close_seam(running, now)
        if not self._is_under_way(running):
            return
        if running.finish is None:
            running.finish = FinishReason.TOOL_CALLS if running.called else FinishReason.STOP
        if running.finish is FinishReason.CONTENT_FILTER:
            self._refused(running, now, abort=abort)
        elif running.told or running.finish is FinishReason.LENGTH:
            self._succeed(running, now, abort=abort)
        elif running.continues:
            self._had_nothing_to_add(running, now, abort=abort)
        else:
            fault = Fault(Code.PROVIDER_ERROR, "the provider's answer was empty")
            self._fall(running, fault, now, abort=abort)

    def _succeed(self, running: Running, now: float, *, abort: bool) -> None:
        assert running.finish is not None
        self._breakers.succeeded(running.ticket, now)
        if not running.told and not self._answer.has_text:
            self._answer.tell(running)
        self._end(running, OK, now, abort=abort)
        self._finish(running.finish, now)

    def _refused(self, running: Running, now: float, *, abort: bool) -> None:
        """The model would not answer: never a reason to ask another."""
        self._breakers.succeeded(running.ticket, now)
        if self._answer.has_text:
            self._end(running, OK, now, abort=abort)
            self._finish(FinishReason.CONTENT_FILTER, now)
        else:
            self._end(running, Code.CONTENT_POLICY, now, abort=abort)
            self._fail(Code.CONTENT_POLICY, "the model refused to answer", now)

    def _had_nothing_to_add(self, running: Running, now: float, *, abort: bool) -> None:
        """A continuation was empty. True if the answer was whole when it broke: believed
        once every target left says the same."""
        self._breakers.released(running.ticket)
        self._end(running, OK, now, abort=abort)
        self._nothing_more = True
        self._ladder.spend(running.target)
        if self._attempts.running:
            self._go_on_alone(now)
            return
        other = None if self._attempts.used_up else self._ladder.unasked(now)
        if other is None:
            self._finish(FinishReason.STOP, now)
        else:
            self._launch(other, now)

    def _fall(self, running: Running, fault: Fault, now: float, *, abort: bool = False) -> None:
        """The attempt failed: report it, and go down the ladder."""
        refused = running.continues and (fault.prefill_refused or fault.code is Code.BAD_REQUEST)
        self._report(running, fault, now, refused=refused)
        self._end(running, fault.code, now, abort=abort)
        beside = bool(self._attempts.running)
        if not refused and not (running.hedge and beside):
            self._answer.blame(fault.code)
            if fault.remedy == "none" and self._is_final(fault, now):
                return
        self._passing = self._passing or fault.remedy == "retry"
        if beside:
            self._go_on_alone(now)
        elif refused:
            self._offer_otherwise(running, now)
        else:
            self._descend(running, fault, now)

    def _report(self, running: Running, fault: Fault, now: float, *, refused: bool) -> None:
        ticket, target = running.ticket, running.target
        if fault.code in OF_THE_REQUEST or refused:
            self._breakers.released(ticket)
        else:
            self._breakers.failed(ticket, fault.code, now, fault.retry_after)
        if refused:
            self._ladder.refuse_form(target)
            return
        once = ticket.probe or ticket.forced or fault.code is Code.PROVIDER_TIMEOUT
        in_vain = running.yielded and (running.seam is not None or not self._answer.has_text)
        final = once and not running.yielded
        self._ladder.note(target, fault, now, final=final, in_vain=in_vain)

    def _is_final(self, fault: Fault, now: float) -> bool:
        """Whether a fault that no other target can mend ends the answer. Where text stands,
        a bad request can only mean the way it was offered: another target may take it."""
        if self._answer.has_text and fault.code is not Code.CONTENT_POLICY:
            return False
        self._stop_all(now)
        if self._answer.has_text:
            self._finish(FinishReason.CONTENT_FILTER, now)
        else:
            self._fail(fault.code, fault.message, now)
        return True

    def _offer_otherwise(self, running: Running, now: float) -> None:
        """The target takes no conversation of that form: offer the next one. The fault that
        broke the answer stays the reason."""
        if self._attempts.used_up:
            self._give_up(now)
        else:
            self._launch(running.target, now)

    def _go_on_alone(self, now: float) -> None:
        """One of two attempts is gone; a third target may stand in for it at once."""
        self._move(Move.DROP)
        (left,) = self._attempts.running
        if left.ended_in_meaning:
            self._move(Move.SETTLE)
        elif left.hedge_at is None:
            left.hedge_at = now

    def _descend(self, running: Running, fault: Fault, now: float) -> None:
        if self._attempts.used_up or not self._may_go_on():
            self._give_up(now, fault)
            return
        move_on = running.yielded or running.ended_in_meaning
        choice = self._ladder.next(running.target, fault, now, move_on=move_on)
        if choice is None:
            self._give_up(now, fault)
        elif choice.at <= now:
            self._launch(choice.target, now)
        else:
            self._pause = choice
            self._move(Move.WAIT)

    def _ask_from_the_start(self, running: Running, now: float) -> None:
        """The continuation can't be joined with certainty: an answer from the start can."""
        self._ladder.only_restart = True
        self._attempts.abort(running, now)
        if self._attempts.used_up:
            self._give_up(now)
        else:
            self._launch(running.target, now)

    def _end(self, running: Running, outcome: str, now: float, *, abort: bool) -> None:
        if self._plain is running:
            self._plain = None
        self._attempts.end(running, outcome, now, abort=abort)

    def _stop_all(self, now: float, outcome: Code = Code.CANCELLED) -> None:
        self._plain = self._pause = None
        self._attempts.abort_all(now, outcome)

    # Ends of the answer

    def _may_go_on(self) -> bool:
        """Whether another attempt is allowed, given what was shown already."""
        if self._answer.has_text:
            return self._plan.fallback and self._plan.rescue != "off"
        return self._plan.fallback or not self._answer.reasoned

    def _give_up(self, now: float, fault: Fault | None = None) -> None:
        """Nothing is left to try."""
        if self._nothing_more:
            self._finish(FinishReason.STOP, now)
        elif not self._may_go_on():
            message = "the answer broke off and may not be continued"
            self._fail(Code.PROVIDER_INTERRUPTED, message, now)
        elif fault is not None and self._attempts.made == 1 and fault.remedy != "retry":
            self._fail(fault.code, fault.message, now)
        else:
            self._fail(Code.PROVIDERS_EXHAUSTED, "no provider could give the answer", now)

    def _finish(self, reason: FinishReason, now: float) -> None:
        self._answer.finish(reason, self._attempts, now)
        self._move(Move.FINISH)

    def _fail(self, code: Code, message: str, now: float) -> None:
        wait = self._ladder.retry_after(now)
        self._answer.fail(code, message, self._attempts, retryable=self._passing, retry_after=wait)
        self._move(Move.FAIL)

    # Bookkeeping

    def _is_under_way(self, running: Running) -> bool:
        return running in self._attempts.running

    def _move(self, move: Move) -> None:
        self._phase = after(self._phase, move)

    def _step(self) -> Step:
        records, actions = self._answer.records, self._attempts.actions
        if not (records or actions):
            return NOTHING
        self._answer.records, self._attempts.actions = [], []
        return Step(records, actions, self._phase is Phase.ENDED)


def _launching(form: Form, text: str) -> Move:
    if not text:
        return Move.TRY
    return Move.RESTART if form is Form.RESTART else Move.CONTINUE
