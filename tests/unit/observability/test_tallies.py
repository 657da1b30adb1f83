"""Counts and times are shown as the library's own counters and histograms show them."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from relay.observability.tallies import PlainCounter, PlainHistogram

LABELS = st.tuples(st.sampled_from("ab"), st.sampled_from(["x", 'quoted "y"\n']))
BOUNDS = (0.05, 0.1, 1.5, 3, 120)
SECONDS = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1_000))


def samples(registry):
    """Everything but the moments at which the library's own series were made."""
    return [
        (family.name, family.documentation, family.type, sample.name, sample.labels, sample.value)
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]


@given(st.lists(st.tuples(LABELS, st.integers(0, 1_000))))
def test_a_counter_is_shown_as_the_librarys_is(said):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = PlainCounter("things", "What happened.", ("one", "two"), ours)
    counter = Counter("things", "What happened.", ("one", "two"), registry=theirs)
    for labels, amount in said:
        counts.series[labels] += amount
        counter.labels(*labels).inc(amount)
    assert samples(ours) == samples(theirs)


@given(st.lists(st.tuples(LABELS, SECONDS)))
def test_a_histogram_is_shown_as_the_librarys_is(said):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    times = PlainHistogram("spans", "How long.", ("one", "two"), buckets=BOUNDS, registry=ours)
    histogram = Histogram("spans", "How long.", ("one", "two"), buckets=BOUNDS, registry=theirs)
    for labels, seconds in said:
        times.observe(labels, seconds)
        histogram.labels(*labels).observe(seconds)
    assert samples(ours) == samples(theirs)
