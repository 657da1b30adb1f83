"""Builds `Route`s from plain values and the text of a routes file. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, get_args

from relay.answering.routing import ClientSystem, Route
from relay.configuration.environment import is_provider_name
from relay.configuration.tomllines import Lines, locate, syntax_line
from relay.core.events import Target


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a route that sets none itself. Times are in seconds."""

    first_token_timeout: float
    token_idle_timeout: float
    hedge_after: float
    max_output_tokens: int


class Routes(NamedTuple):
    """Every route: `on` by name, providers first; `off` with the reason; `warnings` are
    sentences for the operator."""

    on: Mapping[str, Route]
    off: Mapping[str, str]
    warnings: Sequence[str]


class RoutesError(ValueError):
    """A routes file that can't be used. `str()` of it is `file:line: reason`."""


def build_routes(
    models: Mapping[str, Sequence[str]],
    off: Mapping[str, str],
    fallbacks: Mapping[str, Sequence[str]],
    rules: Rules,
    text: str = "",
    file: str = "ROUTES_FILE",
) -> Routes:
    """One route for each provider, and those of the routes file.

    `models` holds each provider that is on with its models, the default first; `off` the
    others with their reasons; `fallbacks` the other providers whose default models may
    follow a provider's own. `text` is the routes file's content.

    Raises `RoutesError`.
    """
    on = {
        name: _route(name, _provider_targets(name, models, fallbacks), rules, {}) for name in models
    }
    warnings = [
        f"{name} can't fall back to {other}: {off[other]}"
        for name in models
        for other in fallbacks.get(name, ())
        if other in off
    ]
    reasons = dict(off)
    for name, said in _File(text, file, models, off).routes().items():
        targets = tuple(_target(item, models) for item in said["targets"])
        live = tuple(dict.fromkeys(target for target in targets if target.provider in models))
        dropped = dict.fromkeys(t.provider for t in targets if t.provider in off)
        warnings += [f"route {name} skips {p}: {off[p]}" for p in dropped]
        if live:
            on[name] = _route(name, live, rules, said)
        else:
            reasons[name] = "; ".join(f"{p}: {off[p]}" for p in dropped)
    return Routes(on, reasons, warnings)


def _provider_targets(
    name: str, models: Mapping[str, Sequence[str]], fallbacks: Mapping[str, Sequence[str]]
) -> tuple[Target, ...]:
    """A provider's own models, then the default model of each that it may fall back to."""
    own = [Target(name, model) for model in models[name]]
    others = (other for other in fallbacks.get(name, ()) if other in models)
    return (*own, *(Target(other, models[other][0]) for other in others))


def _target(item: str, models: Mapping[str, Sequence[str]]) -> Target:
    """`provider[:model]`; a model's name may hold colons itself. The model of a provider that is
    off stays empty, because it is not called."""
    provider, _, model = item.partition(":")
    return Target(provider, model or (models[provider][0] if provider in models else ""))


def _route(name: str, targets: tuple[Target, ...], rules: Rules, said: Mapping[str, Any]) -> Route:
    """Where the route has a system prompt, a client's is appended to it, unless the route says
    otherwise."""
    return Route(
        name=name,
        targets=targets,
        first_token_timeout=float(said.get("first_token_timeout", rules.first_token_timeout)),
        token_idle_timeout=float(said.get("token_idle_timeout", rules.token_idle_timeout)),
        hedge_after=float(said.get("hedge_after", rules.hedge_after)),
        system=said.get("system"),
        client_system=said.get("client_system", "append" if "system" in said else "allow"),
        client_tools=said.get("client_tools", True),
        max_output_tokens=said.get("max_output_tokens", rules.max_output_tokens),
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value < float("inf")


def _problem(key: str, value: Any) -> str | None:
    """Why a route's key can't have this value, in words that follow the key's name."""
    match key:
        case "targets":
            whole = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
            return None if whole else 'takes a list such as ["gpt", "claude:claude-haiku-5-5"]'
        case "first_token_timeout" | "token_idle_timeout":
            return None if _number(value) and value > 0 else "takes a number of seconds above 0"
        case "hedge_after":
            return None if _number(value) and value >= 0 else "takes a number of seconds, 0 for off"
        case "system":
            spoken = isinstance(value, str) and value.strip()
            return None if spoken else "takes a text that is not empty"
        case "client_system":
            return None if value in get_args(ClientSystem) else "takes forbid, append or allow"
        case "client_tools":
            return None if isinstance(value, bool) else "takes true or false"
        case "max_output_tokens":
            good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            return None if good else "takes a whole number, 1 or more"
        case _:
            return "is not a key of a route"


class _File:
    """A routes file: its routes, or its first error."""

    def __init__(
        self, text: str, file: str, models: Mapping[str, object], off: Mapping[str, object]
    ) -> None:
        self._text = text
        self._file = file
        self._providers = {*models, *off}
        self._lines: Lines = {}

    def routes(self) -> dict[str, dict[str, Any]]:
        try:
            content = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            line, reason = syntax_line(error, self._text)
            raise RoutesError(f"{self._file}:{line}: {reason}") from None
        self._lines = locate(self._text)
        for key in content:
            if key != "routes":
                self._refuse((key,), f"{key!r} is unknown; a route begins with [routes.NAME]")
        routes = content.get("routes", {})
        if not isinstance(routes, dict):
            self._refuse(("routes",), "a route begins with [routes.NAME]")
        for name, said in routes.items():
            self._check(name, said)
        return routes

    def _check(self, name: str, said: object) -> None:
        path = ("routes", name)
        if not is_provider_name(name):
            self._refuse(path, f"{name!r} is not a name of letters, digits, '.', '_' and '-'")
        if name in self._providers:
            self._refuse(path, f"{name!r} is a provider already; give the route another name")
        if not isinstance(said, dict):
            self._refuse(path, f"{name!r} is not a table; a route begins with [routes.NAME]")
        for key, value in said.items():
            if problem := _problem(key, value):
                self._refuse((*path, key), f"{key} {problem}")
        if "targets" not in said:
            self._refuse(path, f"route {name!r} has no targets")
        self._check_targets((*path, "targets"), said["targets"])

    def _check_targets(self, path: tuple[str, ...], targets: list[str]) -> None:
        for item in targets:
            provider, colon, model = item.partition(":")
            if provider not in self._providers:
                known = ", ".join(sorted(self._providers))
                self._refuse(path, f"{item!r} names no supported provider ({known})", item)
            if colon and not model.strip():
                self._refuse(path, f"{item!r} names no model after the colon", item)
            if targets.count(item) > 1:
                self._refuse(path, f"{item!r} occurs twice", item)

    def _refuse(self, path: tuple[str, ...], reason: str, item: str = "") -> NoReturn:
        line = self._lines[path].of(item)
        raise RoutesError(f"{self._file}:{line}: {reason}")
