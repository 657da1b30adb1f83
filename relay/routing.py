"""Routes: which targets answer to a name, in which order, under which rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.events import Target

ClientSystem = Literal["forbid", "append", "allow"]


@dataclass(frozen=True, slots=True)
class Route:
    """One name that a client may ask for, and what stands behind it.

    `targets` are tried in order. Times are in seconds. `system` is the operator's own
    system prompt; `client_system` says what becomes of the client's: refused, put behind
    the operator's, or used in its place. `client_tools` False refuses tools.
    `max_output_tokens` caps what a client may ask for.
    """

    name: str
    targets: tuple[Target, ...]
    first_token_timeout: float = 120.0
    token_idle_timeout: float = 15.0
    hedge_after: float = 8.0
    system: str | None = None
    client_system: ClientSystem = "allow"
    client_tools: bool = True
    max_output_tokens: int = 8192
