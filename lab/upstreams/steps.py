"""The steps of a scripted upstream, independent of the vendor.

Steps are carried out in order. The response's headers are sent with the first step that writes; at
the end of the script the body ends cleanly (as with `Close`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Reason = Literal["stop", "length", "content_filter", "tool_calls", "refusal"]
Trouble = Literal[
    "rate_limit",
    "quota",
    "server_error",
    "overloaded",
    "context_length",
    "policy",
    "auth",
    "not_found",
    "bad_request",
    "prefill",
]


@dataclass(frozen=True)
class Token:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Thought:
    """A piece of visible thinking."""

    text: str


@dataclass(frozen=True)
class Call:
    """A tool call; its arguments are JSON text, cut into `pieces` if the wire allows it."""

    call_id: str
    name: str
    arguments: str
    state: str | None = None
    pieces: int = 3


@dataclass(frozen=True)
class Finish:
    """The vendor's finish reason; `refusal` is a model's own refusal."""

    reason: Reason = "stop"


@dataclass(frozen=True)
class Counts:
    """Usage. Anthropic and Gemini write it with the finish: put it before `Finish`."""

    input: int = 11
    output: int = 7
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class End:
    """The vendor's end marker; Gemini has none."""


@dataclass(frozen=True)
class InBandError:
    """An error inside a stream that began with status 200."""

    trouble: Trouble = "overloaded"


@dataclass(frozen=True)
class Garbage:
    """An event whose data is not JSON."""

    data: str = '{"choices":[{"delta":{"content":"lo'


@dataclass(frozen=True)
class Raw:
    """Bytes of the body, unchanged."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Wait, for `seconds` or until `until` is set."""

    seconds: float = 0.0
    until: asyncio.Event | None = None


@dataclass(frozen=True)
class Refuse:
    """Answer with the vendor's error status and body instead of a stream. `retry_after`: seconds,
    sent in the vendor's form; `headers` are added, `body` replaces the vendor's."""

    trouble: Trouble
    retry_after: float | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Respond:
    """Answer with this response instead of a stream. `headers` are added to the JSON content
    type."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reset:
    """Reset the connection (RST). As the first step: before any header."""


@dataclass(frozen=True)
class Close:
    """End the body cleanly, whatever was sent before."""


@dataclass(frozen=True)
class Hang:
    """Send nothing more, and stay open until the relay closes. As the first step: accept, then
    silence before any header."""


Step: TypeAlias = (
    Token
    | Thought
    | Call
    | Finish
    | Counts
    | End
    | InBandError
    | Garbage
    | Raw
    | Pause
    | Refuse
    | Respond
    | Reset
    | Close
    | Hang
)
