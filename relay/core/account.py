"""What the owner of an answer notes beside its records, for a node that may take it over."""

from __future__ import annotations

from msgspec import Struct

from relay.core.errors import Code
from relay.core.events import EndedAttempt, Target, Usage


class AttemptNote(Struct, frozen=True, omit_defaults=True):
    """What is noted about an attempt under way. `began_ms` counts from the chat's acceptance.

    `before` is the number of characters in the log when the attempt was launched: those after them
    are its own. `offered` counts the characters that it was asked to go on from, `written` those
    that it has produced so far, shown or not; `usage` is its provider's count so far.
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
        """The target that is asked."""
        return Target(self.provider, self.model)


class Account(Struct, frozen=True, omit_defaults=True):
    """The part of an answer's state that is not in its records. Times are milliseconds since the
    chat's acceptance.

    `attempts` are those that ended, `calls` those under way: None where the owner (an earlier
    version) notes none. `noted_ms` is when this was noted, `first_text_ms` when the first text was
    appended, None before that. `served` is the model name that the provider of the text reported,
    `reason` the fault for which the announced target was given up, while its successor is not
    announced yet. `epoch` is the writer's; stores set it.
    """

    attempts: tuple[EndedAttempt, ...] = ()
    calls: tuple[AttemptNote, ...] | None = None
    noted_ms: int = 0
    first_text_ms: int | None = None
    served: str | None = None
    reason: Code | None = None
    epoch: int = 0
