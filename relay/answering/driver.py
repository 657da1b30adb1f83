"""Drives one answer: carries out the failover policy's steps.

There is no task a stream. Everything that can happen to an answer is a callback: a batch from an
attempt's upstream, an attempt's end, a timer, a cancel. Each asks the policy for a step and carries
it out before it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from math import inf
from typing import Protocol

from relay.answering.timerwheel import TimerWheel
from relay.core.account import Account
from relay.core.errors import Code, Fault, Fenced
from relay.core.events import Done, EndedAttempt, Event, Failed, Record, Target
from relay.core.provider import UpstreamCall
from relay.core.records import Shown, shown
from relay.core.request import ChatRequest
from relay.core.streamlog import Writer
from relay.failover.inherited import Inherited
from relay.failover.plan import Abort, Launch, Step
from relay.failover.policy import Failover

_TERMINAL = (Done, Failed)  # for isinstance: a union would be built again for each batch


class AnswerObserver(Protocol):
    """Is called when streams and attempts start and end, for logs, metrics and health. Never per
    token."""

    def started(self, stream: str, route: str, request: ChatRequest, *, taken_over: bool) -> None:
        """This process writes a stream: it accepted a chat, or took an answer over from another
        process. For a chat it is called after the first attempt was launched, so `ended` may come
        before it where an answer ends at once."""
        ...

    def answering(self, stream: str, target: Target, seconds: float) -> None:
        """The first event of an upstream call came, `seconds` after its start."""
        ...

    def attempt_ended(self, stream: str, attempt: EndedAttempt) -> None:
        """An upstream call ended."""
        ...

    def ended(
        self, stream: str, route: str, record: Done | Failed | None, final: Callable[[], Shown]
    ) -> None:
        """A stream ended with `record`, its terminal record; None where another process goes on
        writing it. `final` returns what readers still see at the end, which is empty where the
        stream was erased; call it only where there is a record, and at once."""
        ...

    def unexpected(self, stream: str, error: BaseException) -> None:
        """An exception that is not a `Fault`: a defect, to be logged with its traceback."""
        ...


class AttemptCall:
    """The upstream call of one attempt under way, and its `Caller`. `began` is in seconds by the
    driver's clock; `silent` is True until its first event."""

    __slots__ = ("_driver", "_upstream", "began", "number", "silent", "target")

    def __init__(self, driver: Driver, launch: Launch, began: float) -> None:
        self.number = launch.attempt
        self.target = launch.target
        self.began = began
        self.silent = True
        self._driver = driver
        self._upstream: UpstreamCall | None = None

    @property
    def context(self) -> Context:
        """The context for tasks of the call: the driver's."""
        return self._driver.context

    def carried_by(self, upstream: UpstreamCall) -> None:
        """Set the upstream call that `close` closes."""
        self._upstream = upstream

    def close(self) -> None:
        """Close the upstream, if it is open."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def take(self, events: Sequence[Event]) -> None:
        """Pass on the events of one read of the upstream."""
        self._driver.batch(self, events)

    def ended(self, error: BaseException | None) -> None:
        """The call is over. The upstream is dropped, because the exception's traceback holds this
        object: no reference cycle is left for the garbage collector."""
        self._upstream = None
        self._driver.context.run(self._driver.attempt_ended, self, error)


class Driver:
    """One running answer, from the first attempt to the terminal record.

    `open_call` makes one upstream call for `request`; `wheel` uses the same clock; `ended` is
    called once, when the terminal record is appended or another writer has taken the stream
    over. `grace` is how many seconds it may run without a reader; its owner checks that. Its
    attempts and deadlines run in `context`, a copy of the one that it was made in, so that their
    log lines carry the right names.
    """

    __slots__ = (
        "_clock",
        "_due",
        "_ended",
        "_failover",
        "_live_calls",
        "_noted",
        "_observer",
        "_open_call",
        "_reported",
        "_request",
        "_route",
        "_terminal",
        "_wheel",
        "context",
        "finished",
        "grace",
        "writer",
    )

    def __init__(
        self,
        failover: Failover,
        writer: Writer,
        *,
        route: str,
        grace: float,
        request: ChatRequest,
        open_call: Callable[[ChatRequest, Launch, AttemptCall], UpstreamCall],
        clock: Callable[[], float],
        wheel: TimerWheel,
        observer: AnswerObserver,
        ended: Callable[[Driver], None],
    ) -> None:
        self.writer = writer
        self.grace = grace
        self.finished = False
        self._route = route
        self._failover = failover
        self._request = request
        self._open_call = open_call
        self._clock = clock
        self._wheel = wheel
        self._observer = observer
        self._ended = ended
        self.context = copy_context()
        self._live_calls: list[AttemptCall] = []
        self._reported = 0
        self._noted = 0
        self._due = inf
        self._terminal: Done | Failed | None = None

    def inherit(self, inherited: Inherited) -> None:
        """Take over the state of an answer from its former owner; call `begin`, `cancel` or
        `abandon` next. The attempts that were cut short there are reported by this process, because
        the former owner no longer can."""
        self._reported = len(inherited.attempts)
        try:
            self._failover.inherit(inherited)
        except Exception as error:  # a defect must end one stream, not hang it
            self._defect(error)

    def begin(self) -> None:
        """Append the `start` record and make the first attempt, or go on with what was
        inherited."""
        self._carry_out(self._failover.begin)
        if not self.finished:
            self.writer.on_cancel(self.cancel)
            self.writer.on_lost(self._lose)

    def account(self) -> Account:
        """What the records do not say, for a node that may have to take over."""
        return self._failover.account(self._clock())

    def cancel(self) -> None:
        """Cancel the answer: append `done` with `cancelled` and close every upstream."""
        self._carry_out(self._failover.cancel)

    def abandon(self) -> None:
        """End the answer, because it had no reader for its grace."""
        self._carry_out(lambda now: self._failover.cancel(now, abandoned=True))

    def stop(self, code: Code, message: str) -> None:
        """End with an error that no provider caused; the client may try again."""
        self._withdraw(code)
        attempts = list(self._failover.ended_attempts)
        self._append([Failed(code, message, retryable=True, attempts=attempts)])
        self._finish()

    def leave(self) -> None:
        """Close every upstream and append nothing, because this process ends and another one
        continues the answer. The account is stored, so that the other one knows how these calls
        ended."""
        if not self.finished:
            self._withdraw(Code.DRAINING)
            self.writer.keep_account(self.account)
            self._finish()

    # Events

    def batch(self, attempt: AttemptCall, events: Sequence[Event]) -> None:
        """Handle the events of one read of an attempt's upstream. The hot path: plain text goes
        from the policy to the log. The deadline is not set again, because text only moves it
        later."""
        if self.finished:
            return
        now = self._clock()
        try:
            records = self._failover.pass_through(attempt.number, events, now)
            step = None if records else self._hear(attempt, events, now)
        except Exception as error:  # a defect must end one stream, not hang it
            self._defect(error)
            return
        if step is not None:
            self._do(step)
            return
        try:
            self.writer.append(records)
        except Fenced:
            self._lose()

    def _hear(self, attempt: AttemptCall, events: Sequence[Event], now: float) -> Step:
        if attempt.silent:
            attempt.silent = False
            seconds = now - attempt.began
            self._observer.answering(self.writer.stream, attempt.target, seconds)
        return self._failover.batch(attempt.number, events, now)

    def attempt_ended(self, attempt: AttemptCall, error: BaseException | None) -> None:
        """An attempt's upstream call is over, or closing one raised an exception."""
        if attempt in self._live_calls:
            self._live_calls.remove(attempt)
        if not isinstance(error, Fenced):
            fault = self._as_fault(error)
            self._carry_out(lambda now: self._failover.ended(attempt.number, fault, now))

    def _as_fault(self, error: BaseException | None) -> Fault | None:
        if error is None or isinstance(error, Fault):
            return error
        self._observer.unexpected(self.writer.stream, error)
        return Fault(Code.PROVIDER_ERROR, "the provider failed for an unknown reason")

    def tick(self) -> None:
        """The deadline that was given to the wheel has come; the policy knows what it is for."""
        self._disarm()
        self._carry_out(self._failover.tick)

    # Actions

    def _carry_out(self, ask: Callable[[float], Step]) -> None:
        if self.finished:
            return
        try:
            step = ask(self._clock())
        except Exception as error:  # a defect must end one stream, not hang it
            self._defect(error)
            return
        self._do(step)
        self._report()

    def _do(self, step: Step) -> None:
        if step.records and not self._append(step.records):
            return
        for action in step.actions:
            if isinstance(action, Launch):
                self._launch(action)
            else:
                self._abort(action)
        if step.ended:
            self._finish()
        else:
            self._arm()
            self._note()

    def _note(self) -> None:
        """Have the store keep the account for a node that takes over, where it has changed."""
        changes = self._failover.changes
        if changes != self._noted and not self.finished:
            self._noted = changes
            self.writer.keep_account(self.account)

    def _append(self, records: Sequence[Record]) -> bool:
        try:
            self.writer.append(records)
        except Fenced:
            self._lose()
            return False
        last = records[-1]
        if isinstance(last, _TERMINAL):
            self._terminal = last
        return True

    def _launch(self, launch: Launch) -> None:
        if self.finished:
            return
        attempt = AttemptCall(self, launch, self._clock())
        self._live_calls.append(attempt)
        try:
            attempt.carried_by(self._open_call(self._request, launch, attempt))
        except Exception as error:  # a defect must end one stream, not hang it
            self._defect(error)

    def _abort(self, abort: Abort) -> None:
        for attempt in list(self._live_calls):
            if attempt.number == abort.attempt:
                self._live_calls.remove(attempt)
                attempt.close()

    def _arm(self) -> None:
        """Have `tick` called at the deadline. A tick that comes too early arms again, so content
        that only moves the deadline later costs nothing."""
        deadline = self._failover.deadline
        if deadline is None or self._due <= deadline:
            return
        if self._due < inf:
            self._disarm()
        self._due = deadline
        self._wheel.join(self, deadline)

    def _disarm(self) -> None:
        if self._due < inf:
            self._wheel.leave(self, self._due)
            self._due = inf

    def _report(self) -> None:
        attempts = self._failover.ended_attempts
        if len(attempts) == self._reported:
            return
        for attempt in attempts[self._reported :]:
            self._observer.attempt_ended(self.writer.stream, attempt)
        self._reported = len(attempts)

    def _defect(self, error: Exception) -> None:
        self._observer.unexpected(self.writer.stream, error)
        self.stop(Code.INTERNAL, "internal error of the relay; send the chat again")

    def _lose(self) -> None:
        """Another writer has the stream: close every upstream and append nothing."""
        if not self.finished:
            self._withdraw(Code.CANCELLED)
            self._finish()

    def _withdraw(self, outcome: Code) -> None:
        """Tell the policy that the answer ends here, and with which outcome its attempts end."""
        try:
            self._failover.withdraw(self._clock(), outcome)
        except Exception as error:  # perhaps the same defect of the policy that ended the stream
            self._observer.unexpected(self.writer.stream, error)

    def _final(self) -> Shown:
        return shown(self.writer.chunks())

    def _close_upstreams(self) -> None:
        attempts, self._live_calls = self._live_calls, []
        for attempt in attempts:
            attempt.close()

    def _finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        self._close_upstreams()
        self._disarm()
        self._report()
        self._observer.ended(self.writer.stream, self._route, self._terminal, self._final)
        self._ended(self)
