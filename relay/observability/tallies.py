"""Counters and histograms for one thread, shown to Prometheus by the library's families.

The library's own take a lock and a dozen calls for each count, to be right among threads.
All that is counted a stream is counted on the event loop, which also answers the scrape:
there a dictionary will do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

Labels: TypeAlias = tuple[str, ...]


class Counts(Collector):
    """A counter: add to `series`, by the values of its labels."""

    def __init__(
        self, name: str, documentation: str, labels: Labels, registry: CollectorRegistry
    ) -> None:
        self.series: defaultdict[Labels, float] = defaultdict(float)
        self._about = name, documentation
        self._labels = labels
        registry.register(self)

    def describe(self) -> list[CounterMetricFamily]:
        """The family without its series."""
        return [CounterMetricFamily(*self._about, labels=self._labels)]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The family as it stands."""
        (family,) = self.describe()
        for labels, count in self.series.items():
            family.add_metric(labels, count)
        yield family


class Times(Collector):
    """A histogram of seconds."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Labels,
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """`buckets` are the upper bounds, each included in its bucket, in rising order."""
        self._series: dict[Labels, list[int]] = {}
        self._sums: defaultdict[Labels, float] = defaultdict(float)
        self._about = name, documentation
        self._labels = labels
        self._bounds = buckets
        self._names = [floatToGoString(bound) for bound in (*buckets, INF)]  # type: ignore[no-untyped-call]
        registry.register(self)

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one more that took so long."""
        counts = self._series.get(labels)
        if counts is None:
            counts = self._series[labels] = [0] * len(self._names)
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds

    def describe(self) -> list[HistogramMetricFamily]:
        """The family without its series."""
        return [HistogramMetricFamily(*self._about, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family as it stands."""
        (family,) = self.describe()
        for labels, counts in self._series.items():
            buckets = list(zip(self._names, map(float, accumulate(counts)), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family
