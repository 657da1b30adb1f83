"""The interface of a provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from enum import StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct

from relay.core.events import Event
from relay.core.request import ChatRequest

Take: TypeAlias = Callable[[Sequence[Event]], None]
"""Takes the events of one read of the upstream's socket. Synchronous; never call it with an empty
batch. Let its exceptions pass through."""


class Caller(Protocol):
    """Receives the events and the end of an upstream call."""

    @property
    def context(self) -> Context:
        """The context for tasks made for the call, so that their log lines carry its stream's
        name."""
        ...

    def take(self, events: Sequence[Event]) -> None:
        """Take the events of one read of the upstream's socket; a `Take`."""
        ...

    def ended(self, error: BaseException | None) -> None:
        """The call is over. `error` is None only where the vendor's end was seen, and a `Fault`
        where the upstream failed; any other exception is a defect. Called once; after
        `UpstreamCall.close` only with an exception that closing raised."""
        ...


class UpstreamCall(Protocol):
    """One upstream call under way."""

    def close(self) -> None:
        """Close the upstream within 100 ms; the caller gets no further events. Idempotent."""
        ...


class Form(StrEnum):
    """How a model is asked to go on with a broken answer."""

    PREFILL = "prefill"
    """The conversation ends in the unfinished assistant turn; the model goes on from there."""
    TURN = "turn"
    """The unfinished assistant turn, then a user turn asking to go on."""
    RESTART = "restart"
    """The conversation as it was; the model answers from the start."""


class Call(Struct, frozen=True):
    """One upstream call. `request.messages` already hold any continuation turns."""

    model: str
    request: ChatRequest
    max_tokens: int
    form: Form = Form.RESTART


class Provider(Protocol):
    """One vendor's API, behind the relay's own requests and events."""

    name: str

    def forms(self, model: str) -> tuple[Form, ...]:
        """The ways `model` can continue an unfinished answer, best first; the last is RESTART."""
        ...

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        """Make one upstream call and report to `caller` until the answer ends.

        `caller` is called from the event loop, never from within `begin`. This method raises
        nothing: its failures go to `caller` too. A call ends well only when the vendor's end was
        seen: a finish reason, or its end marker. A stream that stops without either ends in
        `Fault(PROVIDER_INTERRUPTED)`. Tool calls are handed over whole, after the end was seen,
        before the `Finish` event. Text after a `Finish` cancels it (some Gemini streams carry a
        finish reason on every chunk): the last `Finish` counts. A provider never repeats a call by
        itself.
        """
        ...

    async def warm(self, model: str) -> None:
        """Prepare the first call of `model`: open a connection, load what is slow to load. Costs
        nothing, sends no request, raises nothing."""
        ...

    async def probe(self) -> None:
        """Ask for the list of models, which costs nothing. Raises `Fault`."""
        ...

    async def close(self) -> None:
        """Close all connections. A call under way is closed and its caller gets a `Fault`.
        Idempotent."""
        ...
