"""What the owner of an answer notes beside its records, for a node that may take it over."""

from __future__ import annotations

from msgspec import Struct

from relay.core.errors import Code
from relay.core.events import EndedAttempt, Target, Usage


class AttemptNote(Struct, frozen=True, omit_defaults=True):
    """What is noted of an attempt under way. `began_ms` counts from the chat's acceptance.

    `before` is how many characters the log held when it was launched, so that those which
    follow are its own. `offered` counts the characters that it was given to go on from,
    `written` what it said until it was noted, shown or not; `usage` is what its provider
    counted until then.
    """

    provider: str
    model: str
    began_ms: int
    before: int
    offered: int = 0
    hedge: bool = False
    written: int = 0
    usage: Usage | None = None

    @property
    def target(self) -> Target:
        """Whom it asks."""
        return Target(self.provider, self.model)


class Account(Struct, frozen=True, omit_defaults=True):
    """The state of an answer that its records do not tell. Times are milliseconds since
    the chat's acceptance.

    `attempts` are those that ended, `calls` those under way: None where the owner noted
    none, as one of an earlier version does. `noted_ms` is when this was noted,
    `first_text_ms` when the first text was appended, None before that. `served` is the
    model that the provider of the text named, `reason` the fault that took the announced
    target away where its successor is not announced yet. `epoch` is the writer's; stores
    set it.
    """

    attempts: tuple[EndedAttempt, ...] = ()
    calls: tuple[AttemptNote, ...] | None = None
    noted_ms: int = 0
    first_text_ms: int | None = None
    served: str | None = None
    reason: Code | None = None
    epoch: int = 0
