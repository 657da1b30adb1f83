"""Which target is tried when, and what of its answer is shown: the policy, pure.

`Failover` is one answer's state. It is told what happened (`begin`, `batch`, `returned`,
`failed`, `tick`, `cancel`) with the time, and answers with a `Step`: records to append
and actions to carry out. It never awaits, reads no clock and logs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relay.errors import Fault
from relay.events import Attempt, Event, Record, Target
from relay.provider import Form
from relay.records import Shown

Rescue = Literal["continue", "restart", "off"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules for one answer: route, settings and request, already put together.
    Times are in seconds."""

    stream: str
    targets: tuple[Target, ...]
    forms: Mapping[Target, tuple[Form, ...]]
    first_token_timeout: float = 120.0
    token_idle_timeout: float = 15.0
    hedge_after: float = 8.0
    retry_after_max: float = 3.0
    max_attempts: int = 6
    rescue: Rescue = "continue"
    fallback: bool = True
    can_unsay: bool = True
    input_characters: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """Start attempt number `attempt` on `target`. `partial` is the text to go on from,
    in the given form; empty for an answer from the start."""

    attempt: int
    target: Target
    form: Form
    partial: str
    hedge: bool


@dataclass(frozen=True, slots=True)
class Abort:
    """Cancel this attempt's task at once. Nothing it still says is listened to."""

    attempt: int


Action: TypeAlias = Launch | Abort


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: append `records`, then carry out `actions`, in order. `ended` when
    the terminal record is among the records."""

    records: Sequence[Record] = ()
    actions: Sequence[Action] = ()
    ended: bool = False


class Failover:
    """One answer, from the first attempt to the terminal record.

    After every call the driver looks at `deadline` and calls `tick` no later than then.
    Calls that name an attempt which was aborted or has ended are answered with an empty
    step.
    """

    def __init__(
        self,
        plan: Plan,
        breakers: object,
        hedges: object,
        jitter: Callable[[], float],
    ) -> None:
        raise NotImplementedError

    @property
    def deadline(self) -> float | None:
        """When `tick` has to be called, by the caller's clock; None for never. Content
        moves it without a call: look again when it has passed, and re-arm."""
        raise NotImplementedError

    @property
    def attempts(self) -> Sequence[Attempt]:
        """The attempts that ended so far."""
        raise NotImplementedError

    def begin(self, now: float) -> Step:
        """Append `Start` and launch the first attempt."""
        raise NotImplementedError

    def take_over(self, shown: Shown, attempts: Sequence[Attempt], now: float) -> Step:
        """Go on with an answer whose owner died: `shown` is what its log left standing."""
        raise NotImplementedError

    def batch(self, attempt: int, events: Sequence[Event], now: float) -> Step:
        """What one read of the attempt's upstream brought. The hot path: for the leading
        attempt without a seam it returns the content events themselves as records."""
        raise NotImplementedError

    def returned(self, attempt: int, now: float) -> Step:
        """The attempt's `run` returned: the vendor's end was seen."""
        raise NotImplementedError

    def failed(self, attempt: int, fault: Fault, now: float) -> Step:
        """The attempt's `run` raised."""
        raise NotImplementedError

    def tick(self, now: float) -> Step:
        """Time passed: waits, hedges and timeouts that are due."""
        raise NotImplementedError

    def cancel(self, now: float, *, abandoned: bool = False) -> Step:
        """End the answer: `done` `cancelled`, or `error` `abandoned` where nobody came
        back for it."""
        raise NotImplementedError
