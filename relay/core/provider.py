"""What a provider is to the rest of the house."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from enum import StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct

from relay.core.events import Event
from relay.core.request import ChatRequest

Take: TypeAlias = Callable[[Sequence[Event]], None]
"""Takes what one read of the upstream's socket brought. Synchronous; never call it with an empty
batch. It may raise: let that pass through."""


class Caller(Protocol):
    """Who made an upstream call, and hears of it."""

    @property
    def context(self) -> Context:
        """What a task that is made for the call runs in, so that log lines know whose they are."""
        ...

    def take(self, events: Sequence[Event]) -> None:
        """What one read of the upstream's socket brought; a `Take`."""
        ...

    def ended(self, error: BaseException | None) -> None:
        """The call is over. `error` is None only where the vendor's end was seen, a `Fault` for
        everything that the upstream did wrong, and anything else is a defect. Told once; after
        the call was closed, told only what was raised against that."""
        ...


class UpstreamCall(Protocol):
    """One upstream call under way."""

    def close(self) -> None:
        """Close the upstream, which must follow within 100 ms; its caller is given nothing
        more. Idempotent."""
        ...


class Form(StrEnum):
    """How a broken answer is offered to a model to go on with."""

    PREFILL = "prefill"
    """The conversation ends in the unfinished assistant turn; the model goes on from there."""
    TURN = "turn"
    """The unfinished assistant turn, then a user turn asking to go on."""
    RESTART = "restart"
    """The conversation as it was; the model answers anew."""


class Call(Struct, frozen=True):
    """One upstream call. `request.messages` already hold any continuation turns."""

    model: str
    request: ChatRequest
    max_tokens: int
    form: Form = Form.RESTART


class Provider(Protocol):
    """One vendor's wire, behind the house's own words."""

    name: str

    def forms(self, model: str) -> tuple[Form, ...]:
        """The ways `model` can take up an unfinished answer, best first; ends in RESTART."""
        ...

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        """Make one upstream call and tell `caller` of it until the answer ends.

        `caller` hears from the event loop, never from within `begin`, also of what goes wrong
        in beginning: this raises nothing.
        A call ends well only when the vendor's end was seen: a finish reason, or its end
        marker. A stream that stops without either ends in `Fault(PROVIDER_INTERRUPTED)`. Tool
        calls are handed over whole, after the end was seen, before the `Finish` event.
        Text after a `Finish` takes it back (some Gemini streams carry a finish reason on
        every chunk): the last `Finish` counts. Nothing is ever tried again.
        """
        ...

    async def warm(self, model: str) -> None:
        """Make ready for the first call of `model`: open a connection, load what is slow to
        load. Costs nothing, sends no request, raises nothing."""
        ...

    async def probe(self) -> None:
        """Ask for the list of models, which costs nothing. Raises `Fault`."""
        ...

    async def close(self) -> None:
        """Let go of connections. A call under way is closed; its caller is told a `Fault`.
        Idempotent."""
        ...
