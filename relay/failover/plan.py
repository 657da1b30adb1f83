"""What the failover policy is given, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from relay.core.events import Record, Target
from relay.core.provider import Form

Rescue = Literal["continue", "restart", "off"]


class Plan(Struct, frozen=True):
    """The rules for one answer, combined from route, settings and request. Times are in seconds."""

    stream: str
    targets: tuple[Target, ...]
    forms: Mapping[Target, tuple[Form, ...]]
    first_token_timeout: float
    token_idle_timeout: float
    hedge_after: float
    retry_after_max: float
    max_attempts: int
    rescue: Rescue
    fallback: bool
    can_unsay: bool
    input_characters: int

    @property
    def allowed(self) -> tuple[Target, ...]:
        """The targets that this answer may use."""
        return self.targets if self.fallback else self.targets[:1]


class Launch(Struct, frozen=True):
    """Start attempt number `attempt` on `target`. `partial` is the text to go on from,
    in the given form; empty for an answer from the start."""

    attempt: int
    target: Target
    form: Form
    partial: str
    hedge: bool


class Abort(Struct, frozen=True):
    """Close this attempt's upstream at once. Its later events are ignored."""

    attempt: int


class Step(Struct, frozen=True, gc=False):
    """What to do now: append `records`, then carry out `actions`, in order. `ended` when
    the terminal record is among the records."""

    records: Sequence[Record] = ()
    actions: Sequence[Launch | Abort] = ()
    ended: bool = False
