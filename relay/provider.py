"""What a provider is to the rest of the house."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from relay.events import Event
from relay.request import ChatRequest

Sink: TypeAlias = Callable[[Sequence[Event]], None]
"""Takes what one read of the upstream's socket brought. Synchronous; never call it with
an empty batch. It may raise: let that pass through."""


class NotDirect(Exception):
    """`Direct.begin` began a call that only `run` can make. Nothing was taken of it."""


class Caller(Protocol):
    """Who made an upstream call."""

    def take(self, events: Sequence[Event]) -> None:
        """See `Sink`."""
        ...

    def ended(self, error: BaseException | None) -> None:
        """The call is over, and `error` is what `Provider.run` would have raised; None where
        it would have returned. Told once; not after the upstream was closed, unless with
        what was raised against that."""
        ...


class Upstream(Protocol):
    """One upstream call under way."""

    def close(self) -> None:
        """Close the upstream at once; its caller is given nothing more. Idempotent."""
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

    async def run(self, call: Call, sink: Sink) -> None:
        """Make one upstream call and feed `sink` until the answer ends.

        Returns only when the vendor's end was seen: a finish reason, or its end marker.
        A stream that stops without either raises `Fault(PROVIDER_INTERRUPTED)`. Tool
        calls are handed over whole, after the end was seen, before the `Finish` event.
        Text after a `Finish` takes it back (some Gemini streams carry a finish reason on
        every chunk): the last `Finish` counts.
        Never retries. The caller runs it in a task of its own and cancels that task to
        close the upstream, which must follow within 100 ms.

        Raises `Fault` for everything that the upstream did wrong.
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
        """Let go of connections. Idempotent."""
        ...


@runtime_checkable
class Direct(Protocol):
    """A provider that can make a call without a task: the short way of `Provider.run`."""

    def begin(self, call: Call, caller: Caller) -> Upstream | None:
        """Make one upstream call, now; None where `run` has to make it, nothing being done.

        `caller` hears of it from the event loop, never from within `begin`. Where it is told
        `NotDirect`, `run` has to make the call after all.
        """
        ...
