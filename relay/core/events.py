"""What providers yield (events) and what a log holds (records), in no wire's and no vendor's
format.

A provider gives batches of `Event` to its caller; a log holds `Record`s. Text, reasoning and tool
calls are both: they pass from events to records unchanged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from relay.core.errors import Code


class FinishReason(StrEnum):
    """Why an answer ended, as in `done.finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"


class Target(Struct, frozen=True):
    """One model at one provider; each attempt asks one target."""

    provider: str
    model: str


class Usage(Struct, frozen=True, omit_defaults=True):
    """Token counts of one attempt, or summed over a stream. `estimated` where at least one
    attempt's provider gave no count of its own."""

    input_tokens: int
    output_tokens: int
    estimated: bool
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None


class Text(Struct, frozen=True, gc=False):
    """A piece of the answer, as long as the provider's own chunk. Never empty, never half
    a code point."""

    text: str


class Reasoning(Struct, frozen=True, gc=False):
    """A piece of the model's visible thinking. Never empty."""

    text: str


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """One whole call of a client's tool, as the model makes it and as a client sends it back in an
    assistant turn. `state` is opaque and goes back with the call (Gemini's thought signature)."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    state: str | None = None


class Served(Struct, frozen=True, gc=False):
    """The model that the provider says is answering."""

    model: str


class Finish(Struct, frozen=True, gc=False):
    """The provider's finish reason was seen: what follows can only be counts."""

    reason: FinishReason


class Alive(Struct, frozen=True, gc=False):
    """A sign of life without content: a ping, an empty delta, hidden thinking."""


Event: TypeAlias = Text | Reasoning | ToolCall | Served | Usage | Finish | Alive
"""What a provider gives to its caller, in the order received. A later `Usage` of the same attempt
replaces an earlier one (counts are running totals)."""

ALIVE = Alive()
"""The one instance of `Alive` that providers need."""


class EndedAttempt(Struct, frozen=True, omit_defaults=True):
    """An attempt that ended, as `done.attempts` shows it. `outcome` is `ok`, `cancelled` or an
    error code; `ms` its length in milliseconds."""

    provider: str
    model: str
    outcome: str
    ms: int
    hedge: bool = False
    usage: Usage | None = None


class Timing(Struct, frozen=True):
    """Milliseconds since the chat was accepted. `first_token_ms` is None where no text came."""

    first_token_ms: int | None
    total_ms: int


class Start(Struct, frozen=True):
    """Record 0 of every stream, appended when the chat is accepted. `model` as configured."""

    stream: str
    provider: str
    model: str


class Fallback(Struct, frozen=True, rename={"from_": "from"}):
    """Another target takes over. `keep` False: all text and reasoning before this record
    is discarded, a fresh answer follows."""

    from_: Target
    to: Target
    reason: Code
    keep: bool


class Done(Struct, frozen=True, omit_defaults=True):
    """The terminal record of an answer. `model` as the provider reported it."""

    provider: str
    model: str
    finish_reason: FinishReason
    usage: Usage
    attempts: list[EndedAttempt]
    timing: Timing
    cost_usd: float | None = None


class Failed(Struct, frozen=True, omit_defaults=True):
    """The terminal record of a stream that has no answer: the wire's `error` with `seq`."""

    code: Code
    message: str
    retryable: bool
    retry_after: float | None = None
    attempts: list[EndedAttempt] | None = None


Record: TypeAlias = Start | Text | Reasoning | ToolCall | Fallback | Done | Failed
"""What a stream's log holds, numbered 0, 1, 2 … without gaps."""


class Kind(StrEnum):
    """A record's kind: the `type` of the frame it becomes."""

    START = "start"
    TOKEN = "token"  # noqa: S105
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"
    FALLBACK = "fallback"
    DONE = "done"
    ERROR = "error"


KIND_OF: dict[type, Kind] = {
    Start: Kind.START,
    Text: Kind.TOKEN,
    Reasoning: Kind.REASONING,
    ToolCall: Kind.TOOL_CALL,
    Fallback: Kind.FALLBACK,
    Done: Kind.DONE,
    Failed: Kind.ERROR,
}
TERMINAL = frozenset({Kind.DONE, Kind.ERROR})
TEXTUAL = frozenset({Kind.TOKEN, Kind.REASONING})


def estimate_tokens(characters: int) -> int:
    """An estimate of the tokens in so many characters, where the provider gives no count: four
    characters a token, as vendors estimate, rounded up."""
    return -(-characters // 4)
