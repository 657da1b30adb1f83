"""Metrics for Prometheus: counts and times per stream and per attempt, never per token.

Every label value comes from the configuration or from the contract's codes; anything else is
counted as `other`, so that no client and no vendor can make series grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Iterator

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from relay.core.errors import Code
from relay.core.events import Done, EndedAttempt, Failed, FinishReason, Target, Usage
from relay.observability.tallies import PlainCounter, PlainHistogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of what `render` returns."""

OTHER = "other"
"""The label of everything that the configuration does not name."""

BREAKER_STATES = ("closed", "half_open", "open")
"""The states that the breaker gauge distinguishes."""

FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 60, 120)
STREAM_BUCKETS = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900)
"""Seconds."""

_OUTCOMES = {str(each): str(each) for each in ("ok", *Code, *FinishReason)}
_OTHERS = (OTHER, OTHER)

BreakerStates = Callable[[], Iterable[tuple[Target, str]]]


class Metrics:
    """The metrics of one process, in a registry of their own.

    `targets` and `routes` are all that the configuration offers; `breakers` is asked at
    each scrape for the state of each target. For the one thread of the event loop.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        routes: Iterable[str],
        breakers: BreakerStates = tuple,
    ) -> None:
        self._targets = {
            (each.provider, each.model): (each.provider, each.model) for each in targets
        }
        self._routes = frozenset(routes)
        self.registry = CollectorRegistry()
        self._declare_streams()
        self._declare_attempts()
        self._declare_process()
        self.registry.register(_Breakers(breakers, self._targets))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def _declare_streams(self) -> None:
        registry = self.registry
        self._streams = PlainCounter(
            "relay_streams",
            "Answers that ended, by finish reason or error code.",
            ("route", "outcome"),
            registry,
        ).series
        self._fallbacks = PlainCounter(
            "relay_fallbacks",
            "Answers given by another target than the first, by why the first failed.",
            ("route", "reason"),
            registry,
        ).series
        self._first_token = PlainHistogram(
            "relay_first_token_seconds",
            "From the chat's acceptance to its first text.",
            ("route",),
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._stream_time = PlainHistogram(
            "relay_stream_seconds",
            "From the chat's acceptance to its end.",
            ("route",),
            buckets=STREAM_BUCKETS,
            registry=registry,
        )
        self._running = 0
        running = Gauge("relay_running_streams", "Answers under way.", registry=registry)
        running.set_function(lambda: self._running)

    def _declare_attempts(self) -> None:
        by_target = ("provider", "model")
        by_outcome = (*by_target, "outcome")
        registry = self.registry
        self._attempts = PlainCounter(
            "relay_attempts", "Upstream calls that ended.", by_outcome, registry
        ).series
        self._hedges = PlainCounter(
            "relay_hedges", "Upstream calls started beside a slow one.", by_outcome, registry
        ).series
        self._tokens = PlainCounter(
            "relay_tokens", "Tokens, as counted.", (*by_target, "direction"), registry
        ).series
        self._attempt_first = PlainHistogram(
            "relay_attempt_first_event_seconds",
            "From an upstream call's start to its first event.",
            by_target,
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )

    def _declare_process(self) -> None:
        registry = self.registry
        self._connections = Gauge(
            "relay_connections",
            "Open connections, by transport.",
            ("transport",),
            registry=registry,
        ).labels
        self._lag = Gauge(
            "relay_event_loop_lag_seconds", "How late the loop last woke.", registry=registry
        )
        tasks = "Tasks of the event loop, the server's own included."
        Gauge("relay_tasks", tasks, registry=registry).set_function(_tasks)

    def _labels(self, provider: str, model: str) -> tuple[str, str]:
        return self._targets.get((provider, model), _OTHERS)

    def _route(self, route: str) -> str:
        return route if route in self._routes else OTHER

    def connection_opened(self, transport: str) -> None:
        """A connection was opened: `transport` is `websocket` or `sse`."""
        self._connections(_transport(transport)).inc()

    def connection_closed(self, transport: str) -> None:
        """A connection that `connection_opened` counted was closed."""
        self._connections(_transport(transport)).dec()

    def stream_started(self) -> None:
        """An answer began."""
        self._running += 1

    def observe_first_event(self, target: Target, seconds: float) -> None:
        """The first event of an upstream call came, `seconds` after its start."""
        self._attempt_first.observe(self._labels(target.provider, target.model), seconds)

    def observe_attempt(self, attempt: EndedAttempt) -> None:
        """An upstream call ended."""
        labels = self._labels(attempt.provider, attempt.model)
        outcome = _OUTCOMES.get(attempt.outcome, OTHER)
        self._attempts[*labels, outcome] += 1
        if attempt.hedge:
            self._hedges[*labels, outcome] += 1
        if attempt.usage is not None:
            self._count_tokens(attempt, attempt.usage)

    def observe_stream_end(self, record: Done | Failed | None, route: str) -> None:
        """An answer ended; `route` is the name that the client asked for. `record` is None where
        another process goes on with the answer."""
        self._running -= 1
        if record is None:
            return
        name = self._route(route)
        ended = record.finish_reason if isinstance(record, Done) else record.code
        self._streams[name, _OUTCOMES.get(ended, OTHER)] += 1
        if isinstance(record, Done):
            self._observe_done(record, name)

    def _observe_done(self, record: Done, route: str) -> None:
        timing = record.timing
        self._stream_time.observe((route,), timing.total_ms / 1e3)
        if timing.first_token_ms is not None:
            self._first_token.observe((route,), timing.first_token_ms / 1e3)
        server, counted = None, False
        for each in record.attempts:
            if server is None and each.outcome == "ok":
                server = each
            counted = counted or each.usage is not None
        if server is None:
            return
        first = record.attempts[0]
        if (server.provider, server.model) != (first.provider, first.model):
            self._fallbacks[route, _OUTCOMES.get(first.outcome, OTHER)] += 1
        if not counted:
            self._count_tokens(server, record.usage)

    def _count_tokens(self, attempt: EndedAttempt, usage: Usage) -> None:
        labels = self._labels(attempt.provider, attempt.model)
        self._tokens[*labels, "input"] += max(usage.input_tokens, 0)
        self._tokens[*labels, "output"] += max(usage.output_tokens, 0)

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


def _transport(transport: str) -> str:
    return transport if transport in ("websocket", "sse") else OTHER


class _Breakers(Collector):
    """Reads the breakers when Prometheus asks, so that nothing is kept twice."""

    def __init__(self, states: BreakerStates, targets: Container[tuple[str, str]]) -> None:
        self._states = states
        self._targets = targets

    def describe(self) -> list[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        for target, state in self._states():
            known = (target.provider, target.model) in self._targets
            for each in BREAKER_STATES if known else ():
                family.add_metric([target.provider, target.model, each], float(each == state))
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "relay_breaker_state",
            "1 for the state that a target's circuit breaker is in.",
            labels=("provider", "model", "state"),
        )
