"""The upstream side: which model plays which script, and the requests it received."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lab.faults.canon import whole
from lab.faults.matrix import VENDORS, Cell, Role, healthy_model, healthy_route
from lab.upstreams.request import Request
from lab.upstreams.scripts import Script
from lab.upstreams.server import Upstream
from lab.upstreams.steps import Reset, Step

WIRE_OF = {"gpt": "openai", "claude": "anthropic", "gemini": "gemini"}


@dataclass
class Part:
    """One model of a cell: its script, and the requests that it received, counted from 0.
    `defects` are errors of the script, and requests of the relay that no script can answer."""

    script: Script
    requests: list[Request] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    defects: list[str] = field(default_factory=list)

    def play(self, request: Request) -> list[Step]:
        """The steps for the next request."""
        request.number = len(self.requests)
        self.requests.append(request)
        self.arrived.set()
        script = self.script
        try:
            return list(script(request) if callable(script) else script)
        except Exception as error:
            self.defects.append(f"the script failed: {type(error).__name__}: {error}")
            return [Reset()]


class Cast:
    """The models of one cell, by role."""

    def __init__(self, cell: Cell, parts: Mapping[Role, Part], prefill: bool) -> None:
        self.parts = parts
        self.models = {
            role: cell.model(role, prefill=prefill and role != "primary") for role in parts
        }

    @property
    def requests(self) -> list[Request]:
        """All requests to any of them, in the order of arrival."""
        asked = (request for part in self.parts.values() for request in part.requests)
        return sorted(asked, key=lambda request: request.arrived)

    @property
    def defects(self) -> list[str]:
        """Errors of the scripts themselves."""
        return [defect for part in self.parts.values() for defect in part.defects]

    def attempts(self, role: Role) -> int:
        """The number of requests to one of them."""
        part = self.parts.get(role)
        return len(part.requests) if part else 0

    def role_of(self, model: str | None) -> Role | None:
        """The role with this model name, as configured or as served."""
        for role, own in self.models.items():
            if model in (own, f"{own}-served"):
                return role
        return None


class Stage:
    """One loopback server for all vendors and cells."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._routes: list[str] = []
        self.upstream = Upstream(self._play)
        for vendor in VENDORS:
            model = healthy_model(vendor)
            self._parts[model] = Part(whole())
            self._route(healthy_route(vendor), vendor, [model])

    def cast(self, cell: Cell, scripts: Mapping[Role, Script], *, prefill: bool) -> Cast:
        """Add a cell's models and its route."""
        cast = Cast(cell, {role: Part(script) for role, script in scripts.items()}, prefill)
        for role, model in cast.models.items():
            self._parts[model] = cast.parts[role]
        self._route(cell.route, cell.vendor, cast.models.values())
        return cast

    def routes_file(self) -> str:
        """The content of the routes file, with the routes of all cells added so far."""
        return "\n".join(self._routes)

    def environment(self) -> dict[str, str]:
        """The variables that make the relay use these upstreams."""
        up = self.upstream
        return {
            "SUPPORTED_PROVIDERS": ",".join(VENDORS),
            "OPENAI_API_KEY": "lab-key",
            "OPENAI_BASE_URL": up.base_url("openai"),
            "ANTHROPIC_API_KEY": "lab-key",
            "ANTHROPIC_BASE_URL": up.base_url("anthropic"),
            "GEMINI_API_KEY": "lab-key",
            "GEMINI_BASE_URL": up.base_url("gemini"),
        }

    def _route(self, name: str, vendor: str, models: Iterable[str]) -> None:
        targets = ", ".join(f'"{vendor}:{model}"' for model in models)
        self._routes.append(f'[routes."{name}"]\ntargets = [{targets}]\n')

    def _play(self, request: Request) -> list[Step]:
        return self._parts[request.model].play(request)
