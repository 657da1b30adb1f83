"""What Prometheus is told."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relay.core.errors import Code
from relay.core.events import Done, EndedAttempt, Failed, FinishReason, Target, Timing, Usage
from relay.failover.breaker import BreakerState
from relay.observability.metrics import BREAKER_STATES, CONTENT_TYPE, Metrics

GPT, CLAUDE = Target("gpt", "g1"), Target("claude", "c1")


def metrics(**options):
    return Metrics([GPT, CLAUDE], ["gpt", "claude"], **options)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def done(*attempts, first_token_ms=250, usage=None, reason=FinishReason.STOP):
    total = usage or Usage(10, 20, False)
    timing = Timing(first_token_ms, 1500)
    return Done("gpt", "as-served", reason, total, list(attempts), timing)


def attempt(outcome="ok", target=GPT, **fields):
    return EndedAttempt(target.provider, target.model, outcome, 100, **fields)


def test_an_answer_counts_once_with_its_times():
    told = metrics()
    told.stream_started()
    assert value(told, "relay_running_streams") == 1
    told.observe_stream_end(done(attempt()), "gpt")
    assert value(told, "relay_running_streams") == 0
    assert value(told, "relay_streams_total", route="gpt", outcome="stop") == 1
    assert value(told, "relay_first_token_seconds_sum", route="gpt") == 0.25
    assert value(told, "relay_stream_seconds_sum", route="gpt") == 1.5


def test_an_answer_without_text_has_no_first_token_time():
    told = metrics()
    told.observe_stream_end(done(first_token_ms=None), "gpt")
    assert value(told, "relay_first_token_seconds_count", route="gpt") is None


def test_a_failed_answer_counts_by_its_code():
    told = metrics()
    told.observe_stream_end(Failed(Code.PROVIDERS_EXHAUSTED, "x", True), "claude")
    labels = {"route": "claude", "outcome": "providers_exhausted"}
    assert value(told, "relay_streams_total", **labels) == 1


def test_an_answer_by_another_target_than_the_first_is_a_fallback():
    told = metrics()
    told.observe_stream_end(done(attempt("provider_overloaded"), attempt(target=CLAUDE)), "gpt")
    told.observe_stream_end(done(attempt("provider_timeout"), attempt()), "gpt")
    assert value(told, "relay_fallbacks_total", route="gpt", reason="provider_overloaded") == 1
    assert value(told, "relay_fallbacks_total", route="gpt", reason="provider_timeout") is None


def test_attempts_and_hedges_count_by_target_and_outcome():
    told = metrics()
    told.observe_attempt(attempt("provider_timeout"))
    told.observe_first_event(CLAUDE, 0.5)
    told.observe_attempt(attempt(target=CLAUDE, hedge=True))
    claude = {"provider": "claude", "model": "c1"}
    labels = {"provider": "gpt", "model": "g1", "outcome": "provider_timeout"}
    assert value(told, "relay_attempts_total", **labels) == 1
    assert value(told, "relay_hedges_total", **labels) is None
    assert value(told, "relay_hedges_total", **claude, outcome="ok") == 1
    assert value(told, "relay_attempt_first_event_seconds_sum", **claude) == 0.5


def test_tokens_count_where_they_were_spent_and_never_twice():
    told = metrics()
    spent = attempt("provider_interrupted", usage=Usage(5, 6, True))
    won = attempt(target=CLAUDE, usage=Usage(7, 8, False))
    for each in (spent, won):
        told.observe_attempt(each)
    told.observe_stream_end(done(spent, won, usage=Usage(12, 14, True)), "gpt")
    tokens = {
        (target, direction): value(
            told,
            "relay_tokens_total",
            provider=target.provider,
            model=target.model,
            direction=direction,
        )
        for target in (GPT, CLAUDE)
        for direction in ("input", "output")
    }
    assert list(tokens.values()) == [5, 6, 7, 8]


def test_tokens_known_only_of_the_whole_answer_go_to_who_gave_it():
    told = metrics()
    told.observe_stream_end(done(attempt("provider_timeout"), attempt(target=CLAUDE)), "gpt")
    labels = {"provider": "claude", "model": "c1", "direction": "output"}
    assert value(told, "relay_tokens_total", **labels) == 20


def test_connections_are_counted_while_they_are_open():
    told = metrics()
    told.connection_opened("websocket")
    told.connection_opened("sse")
    told.connection_closed("sse")
    assert value(told, "relay_connections", transport="websocket") == 1
    assert value(told, "relay_connections", transport="sse") == 0


def test_breakers_are_read_when_asked():
    states = {
        GPT: BreakerState.CLOSED,
        CLAUDE: BreakerState.OPEN,
        Target("x", "y"): BreakerState.OPEN,
    }
    told = metrics(breakers=states.items)

    def held(target):
        labels = {"provider": target.provider, "model": target.model}
        return [value(told, "relay_breaker_state", **labels, state=s) for s in BREAKER_STATES]

    assert held(CLAUDE) == [0, 0, 1]
    states[CLAUDE] = BreakerState.HALF_OPEN
    assert held(CLAUDE) == [0, 1, 0]
    assert held(Target("x", "y")) == [None, None, None]


def test_the_gauge_knows_every_state_of_a_breaker():
    assert set(BREAKER_STATES) == set(BreakerState)


def test_the_page_is_one_that_prometheus_can_read():
    told = metrics(breakers=lambda: [(GPT, "open")])
    told.observe_loop_lag(0.01)
    told.observe_stream_end(done(attempt()), "gpt")
    names = {family.name for family in text_string_to_metric_families(told.render().decode())}
    assert {"relay_streams", "relay_breaker_state", "relay_event_loop_lag_seconds"} <= names
    assert "version=0.0.4" in CONTENT_TYPE


def test_two_processes_metrics_do_not_share_a_registry():
    first, second = metrics(), metrics()
    first.stream_started()
    assert value(second, "relay_running_streams") == 0


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=30))
def test_nothing_that_a_vendor_or_client_says_makes_a_series(said):
    told = metrics()
    known = {"other", "gpt", "g1", "claude", "c1", "websocket", "sse"}
    for provider, model, outcome in said:
        told.observe_first_event(Target(provider, model), 0.1)
        told.observe_attempt(EndedAttempt(provider, model, outcome, 1, True, Usage(1, 1, False)))
        told.observe_stream_end(done(EndedAttempt(provider, model, outcome, 1)), provider)
        told.connection_opened(provider)
    for family in told.registry.collect():
        for sample in family.samples:
            for label in ("provider", "model", "route", "transport", "reason"):
                assert sample.labels.get(label, "other") in known


@pytest.mark.parametrize("reason", list(FinishReason))
def test_every_finish_reason_is_an_outcome(reason):
    told = metrics()
    told.observe_stream_end(done(reason=reason), "gpt")
    assert value(told, "relay_streams_total", route="gpt", outcome=str(reason)) == 1


async def test_the_tasks_of_the_loop_are_counted_when_it_is_scraped():
    told = metrics()
    before = value(told, "relay_tasks")
    waiting = asyncio.create_task(asyncio.Event().wait())
    assert value(told, "relay_tasks") == before + 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert value(told, "relay_tasks") == before


def test_outside_of_a_loop_there_are_no_tasks():
    assert value(metrics(), "relay_tasks") == 0
