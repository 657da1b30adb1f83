"""The cells of the matrix, and the scale of their waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Role = Literal["primary", "fallback", "third"]
ROLES: tuple[Role, ...] = ("primary", "fallback", "third")

VENDORS = ("gpt", "claude", "gemini")
TRANSPORTS = ("ws", "sse", "chat")
"""`ws` is `/ws`, `sse` is `POST /chat/{provider}`, `chat` is the streamed `POST
/v1/chat/completions`, whose readers can't be asked to discard text."""

COLUMN_TITLES = {"ws": "WebSocket", "sse": "SSE", "chat": "chat.completions"}

_FAMILIES = {
    # vendor: (models that take no prefill, models that go on with one)
    "gpt": ("gpt-6-luna-{n:08d}", "gpt-6-luna-{n:08d}"),
    "claude": ("claude-sonnet-5-5-{n:08d}", "claude-haiku-4-5-{n:08d}"),
    "gemini": ("gemini-3.8-flash-{n:08d}", "gemini-2.5-flash-{n:08d}"),
}


@dataclass(frozen=True)
class Profile:
    """How long the faults last. `scale` multiplies every wait of the lab and, through `settings`,
    of the relay. `allowance` is added to every time limit, for a busy machine: it does not shrink
    with the waits."""

    name: str
    scale: float
    allowance: float
    settings: Mapping[str, str]

    def seconds(self, real: float) -> float:
        """A wait of `real` seconds, scaled."""
        return real * self.scale

    def bound(self, real: float) -> float:
        """A time limit of `real` seconds, scaled, with the allowance."""
        return real * self.scale + self.allowance


REAL = Profile("real waits", 1.0, 0.0, MappingProxyType({"HEDGE_BUDGET": "1"}))
"""The relay's own defaults. Only the share of answers that may be hedged is raised, because here
every answer has a fault."""


def compressed(scale: float = 0.2, allowance: float = 5.0) -> Profile:
    """All waits times `scale`; the relay's are changed only through its settings."""
    times = {
        "FIRST_TOKEN_TIMEOUT": 120.0,
        "TOKEN_IDLE_TIMEOUT": 15.0,
        "HEDGE_AFTER": 8.0,
        "RETRY_AFTER_MAX": 3.0,
        "BREAKER_COOLDOWN": 10.0,
    }
    settings = {name: f"{value * scale:g}" for name, value in times.items()}
    return Profile("compressed waits", scale, allowance, {**REAL.settings, **settings})


@dataclass(frozen=True)
class Cell:
    """One chat to be judged: a fault by name, on a vendor's wire, over a transport. `number` makes
    the names of its models unique, so that no breaker is shared."""

    fault: str
    vendor: str
    transport: str
    number: int

    @property
    def route(self) -> str:
        """The route's name in `ROUTES_FILE`."""
        return f"{self.fault.replace(' ', '-')}.{self.vendor}.{self.transport}"

    def model(self, role: Role, *, prefill: bool = False) -> str:
        """The name of a role's model. `prefill`: of a family that accepts one."""
        pattern = _FAMILIES[self.vendor][prefill]
        return pattern.format(n=self.number * 10 + ROLES.index(role))


def healthy_route(vendor: str) -> str:
    """The name of a route without faults."""
    return f"healthy.{vendor}"


def healthy_model(vendor: str) -> str:
    """The only model of that route."""
    return _FAMILIES[vendor][0].format(n=99_999_999)
