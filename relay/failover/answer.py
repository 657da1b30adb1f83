"""What the readers of one answer have been shown, and the records that show it; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.errors import Code
from relay.events import (
    Done,
    Failed,
    Fallback,
    FinishReason,
    Reasoning,
    Record,
    Start,
    Target,
    Text,
    Timing,
    ToolCall,
)
from relay.failover.attempt import Attempts, Running, milliseconds
from relay.failover.plan import Plan
from relay.records import Chunk, Shown, shown


class Answer:
    """How much text stands, whose words it is, and the records not handed over yet.

    The text itself is in the log and nowhere else: `log` reads it where another attempt
    has to go on from it. That is no breach of purity: the log holds nothing but the
    records that this policy made, or was told of at a take-over.

    `standing` counts the characters that stand. `reason` is the fault that took the
    announced target away: the first since the last announcement, so that what fails on
    the way to the next target doesn't hide it.
    """

    __slots__ = (
        "_author",
        "_began",
        "_first_text",
        "_log",
        "_plan",
        "announced",
        "reason",
        "reasoned",
        "records",
        "standing",
    )

    def __init__(self, plan: Plan, log: Callable[[], Sequence[Chunk]]) -> None:
        self._plan = plan
        self._log = log
        self._author: Running | None = None
        self._began = 0.0
        self._first_text: float | None = None
        self.standing = 0
        self.reasoned = False
        self.announced = plan.targets[0]
        self.reason: Code | None = None
        self.records: list[Record] = []

    @property
    def has_text(self) -> bool:
        """Whether any text stands."""
        return self.standing > 0

    def text(self) -> str:
        """The text that stands: what the log holds of it, and what of it waits in
        `records`. Reads the whole log: to be asked once an attempt, not once a token."""
        if not self.standing:
            return ""
        pieces = [shown(self._log()).text]
        for record in self.records:
            if isinstance(record, Text):
                pieces.append(record.text)
            elif isinstance(record, Fallback) and not record.keep:
                pieces.clear()
        return "".join(pieces)

    def begin(self, now: float) -> None:
        """The answer is asked for."""
        self._began = now
        self.records.append(Start(self._plan.stream, self.announced.provider, self.announced.model))

    def take_over(self, left: Shown, announced: Target | None, now: float) -> None:
        """Go on from what another writer has left standing in the log."""
        self._began = now
        self.standing = len(left.text)
        self.reasoned = bool(left.reasoning)
        self.announced = announced or self.announced
        self.reason = Code.PROVIDER_INTERRUPTED

    def blame(self, code: Code) -> None:
        """Note a fault that stands between the readers and the announced target."""
        self.reason = self.reason or code

    def show(self, running: Running, event: Text | Reasoning | ToolCall, now: float) -> None:
        """Append content, and before it whose it is. Empty text only announces."""
        if not running.told:
            self.tell(running)
        if isinstance(event, Text):
            if not event.text:
                return
            self.standing += len(event.text)
            self._first_text = now if self._first_text is None else self._first_text
        elif isinstance(event, Reasoning):
            self.reasoned = True
        self.records.append(event)

    def tell(self, running: Running) -> None:
        """Announce whose words follow, where the readers don't know it, and whether they
        take the place of what stands."""
        running.told = True
        self._author = running
        if running.target != self.announced or running.discards:
            reason = self.reason or Code.PROVIDER_INTERRUPTED
            keep = not running.discards
            self.records.append(Fallback(self.announced, running.target, reason, keep))
            self.announced = running.target
        if running.discards:
            self.standing = 0
            self.reasoned = False
        self.reason = None

    def finish(self, reason: FinishReason, attempts: Attempts, now: float) -> None:
        """Append `done`, in the name of whoever's words stand last."""
        author = self._author
        target = author.target if author else self.announced
        model = (author.served if author else None) or target.model
        first = None if self._first_text is None else milliseconds(self._first_text - self._began)
        timing = Timing(first, milliseconds(now - self._began))
        usage, ended = attempts.usage(), list(attempts.ended)
        self.records.append(Done(target.provider, model, reason, usage, ended, timing))

    def fail(
        self,
        code: Code,
        message: str,
        attempts: Attempts,
        *,
        retryable: bool,
        retry_after: float | None = None,
    ) -> None:
        """Append `error`."""
        ended = list(attempts.ended)
        self.records.append(Failed(code, message, retryable, retry_after, ended))
