"""Counters and histograms for one thread, exported through the library's metric families.

The library's own take a lock and a dozen calls for each count, because they are thread-safe. What
is counted per stream is counted on the event loop, which also answers the scrape: a dictionary is
enough there.
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

Labels: TypeAlias = tuple[str, ...]


class PlainCounter(Collector):
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
        """The family with its series."""
        (family,) = self.describe()
        for labels, count in self.series.items():
            family.add_metric(labels, count)
        yield family


class PlainHistogram(Collector):
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
        """`buckets` are the upper bounds, each included in its bucket, in rising order and below a
        million: Prometheus writes larger ones in another form than Python."""
        self._about = name, documentation
        self._labels = labels
        self._bounds = buckets
        self._names = [*(str(float(bound)) for bound in buckets), "+Inf"]
        # for each label values the buckets' counts, then the sum of all seconds
        self._series: defaultdict[Labels, list[float]] = defaultdict(self._empty)
        registry.register(self)

    def _empty(self) -> list[float]:
        return [0.0] * (len(self._names) + 1)

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one that took `seconds`."""
        series = self._series[labels]
        series[bisect_left(self._bounds, seconds)] += 1
        series[-1] += seconds

    def describe(self) -> list[HistogramMetricFamily]:
        """The family without its series."""
        return [HistogramMetricFamily(*self._about, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family with its series."""
        (family,) = self.describe()
        for labels, (*counts, total) in self._series.items():
            family.add_metric(
                labels, list(zip(self._names, accumulate(counts), strict=True)), total
            )
        yield family
