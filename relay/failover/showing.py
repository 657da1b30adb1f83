"""What the readers of one answer have been shown, and the records that show it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.core.account import Account
from relay.core.errors import Code
from relay.core.events import (
    Done,
    Failed,
    Fallback,
    FinishReason,
    Reasoning,
    Record,
    Start,
    Text,
    Timing,
    ToolCall,
)
from relay.core.records import Chunk, shown
from relay.failover.attempt import Attempt, Attempts, milliseconds
from relay.failover.inherited import Inherited
from relay.failover.plan import Plan


class Showing:
    """How much text is shown, which attempt it is from, and the records not handed over yet.

    The text itself is in the log and nowhere else: `log` reads it where another attempt has to go
    on from it. The policy stays pure nevertheless: the log holds only records that this policy made
    or took over.

    `appended` counts the characters of all text so far, `discarded` those of them that a fallback
    discarded, `thought` those of reasoning. `called` where a tool call was shown. `began` is when
    the chat was accepted. `changes` rises whenever its part of `account` changes. `reason` is the
    fault for which the announced target was given up: the first since the last announcement, so
    that later faults don't hide it.
    """

    __slots__ = (
        "_author",
        "_first_text",
        "_log",
        "_plan",
        "_served",
        "announced",
        "appended",
        "began",
        "called",
        "changes",
        "discarded",
        "pending",
        "reason",
        "reasoned",
        "thought",
    )

    def __init__(self, plan: Plan, log: Callable[[], Sequence[Chunk]]) -> None:
        self._plan = plan
        self._log = log
        self._author: Attempt | None = None
        self._served: str | None = None
        self._first_text: float | None = None
        self.began = 0.0
        self.appended = 0
        self.discarded = 0
        self.thought = 0
        self.changes = 0
        self.reasoned = False
        self.called = False
        self.announced = plan.targets[0]
        self.reason: Code | None = None
        self.pending: list[Record] = []

    @property
    def standing(self) -> int:
        """Characters of text that are shown and not discarded."""
        return self.appended - self.discarded

    @property
    def has_text(self) -> bool:
        """Whether any text is shown."""
        return self.appended > self.discarded

    def text(self) -> str:
        """The text shown, from the log and from the waiting `records`. Reads the whole log: call it
        once per attempt, not per token."""
        if not self.standing:
            return ""
        pieces = [shown(self._log()).text]
        for record in self.pending:
            if isinstance(record, Text):
                pieces.append(record.text)
            elif isinstance(record, Fallback) and not record.keep:
                pieces.clear()
        return "".join(pieces)

    def begin(self, now: float) -> None:
        """Add `start` to the pending records: the chat is accepted."""
        self.began = now
        self.pending.append(Start(self._plan.stream, self.announced.provider, self.announced.model))

    def inherit(self, inherited: Inherited, reason: Code) -> None:
        """Take over the state of a former owner; `reason` is why that one stopped. Appends `start`
        where the former owner did not."""
        if inherited.announced is None:
            self.begin(inherited.accepted)
            return
        account, text = inherited.account, inherited.shown.text
        self.began = inherited.accepted
        self.thought = inherited.characters - len(text)  # with the text that was discarded
        self.appended = len(text)
        self.reasoned = bool(inherited.shown.reasoning)
        self.called = bool(inherited.shown.calls)
        self.announced = inherited.announced
        self.reason = account.reason or reason
        self._served = account.served
        if account.first_text_ms is not None:
            self._first_text = self.began + account.first_text_ms / 1000

    def account(self, attempts: Attempts, now: float) -> Account:
        """What the records do not say, for a node that may have to take over."""
        return Account(
            attempts=tuple(attempts.ended),
            calls=attempts.notes(self.began),
            noted_ms=self._since_began(now),
            first_text_ms=self._first_text_ms,
            served=self._author.served if self._author else self._served,
            reason=self.reason,
        )

    def blame(self, code: Code) -> None:
        """Note the fault for which the announced target is given up, unless one is noted
        already."""
        self.reason = self.reason or code

    def show(self, attempt: Attempt, event: Text | Reasoning | ToolCall, now: float) -> None:
        """Add content to the pending records, after a `fallback` where the target is new. Empty
        text only announces."""
        if not attempt.announced:
            self.announce(attempt)
        if isinstance(event, Text):
            if not event.text:
                return
            self.appended += len(event.text)
            if self._first_text is None:
                self._first_text = now
                self.changes += 1
        elif isinstance(event, Reasoning):
            self.thought += len(event.text)
            self.reasoned = True
        else:
            self.called = True
        self.pending.append(event)

    def announce(self, attempt: Attempt) -> None:
        """Note the attempt whose content follows. Add `fallback` where its target is not the
        announced one, or where its content replaces what is shown."""
        attempt.announced = True
        self.changes += 1
        self._author = attempt
        if attempt.target != self.announced or attempt.discards:
            reason = self.reason or Code.PROVIDER_INTERRUPTED
            keep = not attempt.discards
            self.pending.append(Fallback(self.announced, attempt.target, reason, keep))
            self.announced = attempt.target
        if attempt.discards:
            self.discarded = self.appended
            self.reasoned = False
        self.reason = None

    def finish(self, reason: FinishReason, attempts: Attempts, now: float) -> None:
        """Add `done` to the pending records, with the target whose content was shown last."""
        author = self._author
        target = author.target if author else self.announced
        model = (author.served if author else self._served) or target.model
        timing = Timing(self._first_text_ms, self._since_began(now))
        usage, ended = attempts.usage(), list(attempts.ended)
        self.pending.append(Done(target.provider, model, reason, usage, ended, timing))

    @property
    def _first_text_ms(self) -> int | None:
        return None if self._first_text is None else self._since_began(self._first_text)

    def _since_began(self, moment: float) -> int:
        return milliseconds(moment - self.began)

    def fail(
        self,
        code: Code,
        message: str,
        attempts: Attempts,
        *,
        retryable: bool,
        retry_after: float | None = None,
    ) -> None:
        """Add `error` to the pending records."""
        ended = list(attempts.ended)
        self.pending.append(Failed(code, message, retryable, retry_after, ended))
