"""Parts of the relay as an environment that sets nothing makes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from relay.answering.routing import Route
from relay.configuration.settings import Settings
from relay.core.events import Target
from relay.failover.breaker import Breakers
from relay.failover.hedging import HedgeBudget

Part = TypeVar("Part")


def by_default(make: Callable[..., Part], **given: Any) -> Part:
    """`make(**given)`; a parameter that is not given has the default of the setting of its
    name, if there is such a setting."""
    settings = Settings.model_fields
    names = inspect.signature(make).parameters.keys() & settings.keys()
    return make(**{**{name: settings[name].default for name in names}, **given})


def usual_breakers(jitter: float = 0.5) -> Breakers:
    """Breakers with the default cool-down, and chance as it is given."""
    return Breakers(Settings.model_fields["breaker_cooldown"].default, lambda: jitter)


def usual_hedges() -> HedgeBudget:
    """The default budget of hedges."""
    return HedgeBudget(Settings.model_fields["hedge_budget"].default)


def open_route(name: str, *targets: Target, **rules: Any) -> Route:
    """A route that lets everything through unless `rules` say otherwise."""
    open_to_all = {"system": None, "client_system": "allow", "client_tools": True}
    return by_default(Route, name=name, targets=targets, **{**open_to_all, **rules})
