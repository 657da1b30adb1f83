"""What `/health` says follows from what was seen, and nothing is asked too often."""

import pytest

from relay.observability.health import DOWN_AFTER, PROBE_SECONDS, Health, overall

T = 1_000_000.0


@pytest.fixture
def health():
    return Health([("gpt", "model-1"), ("claude", "model-2")])


def test_nothing_seen_is_unknown(health):
    report = health.report("gpt")
    assert (report.status, report.model, report.source) == ("unknown", "model-1", None)
    assert (report.last_success, report.last_error, report.latency_ms) == (None, None, None)


def test_an_answer_makes_it_ok(health):
    health.attempt("gpt", "model-9", "ok", 321, T)
    report = health.report("gpt")
    assert (report.status, report.model, report.source) == ("ok", "model-9", "traffic")
    assert (report.last_success, report.latency_ms) == (T, 321)
    assert health.report("claude").status == "unknown"


def test_a_failure_degrades_and_enough_of_them_take_it_down(health):
    seen = []
    for at in range(DOWN_AFTER):
        health.attempt("gpt", "model-1", "provider_overloaded", 5, T + at)
        seen.append(health.report("gpt").status)
    assert seen == ["degraded"] * (DOWN_AFTER - 1) + ["down"]
    assert health.report("gpt").last_error == "provider_overloaded"
    assert health.report("gpt").last_error_at == T + DOWN_AFTER - 1


def test_an_answer_after_failures_makes_it_ok_and_keeps_the_last_error(health):
    for at in range(DOWN_AFTER):
        health.attempt("gpt", "model-1", "provider_timeout", 5, T + at)
    health.attempt("gpt", "model-1", "ok", 7, T + 10)
    report = health.report("gpt")
    assert (report.status, report.last_error) == ("ok", "provider_timeout")


def test_a_refused_key_takes_it_down_at_once(health):
    health.attempt("gpt", "model-1", "provider_auth", 5, T)
    assert health.report("gpt").status == "down"


@pytest.mark.parametrize(
    "outcome", ["cancelled", "abandoned", "content_policy", "context_length", "bad_request"]
)
def test_what_the_provider_cannot_help_leaves_its_status(health, outcome):
    health.attempt("gpt", "model-1", "ok", 7, T)
    for at in range(DOWN_AFTER):
        health.attempt("gpt", "model-1", outcome, 5, T + at)
    report = health.report("gpt")
    assert (report.status, report.last_error) == ("ok", None)


def test_an_unknown_provider_is_ignored_in_attempts(health):
    health.attempt("elsewhere", "m", "ok", 1, T)
    assert health.providers == ["gpt", "claude"]


def test_a_probe_is_due_until_there_is_traffic(health):
    assert health.due_for_probe("gpt", T)
    health.attempt("gpt", "model-1", "cancelled", 7, T)
    assert not health.due_for_probe("gpt", T + PROBE_SECONDS - 0.001)
    assert health.due_for_probe("gpt", T + PROBE_SECONDS)


def test_a_probe_is_due_once_a_minute(health):
    health.probing("gpt", T)
    assert not health.due_for_probe("gpt", T + PROBE_SECONDS - 0.001)
    health.probed("gpt", None, 30, T + 1)
    assert not health.due_for_probe("gpt", T + PROBE_SECONDS - 0.001)
    assert health.due_for_probe("gpt", T + PROBE_SECONDS)


def test_a_probe_counts_as_a_success_or_a_failure(health):
    health.probing("gpt", T)
    health.probed("gpt", None, 30, T + 1)
    report = health.report("gpt")
    assert (report.status, report.source, report.latency_ms) == ("ok", "probe", 30)
    health.probing("claude", T)
    health.probed("claude", "provider_auth", 30, T + 1)
    assert health.report("claude").status == "down"


def test_traffic_during_a_probe_knows_better(health):
    health.probing("gpt", T)
    health.attempt("gpt", "model-1", "ok", 500, T + 1)
    health.probed("gpt", "provider_timeout", 2000, T + 2)
    assert health.report("gpt").status == "ok"


@pytest.mark.parametrize(
    ("breaker", "status"),
    [(None, "ok"), ("closed", "ok"), ("half_open", "degraded"), ("open", "down")],
)
def test_a_breaker_can_only_make_it_worse(health, breaker, status):
    health.attempt("gpt", "model-1", "ok", 7, T)
    assert health.report("gpt", breaker).status == status


def test_a_half_open_breaker_does_not_make_a_dead_one_better(health):
    health.attempt("gpt", "model-1", "provider_auth", 7, T)
    assert health.report("gpt", "half_open").status == "down"


def test_an_unknown_name_has_no_report(health):
    with pytest.raises(KeyError):
        health.report("elsewhere")


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([], "down"),
        (["down", "ok"], "ok"),
        (["down", "degraded"], "degraded"),
        (["unknown", "degraded"], "unknown"),
        (["down", "down"], "down"),
    ],
)
def test_the_whole_is_as_good_as_its_best_provider(statuses, status):
    assert overall(statuses) == status
