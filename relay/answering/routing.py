"""Routes: the targets and rules behind a name, and which parts of a client's chat a route accepts.
Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from relay.core.errors import Code, RelayError
from relay.core.events import Target
from relay.core.request import ChatRequest, text_of

ClientSystem = Literal["forbid", "append", "allow"]


@dataclass(frozen=True, slots=True)
class Route:
    """One name that a client may ask for, with its targets and rules.

    `targets` are tried in order. Times are in seconds. `system` is the operator's own system
    prompt; `client_system` says whether the client's is refused, appended to the operator's, or
    used instead of it. `client_tools` False refuses tools. `max_output_tokens` caps what a client
    may ask for.
    """

    name: str
    targets: tuple[Target, ...]
    first_token_timeout: float
    token_idle_timeout: float
    hedge_after: float
    system: str | None
    client_system: ClientSystem
    client_tools: bool
    max_output_tokens: int


def apply_route(request: ChatRequest, route: Route) -> ChatRequest:
    """The chat that goes upstream: the route's rules applied, under the route's name.

    `max_tokens` is always set in it. Turns of the role `system` count as the client's system
    prompt. Raises `RelayError` BAD_REQUEST, naming the field that the route forbids.
    """
    if request.tools and not route.client_tools:
        raise _forbidden("tools", route)
    asked = request.max_tokens or route.max_output_tokens
    return msgspec.structs.replace(
        request,
        provider=route.name,
        system=_system(request, route),
        max_tokens=min(asked, route.max_output_tokens),
    )


def _system(request: ChatRequest, route: Route) -> str | None:
    field = _system_field(request)
    if field is None:
        return route.system
    if route.client_system == "forbid":
        raise _forbidden(field, route)
    if route.client_system == "allow" or route.system is None:
        return request.system
    return f"{route.system}\n\n{request.system}" if request.system else route.system


def _system_field(request: ChatRequest) -> str | None:
    """The field that holds the client's own system prompt, if it sent one."""
    if request.system and request.system.strip():
        return "system"
    for at, turn in enumerate(request.messages):
        if turn.role == "system" and text_of(turn.content).strip():
            return f"messages.{at}.role"
    return None


def _forbidden(field: str, route: Route) -> RelayError:
    return RelayError(Code.BAD_REQUEST, f"{field}: not allowed on {route.name!r}; leave it out")
