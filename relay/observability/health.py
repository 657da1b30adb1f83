"""The health of each provider, from its latest traffic. Pure.

`Health` is given every attempt and every probe with the time, in seconds since the epoch, and
returns what `/health` shows. It sends no probe itself: `due_for_probe` says when a free one (a list
of models) is useful.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from relay.core.errors import OF_THE_REQUEST, Code

HealthStatus = Literal["ok", "degraded", "down", "unknown"]

PROBE_SECONDS = 60.0
"""A provider is probed only after so long without traffic, and not more often."""

DOWN_AFTER = 3
"""So many failures in a row make a provider `down`; fewer make it `degraded`."""

_NOT_ITS_FAULT = OF_THE_REQUEST | {
    Code.ABANDONED,
    Code.CANCELLED,
    Code.DRAINING,
    Code.INTERNAL,
}
"""Outcomes that say something about a request or about the relay, and nothing about the
provider."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one provider. `model` is the one last tried. Times are in seconds since the
    epoch, `latency_ms` is the length of the last success. `source` says what the status is based
    on."""

    status: HealthStatus
    model: str | None
    last_success: float | None
    last_error: str | None
    last_error_at: float | None
    latency_ms: int | None
    source: Literal["traffic", "probe"] | None


@dataclass(slots=True)
class _Seen:
    model: str | None
    failures: int = 0
    last_success: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    latency_ms: int | None = None
    source: Literal["traffic", "probe"] | None = None
    last_traffic: float | None = None
    last_probe: float | None = None

    def succeeded(self, ms: int, now: float) -> None:
        self.failures, self.last_success, self.latency_ms = 0, now, ms

    def failed(self, code: str, now: float) -> None:
        self.failures += 1
        self.last_error, self.last_error_at = code, now


class Health:
    """The state of every provider that is on."""

    def __init__(self, models: Iterable[tuple[str, str]]) -> None:
        """`models` pairs each provider's name with the model it is configured for."""
        self._seen = {name: _Seen(model) for name, model in models}

    @property
    def providers(self) -> list[str]:
        """The names, in the operator's order."""
        return list(self._seen)

    def attempt(self, provider: str, model: str, outcome: str, ms: int, now: float) -> None:
        """An attempt ended: `outcome` is `ok`, `cancelled` or an error code, as in
        `EndedAttempt`. A provider that is not known is ignored."""
        seen = self._seen.get(provider)
        if seen is None:
            return
        seen.last_traffic = now
        if outcome in _NOT_ITS_FAULT:
            return
        seen.model, seen.source = model, "traffic"
        if outcome == "ok":
            seen.succeeded(ms, now)
        else:
            seen.failed(outcome, now)

    def due_for_probe(self, provider: str, now: float) -> bool:
        """Whether there was neither traffic nor a probe for `PROBE_SECONDS`."""
        seen = self._seen[provider]
        return _past(seen.last_traffic, now) and _past(seen.last_probe, now)

    def probing(self, provider: str, now: float) -> None:
        """A probe is sent: the next one may follow `PROBE_SECONDS` from now."""
        self._seen[provider].last_probe = now

    def probed(self, provider: str, code: str | None, ms: int, now: float) -> None:
        """A probe ended: `code` is its error, None where it succeeded. Ignored where traffic ended
        since it was sent."""
        seen = self._seen[provider]
        if seen.last_traffic is not None and seen.last_traffic >= (seen.last_probe or now):
            return
        seen.source = "probe"
        if code is None:
            seen.succeeded(ms, now)
        else:
            seen.failed(code, now)

    def report(self, provider: str, breaker: str | None = None) -> Report:
        """What is known of `provider`. `breaker` is the state of its circuit breaker
        (`closed`, `open`, `half_open`), which can only make it worse. Raises `KeyError`
        for an unknown name."""
        seen = self._seen[provider]
        return Report(
            _worse(_status(seen), breaker),
            seen.model,
            seen.last_success,
            seen.last_error,
            seen.last_error_at,
            seen.latency_ms,
            seen.source,
        )


def overall(statuses: Iterable[HealthStatus]) -> HealthStatus:
    """The status of the whole relay: the best of all providers, `down` without any."""
    order: tuple[HealthStatus, ...] = ("ok", "unknown", "degraded", "down")
    return min(statuses, key=order.index, default="down")


def _past(moment: float | None, now: float) -> bool:
    return moment is None or now - moment >= PROBE_SECONDS


def _status(seen: _Seen) -> HealthStatus:
    if seen.source is None:
        return "unknown"
    if not seen.failures:
        return "ok"
    hopeless = seen.failures >= DOWN_AFTER or seen.last_error == Code.PROVIDER_AUTH
    return "down" if hopeless else "degraded"


def _worse(status: HealthStatus, breaker: str | None) -> HealthStatus:
    if breaker == "open":
        return "down"
    return "degraded" if breaker == "half_open" and status != "down" else status
