"""What Prometheus is told: counts and times a stream and an attempt, never a token.

Every label value comes from the configuration or from the contract's codes; anything else
is counted as `other`, so that no client and no vendor can make series grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from relay.errors import Code
from relay.events import Attempt, Done, Failed, FinishReason, Target

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `render` returns."""

OTHER = "other"
"""The label of everything that the configuration does not name."""

BREAKER_STATES = ("closed", "half_open", "open")
"""The states that the breaker gauge tells apart."""

FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 60, 120)
STREAM_BUCKETS = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900)
"""Seconds."""

_OUTCOMES = frozenset({"ok", *Code, *FinishReason})

BreakerStates = Callable[[], Iterable[tuple[Target, str]]]


class Metrics:
    """The metrics of one process, in a registry of their own.

    `targets` and `routes` are all that the configuration offers; `breakers` is asked at
    each scrape for the state of each target. A series is looked up once and then kept:
    there are few, and the library's own look-up costs more than counting does.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        routes: Iterable[str],
        breakers: BreakerStates = tuple,
    ) -> None:
        self._targets = frozenset(targets)
        self._routes = frozenset(routes)
        self.registry = CollectorRegistry()
        self._declare_streams()
        self._declare_attempts()
        self.registry.register(_Breakers(breakers, self._targets))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def _declare_streams(self) -> None:
        registry = self.registry
        self._streams = cache(
            Counter(
                "relay_streams",
                "Answers that ended, by finish reason or error code.",
                ("route", "outcome"),
                registry=registry,
            ).labels
        )
        self._fallbacks = cache(
            Counter(
                "relay_fallbacks",
                "Answers given by another target than the first, by what the first died of.",
                ("route", "reason"),
                registry=registry,
            ).labels
        )
        self._first_token = cache(
            Histogram(
                "relay_first_token_seconds",
                "From the chat's acceptance to its first text.",
                ("route",),
                buckets=FIRST_TOKEN_BUCKETS,
                registry=registry,
            ).labels
        )
        self._stream_time = cache(
            Histogram(
                "relay_stream_seconds",
                "From the chat's acceptance to its end.",
                ("route",),
                buckets=STREAM_BUCKETS,
                registry=registry,
            ).labels
        )
        self._running = Gauge("relay_running_streams", "Answers under way.", registry=registry)
        self._connections = cache(
            Gauge(
                "relay_connections",
                "Open connections, by transport.",
                ("transport",),
                registry=registry,
            ).labels
        )
        self._lag = Gauge(
            "relay_event_loop_lag_seconds", "How late the loop last woke.", registry=registry
        )
        Gauge(
            "relay_tasks", "Tasks of the event loop, the server's own included.", registry=registry
        ).set_function(_tasks)

    def _declare_attempts(self) -> None:
        by_target = ("provider", "model")
        registry = self.registry
        self._attempts = cache(
            Counter(
                "relay_attempts",
                "Upstream calls that ended.",
                (*by_target, "outcome"),
                registry=registry,
            ).labels
        )
        self._hedges = cache(
            Counter(
                "relay_hedges",
                "Upstream calls started beside a slow one.",
                (*by_target, "outcome"),
                registry=registry,
            ).labels
        )
        self._tokens = cache(
            Counter(
                "relay_tokens", "Tokens, as counted.", (*by_target, "direction"), registry=registry
            ).labels
        )
        self._attempt_first = cache(
            Histogram(
                "relay_attempt_first_event_seconds",
                "From an upstream call's start to its first event.",
                by_target,
                buckets=FIRST_TOKEN_BUCKETS,
                registry=registry,
            ).labels
        )

    def _labels(self, target: Target) -> tuple[str, str]:
        return (target.provider, target.model) if target in self._targets else (OTHER, OTHER)

    def _route(self, route: str) -> str:
        return route if route in self._routes else OTHER

    def connection_opened(self, transport: str) -> None:
        """A reader's connection: `transport` is `websocket` or `sse`."""
        self._connections(_transport(transport)).inc()

    def connection_closed(self, transport: str) -> None:
        """The end of what `connection_opened` was told of."""
        self._connections(_transport(transport)).dec()

    def stream_started(self) -> None:
        """An answer began."""
        self._running.inc()

    def observe_first_event(self, target: Target, seconds: float) -> None:
        """An upstream call said its first word, so long after its start."""
        self._attempt_first(*self._labels(target)).observe(seconds)

    def observe_attempt(self, attempt: Attempt, first_event_s: float | None = None) -> None:
        """An upstream call ended. `first_event_s` only where `observe_first_event` was not
        told of it."""
        target = Target(attempt.provider, attempt.model)
        labels = self._labels(target)
        outcome = _outcome(attempt.outcome)
        self._attempts(*labels, outcome).inc()
        if attempt.hedge:
            self._hedges(*labels, outcome).inc()
        if attempt.usage is not None:
            self._count_tokens(target, attempt.usage.input_tokens, attempt.usage.output_tokens)
        if first_event_s is not None:
            self.observe_first_event(target, first_event_s)

    def observe_stream_end(self, record: Done | Failed | None, route: str) -> None:
        """An answer ended; `route` is the name that it was asked under. None where it goes
        on in another process."""
        self._running.dec()
        if record is None:
            return
        name = self._route(route)
        ended = record.finish_reason if isinstance(record, Done) else record.code
        self._streams(name, _outcome(ended)).inc()
        if isinstance(record, Done):
            self._observe_done(record, name)

    def _observe_done(self, record: Done, route: str) -> None:
        self._stream_time(route).observe(record.timing.total_ms / 1e3)
        if record.timing.first_token_ms is not None:
            self._first_token(route).observe(record.timing.first_token_ms / 1e3)
        server = next((each for each in record.attempts if each.outcome == "ok"), None)
        first = record.attempts[0] if record.attempts else None
        if server and first and _target(server) != _target(first):
            self._fallbacks(route, _outcome(first.outcome)).inc()
        if server and not any(each.usage for each in record.attempts):
            usage = record.usage
            self._count_tokens(_target(server), usage.input_tokens, usage.output_tokens)

    def _count_tokens(self, target: Target, taken: int, given: int) -> None:
        labels = self._labels(target)
        self._tokens(*labels, "input").inc(max(taken, 0))
        self._tokens(*labels, "output").inc(max(given, 0))

    def observe_loop_lag(self, seconds: float) -> None:
        """How late a timer of the event loop came."""
        self._lag.set(seconds)

    def render(self) -> bytes:
        """What `GET /metrics` answers, as `CONTENT_TYPE`."""
        return generate_latest(self.registry)


def _tasks() -> int:
    """Zero outside of an event loop: a scrape is answered within the one that it counts."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


def _target(attempt: Attempt) -> Target:
    return Target(attempt.provider, attempt.model)


def _outcome(outcome: str) -> str:
    return str(outcome) if outcome in _OUTCOMES else OTHER


def _transport(transport: str) -> str:
    return transport if transport in ("websocket", "sse") else OTHER


class _Breakers(Collector):
    """Reads the breakers when Prometheus asks, so that nothing is kept twice."""

    def __init__(self, states: BreakerStates, targets: frozenset[Target]) -> None:
        self._states = states
        self._targets = targets

    def describe(self) -> list[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        for target, state in self._states():
            for each in BREAKER_STATES if target in self._targets else ():
                family.add_metric([target.provider, target.model, each], float(each == state))
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "relay_breaker_state",
            "1 for the state that a target's circuit breaker is in.",
            labels=("provider", "model", "state"),
        )
