"""The policy, fault by fault: the numbers are those of the table in docs/failover.md."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Code, Fault
from relay.core.events import (
    ALIVE,
    Done,
    EndedAttempt,
    Event,
    Fallback,
    Finish,
    FinishReason,
    Reasoning,
    Served,
    Target,
    Text,
    ToolCall,
    Usage,
)
from relay.core.provider import Form
from relay.core.records import Shown
from relay.failover.breaker import Breakers
from relay.failover.flow import Phase
from relay.failover.hedging import HedgeBudget
from relay.failover.plan import Launch, Step
from relay.failover.policy import Failover
from tests.by_default import usual_breakers, usual_hedges
from tests.failover_sim import (
    SILENCE,
    STOP,
    A,
    B,
    C,
    Script,
    Sim,
    answer,
    carries_on,
    cut,
    dies,
    interrupted,
    limited,
    overloaded,
    plan,
    run,
)

WORDS = (
    "A lighthouse keeper once counted every ship that passed her rock, and wrote their names "
    "in a ledger bound with rope. Years later a storm took the ledger, yet she could still say "
    "each name aloud. Sailors came to listen, because nobody else remembered how many had gone "
    "by, nor that most of them had waved before the fog closed in again behind their sails."
)
HALF = WORDS[:240]
CALL = ToolCall("call-1", "weather", {"city": "Rome"})
EVERYWHERE = pytest.mark.parametrize("can_unsay", [True, False])
FORMS = pytest.mark.parametrize("form", list(Form))


def only(*scripts: Script) -> list[Script]:
    return list(scripts)


def whole(out, *, target: Target = B) -> None:
    assert out.text == WORDS
    assert out.done.provider == target.provider
    assert out.done.finish_reason is FinishReason.STOP


# F01 to F06: before the first token


def test_f01_a_short_retry_after_is_waited_out_on_the_same_target_without_a_hedge():
    out = run(
        plan(A, B, hedge_after=1.0), {A: only(dies(limited(2.0)), answer(WORDS)), B: [SILENCE]}
    )
    whole(out, target=A)
    assert out.targets == [A, A]
    assert out.launches[1][0] - 0.05 >= 2.0
    assert out.fallbacks == []


def test_f01_a_retry_after_at_the_limit_is_waited_out_and_one_beyond_it_is_not():
    at_limit = run(plan(A, B), {A: only(dies(limited(3.0)), answer(WORDS)), B: [SILENCE]})
    beyond = run(plan(A, B), {A: [dies(limited(3.01))], B: [answer(WORDS)]})
    assert at_limit.targets == [A, A]
    assert beyond.targets == [A, B]


def test_f02_rate_limited_for_ever_falls_back_within_four_attempts_in_three_seconds():
    for retry_after in (None, 0.5, 2.0, 60.0):
        out = run(plan(A, B), {A: [dies(limited(retry_after))], B: [answer(WORDS)]})
        whole(out)
        assert len([at for at, _ in out.launches if at <= 3.0]) <= 4
        assert len(out.launches) <= 6
        assert out.fallbacks == [Fallback(A, B, Code.PROVIDER_RATE_LIMITED, keep=True)]


def test_f03_one_500_is_answered_by_the_same_model():
    fault = Fault(Code.PROVIDER_ERROR, "500")
    out = run(plan(A, B), {A: only(dies(fault), answer(WORDS)), B: [SILENCE]})
    whole(out, target=A)
    assert out.targets == [A, A]


def test_a_server_that_does_the_same_each_time_is_asked_twice():
    def failures(out, target):
        """Attempts on `target` that failed; one whose seam is unsure the relay gives up itself."""
        told = [each for each in out.failed.attempts if each.outcome != Code.CANCELLED]
        return sum(each.model == target.model for each in told)

    unreadable = Fault(Code.PROVIDER_INTERRUPTED, "cannot be read", recurs=True)
    for broken in (
        dies(unreadable),
        cut(WORDS[:60], unreadable),
        cut(WORDS[:60], interrupted()),
        cut(WORDS[:60], overloaded()),
    ):
        alone = run(plan(A), {A: [broken]})
        assert failures(alone, A) == 2
        assert alone.failed.code is Code.PROVIDERS_EXHAUSTED
        both = run(plan(A, B), {A: [broken], B: [broken]})
        assert [failures(both, target) for target in (A, B)] == [2, 2]


def test_a_server_whose_events_cannot_be_read_is_asked_twice_though_it_adds_to_the_answer():
    def some_more(launch: Launch) -> Script:
        left = WORDS[len(launch.partial) :]
        fault = Fault(Code.PROVIDER_INTERRUPTED, "cannot be read", recurs=True)
        return cut(left[:60], fault)

    assert run(plan(A), {A: some_more}).targets == [A, A]


def test_a_server_that_adds_to_the_answer_each_time_is_asked_on():
    cuts = [cut(WORDS[at : at + 10], interrupted()) for at in range(0, 50, 10)]
    out = run(plan(A), {A: only(*cuts, answer(WORDS[50:]))})
    whole(out, target=A)
    assert len(out.launches) == 6


def test_an_unreadable_event_that_comes_once_costs_nothing():
    fault = Fault(Code.PROVIDER_INTERRUPTED, "cannot be read", recurs=True)
    out = run(plan(A), {A: only(dies(fault), answer(WORDS))})
    whole(out, target=A)


def test_f04_f05_f16_a_target_that_stays_broken_is_left_after_two_attempts():
    for fault in (overloaded(), interrupted()):
        out = run(plan(A, B), {A: [dies(fault)], B: [answer(WORDS)]})
        whole(out)
        assert out.targets == [A, A, B]
        assert out.done.model == "served"


def test_f06_a_silent_target_is_asked_once_and_the_hedge_answers():
    out = run(plan(A, B), {A: [SILENCE], B: [answer(WORDS)]})
    whole(out)
    assert out.targets == [A, B]
    assert out.at < 15
    assert out.outcomes == ["cancelled", "ok"]


def test_f06_without_hedging_nothing_is_asked_again_after_a_timeout():
    out = run(plan(A, B, hedge_after=0), {A: [SILENCE], B: [answer(WORDS)]})
    whole(out)
    assert out.targets == [A, B]
    assert out.launches[1][0] == 120.0
    alone = run(plan(A), {A: [SILENCE]})
    assert alone.failed.code is Code.PROVIDERS_EXHAUSTED
    assert alone.targets == [A]


# F07: hedging


def test_f07_the_next_target_starts_beside_a_slow_one_and_wins():
    out = run(plan(A, B), {A: [answer(WORDS, first=20)], B: [answer(WORDS)]})
    whole(out)
    assert out.at < 15
    assert out.launches[1][0] == 8.0
    assert out.aborted == {1}
    assert [attempt.hedge for attempt in out.done.attempts] == [False, True]
    assert out.fallbacks == [Fallback(A, B, Code.PROVIDER_TIMEOUT, keep=True)]


def test_a_slow_target_that_answers_before_its_hedge_wins_and_the_hedge_is_aborted():
    out = run(plan(A, B), {A: [answer(WORDS, first=9)], B: [SILENCE]})
    whole(out, target=A)
    assert out.aborted == {2}
    assert out.fallbacks == []


def test_pings_do_not_disarm_the_hedge_but_visible_reasoning_does():
    pings = Script(tuple((float(n), (ALIVE,)) for n in range(1, 60)))
    assert run(plan(A, B), {A: [pings], B: [answer(WORDS)]}).targets == [A, B]
    thinks = Script(
        (
            *((float(n), (Reasoning("hm "),)) for n in range(1, 60)),
            (60.0, (Text(WORDS), STOP)),
        ),
        60.1,
    )
    out = run(plan(A, B), {A: [thinks], B: [SILENCE]})
    whole(out, target=A)
    assert out.targets == [A]


def test_hedges_go_only_to_closed_breakers_within_the_budget_and_only_where_allowed():
    breakers = usual_breakers()
    for _ in range(5):
        breakers.failed(breakers.enter(B, 1000.0), Code.PROVIDER_ERROR, 1000.0)
    slow = {A: [answer(WORDS, first=20)], B: [SILENCE]}
    assert Sim(plan(A, B), slow, breakers=breakers).run().targets == [A]
    assert Sim(plan(A, B), slow, hedges=HedgeBudget(0.0, free=0)).run().targets == [A]
    assert run(plan(A, B, fallback=False), slow).targets == [A]
    assert run(plan(A, B, max_attempts=1), slow).targets == [A]
    assert run(plan(A, B, hedge_after=0), slow).targets == [A]


def test_a_loser_without_any_event_counts_against_its_breaker_and_one_that_pinged_does_not():
    for script, failures in ((SILENCE, 1), (Script(((1.0, (ALIVE,)),)), 0)):
        sim = Sim(plan(A, B), {A: [script], B: [answer(WORDS)]})
        sim.run()
        assert sim.breakers.state(A, sim.now).failures == failures


def test_the_hedge_goes_on_when_the_first_fails_and_the_ladder_when_both_do():
    late = {A: [dies(overloaded(), at=9)], B: [answer(WORDS, first=5)]}
    out = run(plan(A, B), late)
    whole(out)
    assert out.outcomes == ["provider_overloaded", "ok"]
    assert out.fallbacks[0].reason is Code.PROVIDER_OVERLOADED
    both = {
        A: [dies(overloaded(), at=9)],
        B: [dies(overloaded(), at=2)],
        C: [answer(WORDS)],
    }
    whole(run(plan(A, B, C), both), target=C)


def test_a_hedge_that_fails_is_followed_by_the_next_target_and_never_ends_the_answer():
    refuses = dies(Fault(Code.CONTENT_POLICY, "no", remedy="none"))
    out = run(plan(A, B, C), {A: [SILENCE], B: [refuses], C: [answer(WORDS)]})
    whole(out, target=C)
    assert out.targets == [A, B, C]
    assert out.launches[2][0] < 9


# F08 to F11, F18, F19: mid-answer


@EVERYWHERE
@FORMS
def test_f08_f18_a_cut_answer_is_whole_in_every_form(form, can_unsay):
    for fault in (interrupted(), overloaded()):
        out = run(
            plan(A, B, form=form, can_unsay=can_unsay),
            {A: [cut(HALF, fault)], B: carries_on(WORDS)},
        )
        whole(out)
        assert out.fallbacks == [Fallback(A, B, fault.code, keep=True)]
        assert out.launches[1][1].form is form
        assert out.launches[1][1].partial == ("" if form is Form.RESTART else HALF.rstrip())


@EVERYWHERE
def test_f09_a_stalled_answer_goes_on_after_the_idle_timeout(can_unsay):
    out = run(plan(A, B, can_unsay=can_unsay), {A: [cut(HALF)], B: carries_on(WORDS)})
    whole(out)
    assert out.at < 20
    assert out.fallbacks[0].reason is Code.PROVIDER_TIMEOUT


def test_f09_signs_of_life_hold_the_idle_timer_off():
    slow = [(0.0, (Text("so "),)), *((float(n), (ALIVE,)) for n in range(10, 100, 10))]
    out = run(plan(A, B), {A: [Script((*slow, (100.0, (Text("it is"), STOP))), 100.1)], B: []})
    assert out.text == "so it is"
    assert out.targets == [A]


@pytest.mark.parametrize("last", ["finish, closed", "finish, open", "finish, broken", "end only"])
def test_f11_an_answer_that_ended_in_meaning_is_finished_and_not_retried(last):
    batches = answer(WORDS).batches
    whole_batches = batches[:-1] if last == "end only" else batches
    at = batches[-1][0] + 0.1
    fault = interrupted() if last == "finish, broken" else None
    script = Script(whole_batches, None if last == "finish, open" else at, fault)
    out = run(plan(A, B), {A: [script], B: [SILENCE]})
    whole(out, target=A)
    assert out.at < batches[-1][0] + 2
    assert out.done.usage.estimated is (last == "end only")
    assert out.targets == [A]


def test_f11_neither_seen_and_left_open_is_ended_by_a_continuation_that_has_nothing_to_add():
    empty = Script(((0.1, (STOP,)),), 0.2)
    out = run(plan(A, B, C), {A: [cut(WORDS)], B: [empty], C: [empty]})
    assert out.text == WORDS
    assert out.done.provider == A.provider
    assert out.targets == [A, B, C]


def test_an_empty_continuation_is_not_believed_while_another_target_goes_on():
    empty = Script(((0.1, (STOP,)),), 0.2)
    out = run(plan(A, B, C), {A: [cut(HALF, interrupted())], B: [empty], C: carries_on(WORDS)})
    whole(out, target=C)


def test_f19_a_second_break_is_continued_by_a_third_target():
    def breaks_too(launch):
        return cut(WORDS[len(launch.partial) : len(launch.partial) + 40], interrupted())

    out = run(plan(A, B, C), {A: [cut(HALF, interrupted())], B: breaks_too, C: carries_on(WORDS)})
    whole(out, target=C)
    assert [f.keep for f in out.fallbacks] == [True, True]


def test_a_single_target_goes_on_with_its_own_answer_unannounced():
    def flaky(launch):
        rest = WORDS[len(launch.partial) :]
        return cut(rest[:100], interrupted()) if len(rest) > 100 else answer(rest)

    out = run(plan(A), {A: flaky})
    whole(out, target=A)
    assert out.fallbacks == []
    assert out.outcomes.count("provider_interrupted") == len(out.launches) - 1


def test_what_fails_on_the_way_to_the_next_target_does_not_hide_the_break():
    upstreams = {A: [cut(HALF, interrupted())], B: [dies(overloaded())], C: carries_on(WORDS)}
    out = run(plan(A, B, C), upstreams)
    whole(out, target=C)
    assert out.fallbacks == [Fallback(A, C, Code.PROVIDER_INTERRUPTED, keep=True)]


def test_a_fresh_answer_that_breaks_is_continued_and_not_the_discarded_one():
    other = WORDS.replace("ledger", "notebook")
    upstreams = {
        A: [cut(HALF, interrupted())],
        B: [cut(other[:200], interrupted())],
        C: carries_on(other),
    }
    out = run(plan(A, B, C), upstreams)
    assert out.text == other
    assert out.launches[2][1].partial == other[:200].rstrip()
    assert [f.keep for f in out.fallbacks] == [False, True]


# F12 to F17


def test_f12_context_length_gets_one_attempt_and_the_fallback():
    out = run(
        plan(A, B),
        {
            A: [dies(Fault(Code.CONTEXT_LENGTH, "too long", remedy="fallback"))],
            B: [answer(WORDS)],
        },
    )
    whole(out)
    assert out.targets == [A, B]


@pytest.mark.parametrize("code", [Code.CONTENT_POLICY, Code.BAD_REQUEST])
def test_f13_what_no_target_can_mend_is_a_clear_error_after_one_attempt(code):
    out = run(
        plan(A, B), {A: [dies(Fault(code, "the vendor says why", remedy="none"))], B: [SILENCE]}
    )
    assert (out.failed.code, out.failed.message) == (code, "the vendor says why")
    assert out.failed.retryable is False
    assert out.targets == [A]


def test_f13_a_refusal_before_text_is_an_error_and_after_text_a_finish():
    refusal = Finish(FinishReason.CONTENT_FILTER)
    before = run(plan(A, B), {A: [answer("", finish=refusal)], B: [SILENCE]})
    assert before.failed.code is Code.CONTENT_POLICY
    assert before.targets == [A]
    for script in (
        answer(HALF, finish=refusal),
        cut(HALF, Fault(Code.CONTENT_POLICY, "no", remedy="none")),
    ):
        after = run(plan(A, B), {A: [script], B: [SILENCE]})
        assert after.text == HALF
        assert after.done.finish_reason is FinishReason.CONTENT_FILTER
        assert after.targets == [A]


def test_f13_a_refusal_to_go_on_ends_the_answer_though_a_hedge_runs_beside_it():
    refusal = dies(Fault(Code.CONTENT_POLICY, "no", remedy="none"), at=9)
    out = run(plan(A, B, C), {A: [cut(HALF, interrupted())], B: [refusal], C: [SILENCE]})
    assert out.done.finish_reason is FinishReason.CONTENT_FILTER
    assert out.aborted == {3}


@EVERYWHERE
@pytest.mark.parametrize("flag", [True, False])
def test_f14_a_refused_prefill_moves_to_the_next_form_and_hides_nothing(can_unsay, flag):
    def refuses(launch):
        if launch.form is Form.PREFILL:
            fault = Fault(Code.BAD_REQUEST, "no prefill", remedy="none", prefill_refused=flag)
            return dies(fault)
        return carries_on(WORDS)(launch)

    out = run(
        plan(A, B, form=Form.PREFILL, can_unsay=can_unsay),
        {A: [cut(HALF, interrupted())], B: refuses},
    )
    whole(out)
    assert out.fallbacks == [Fallback(A, B, Code.PROVIDER_INTERRUPTED, keep=True)]
    assert [launch.form for _, launch in out.launches[1:]] == [Form.PREFILL, Form.TURN]
    assert out.launches[2][0] - out.launches[1][0] == pytest.approx(0.05)


def test_f15_an_outage_costs_a_handful_of_attempts_and_ends_within_30_s():
    breakers, hedges = Breakers(10.0, random.Random(7).random), usual_hedges()
    wasted, back = 0, None
    for n in range(40):
        begin = 1000.0 + 3.0 * n
        down = begin < 1060.0

        def primary(launch, begin=begin):
            return dies(overloaded()) if begin < 1060.0 else answer("from A")

        sim = Sim(
            plan(A, B),
            {A: primary, B: [answer("from B")]},
            breakers=breakers,
            hedges=hedges,
            now=begin,
        )
        out = sim.run()
        assert out.done.finish_reason is FinishReason.STOP
        wasted += out.targets.count(A) if down else 0
        if not down and back is None and out.text == "from A":
            back = begin
    assert wasted <= 14
    assert back is not None
    assert back - 1060.0 <= 30.0


@pytest.mark.parametrize("finished", [True, False])
def test_f17_an_empty_answer_counts_as_failed(finished):
    empty = Script(((0.1, (Served("x"), STOP) if finished else (ALIVE,)),), 0.2)
    out = run(plan(A, B), {A: [empty], B: [answer(WORDS)]})
    whole(out)
    assert out.targets[-1] == B
    assert "provider_error" in out.outcomes


def test_f17_empty_with_finish_length_is_done_length():
    out = run(plan(A, B), {A: [answer("", finish=Finish(FinishReason.LENGTH))], B: [SILENCE]})
    assert out.done.finish_reason is FinishReason.LENGTH
    assert out.text == ""


# F20


def test_f20_every_target_fails_before_text():
    out = run(plan(A, B), {A: [dies(overloaded())], B: [dies(interrupted())]})
    assert out.failed.code is Code.PROVIDERS_EXHAUSTED
    assert out.failed.retryable is True
    assert out.targets == [A, A, B, B]
    assert len(out.failed.attempts) == 4


def test_f20_every_target_fails_after_text():
    out = run(
        plan(A, B), {A: [cut(HALF, interrupted()), dies(overloaded())], B: [dies(overloaded())]}
    )
    assert out.failed.code is Code.PROVIDERS_EXHAUSTED
    assert out.text == HALF


def test_f20_nothing_is_retryable_where_no_fault_passes():
    no = Fault(Code.PROVIDER_AUTH, "bad key", remedy="fallback")
    out = run(plan(A, B), {A: [dies(no)], B: [dies(no)]})
    assert (out.failed.code, out.failed.retryable) == (Code.PROVIDERS_EXHAUSTED, False)
    alone = run(plan(A), {A: [dies(no)]})
    assert (alone.failed.code, alone.failed.message) == (Code.PROVIDER_AUTH, "bad key")


def test_when_every_target_is_rate_limited_the_shortest_wait_is_waited_once():
    out = run(plan(A, B), {A: [dies(limited(9.0))], B: only(dies(limited(2.0)), answer(WORDS))})
    whole(out)
    assert out.targets == [A, B, B]
    never = run(plan(A, B), {A: [dies(limited(60.0))], B: [dies(limited(40.0))]})
    assert never.failed.code is Code.PROVIDERS_EXHAUSTED
    assert never.failed.retry_after == pytest.approx(40.0)
    first = run(
        plan(A, B), {A: only(dies(limited(3.2)), answer(WORDS)), B: [dies(limited(60.0), at=1)]}
    )
    whole(first, target=A)
    assert first.targets == [A, B, A]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_attempts_never_exceed_their_bound(most):
    out = run(plan(A, B, C, max_attempts=most), {t: [dies(overloaded())] for t in (A, B, C)})
    assert len(out.launches) == most


def test_open_breakers_are_skipped_and_all_open_the_longest_rested_is_tried():
    breakers = usual_breakers()

    def open_breaker(target, at):
        for _ in range(5):
            breakers.failed(breakers.enter(target, at), Code.PROVIDER_OVERLOADED, at)

    open_breaker(A, 999.0)
    out = Sim(plan(A, B), {A: [SILENCE], B: [answer(WORDS)]}, breakers=breakers).run()
    whole(out)
    assert out.targets == [B]
    assert out.fallbacks == [Fallback(A, B, Code.PROVIDER_OVERLOADED, keep=True)]
    assert [each.provider for each in out.done.attempts] == [B.provider], "calls, and no other"
    open_breaker(B, 998.0)
    out = Sim(plan(A, B), {A: [SILENCE], B: [answer(WORDS)]}, breakers=breakers).run()
    assert out.targets == [B]


def test_a_probe_is_one_attempt_and_not_a_ladder():
    breakers = usual_breakers()
    for _ in range(5):
        breakers.failed(breakers.enter(A, 900.0), Code.PROVIDER_OVERLOADED, 900.0)
    out = Sim(plan(A, B), {A: [dies(overloaded())], B: [answer(WORDS)]}, breakers=breakers).run()
    assert out.targets == [A, B]


# F21, F22: the seam


@EVERYWHERE
def test_f21_repeated_last_words_are_removed(can_unsay):
    def repeats(launch):
        return answer(WORDS[len(launch.partial) - 30 :] if launch.partial else WORDS)

    out = run(plan(A, B, can_unsay=can_unsay), {A: [cut(HALF, interrupted())], B: repeats})
    whole(out)
    assert [f.keep for f in out.fallbacks] == [True]


@EVERYWHERE
def test_f21_an_answer_that_starts_over_is_shown_from_where_it_passes_what_stands(can_unsay):
    out = run(plan(A, B, can_unsay=can_unsay), {A: [cut(HALF, interrupted())], B: [answer(WORDS)]})
    whole(out)
    assert [f.keep for f in out.fallbacks] == [True]


def test_f21_another_answer_from_the_start_takes_the_place_of_the_first():
    other = WORDS.replace("ledger", "notebook")
    out = run(plan(A, B), {A: [cut(HALF, interrupted())], B: [answer(other)]})
    assert out.text == other
    assert [f.keep for f in out.fallbacks] == [False]


def test_f21_where_text_cannot_be_unsaid_a_diverging_answer_ends_in_an_error():
    other = WORDS.replace("ledger", "notebook")
    out = run(plan(A, B, can_unsay=False), {A: [cut(HALF, interrupted())], B: [answer(other)]})
    assert out.failed.code is Code.PROVIDER_INTERRUPTED
    assert out.text == HALF
    assert out.fallbacks == []


@EVERYWHERE
def test_f21_what_cannot_be_joined_with_certainty_is_asked_from_the_start(can_unsay):
    laughs = "ha ha ha ha ha, he laughed"
    out = run(
        plan(A, B, can_unsay=can_unsay),
        {A: [cut(laughs[:8], interrupted())], B: carries_on(laughs)},
    )
    assert out.text == laughs
    assert out.launches[-1][1].form is Form.RESTART
    assert out.fallbacks == [Fallback(A, B, Code.PROVIDER_INTERRUPTED, keep=True)]


def test_f21_what_is_held_when_a_continuation_breaks_is_dropped():
    def breaks_while_held(launch):
        return cut(HALF[-20:], interrupted())

    out = run(
        plan(A, B, C),
        {A: [cut(HALF, interrupted())], B: breaks_while_held, C: carries_on(WORDS)},
    )
    whole(out, target=C)
    assert [f.to for f in out.fallbacks] == [C]


def test_f21_a_restart_that_breaks_before_it_passed_what_was_shown_emits_nothing():
    out = run(
        plan(A, B, C, form=Form.RESTART),
        {
            A: [cut(HALF, interrupted())],
            B: [cut(HALF[:80], interrupted())],
            C: [answer(WORDS)],
        },
    )
    whole(out, target=C)
    assert len(out.fallbacks) == 1


@FORMS
def test_f21_white_space_at_the_seam_stands_once(form):
    for text, shown in (
        ("One.\n\nTwo and three.", "One.\n\n"),
        ("alpha  beta", "alpha "),
        ("def f():\n    return 1\n", "def f():\n  "),
    ):
        out = run(plan(A, B, form=form), {A: [cut(shown, interrupted())], B: carries_on(text)})
        assert out.text == text
        assert not out.launches[1][1].partial.endswith((" ", "\n"))


def test_f22_half_a_tool_call_is_no_call_and_a_whole_one_ends_the_answer():
    broken = run(
        plan(A, B),
        {
            A: [cut(HALF, interrupted())],
            B: [Script(((0.1, (CALL, Finish(FinishReason.TOOL_CALLS))),), 0.2)],
        },
    )
    assert broken.calls == [CALL]
    assert broken.done.finish_reason is FinishReason.TOOL_CALLS
    called = Script(((0.1, (Text("Let me look. "), CALL)),), 0.2, interrupted())
    out = run(plan(A, B), {A: [called], B: [SILENCE]})
    assert out.calls == [CALL]
    assert out.done.finish_reason is FinishReason.TOOL_CALLS
    assert out.targets == [A]


def test_f22_broken_reasoning_is_discarded_where_it_can_be():
    thinks = Script(((0.1, (Reasoning("first thought"),)),), 0.2, interrupted())
    then = Script(((0.1, (Reasoning("second"), Text(WORDS), STOP)),), 0.2)
    out = run(plan(A, B), {A: [thinks], B: [then]})
    whole(out)
    assert out.reasoning == "second"
    assert out.fallbacks == [Fallback(A, B, Code.PROVIDER_INTERRUPTED, keep=False)]
    again = run(plan(A), {A: only(thinks, then)})
    assert again.fallbacks == [Fallback(A, A, Code.PROVIDER_INTERRUPTED, keep=False)]


def test_f22_broken_reasoning_stays_alone_where_it_cannot_be_unsaid():
    thinks = Script(((0.1, (Reasoning("first thought"),)),), 0.2, interrupted())
    then = Script(((0.1, (Reasoning("second"), Text(WORDS), STOP)),), 0.2)
    out = run(plan(A, B, can_unsay=False), {A: [thinks], B: [then]})
    whole(out)
    assert out.reasoning == "first thought"
    assert [f.keep for f in out.fallbacks] == [True]


def test_f22_reasoning_of_a_continuation_is_not_mixed_into_text():
    def thinks_again(launch):
        return Script(((0.1, (Reasoning("hm"), Text(WORDS[len(launch.partial) :]), STOP)),), 0.2)

    out = run(plan(A, B), {A: [cut(HALF, interrupted())], B: thinks_again})
    whole(out)
    assert out.reasoning == ""


# F24: cancel


@pytest.mark.parametrize("abandoned", [False, True])
def test_f24_a_cancel_in_every_phase_aborts_everything_and_ends_once(abandoned):
    cases = {
        "before the first token": {A: [SILENCE], B: [SILENCE]},
        "mid-stream": {A: [answer(WORDS, gap=10)], B: [SILENCE]},
        "while a retry waits": {A: [dies(limited(2.9))], B: [SILENCE]},
        "while joining": {A: [cut(HALF, interrupted())], B: [SILENCE]},
        "lingering": {A: [Script(((0.9, (Text("x"), STOP)),))], B: [SILENCE]},
    }
    for name, upstreams in cases.items():
        out = run(plan(A, B), upstreams, cancel_at=1.5, abandoned=abandoned)
        assert out.at == 1.5, name
        if abandoned:
            assert out.failed.code is Code.ABANDONED, name
        else:
            assert out.done.finish_reason is FinishReason.CANCELLED, name
    out = run(plan(A, B), {A: [SILENCE], B: [SILENCE]}, cancel_at=9.0, abandoned=abandoned)
    assert out.aborted == {1, 2}


def test_a_cancelled_probe_is_given_back():
    breakers = usual_breakers()
    for _ in range(5):
        breakers.failed(breakers.enter(A, 900.0), Code.PROVIDER_OVERLOADED, 900.0)
    Sim(plan(A), {A: [SILENCE]}, breakers=breakers).run(cancel_at=1.0)
    assert breakers.admits(A, 1001.0)


# Rules of the request


def test_rescue_off_and_fallback_false_end_a_broken_answer_in_an_error():
    for rules in ({"rescue": "off"}, {"fallback": False}):
        out = run(plan(A, B, **rules), {A: [cut(HALF, interrupted())], B: [SILENCE]})
        assert out.failed.code is Code.PROVIDER_INTERRUPTED
        assert out.failed.retryable is True
        assert out.text == HALF
        assert out.targets == [A]


def test_fallback_false_still_allows_the_same_target_again_before_anything_is_shown():
    out = run(
        plan(A, B, fallback=False), {A: only(dies(overloaded()), answer(WORDS)), B: [SILENCE]}
    )
    whole(out, target=A)
    never = run(plan(A, B, fallback=False), {A: [dies(overloaded())], B: [SILENCE]})
    assert never.targets == [A, A]


def test_rescue_restart_always_shows_a_fresh_answer():
    out = run(plan(A, B, rescue="restart"), {A: [cut(HALF, interrupted())], B: carries_on(WORDS)})
    whole(out)
    assert [f.keep for f in out.fallbacks] == [False]
    fixed = run(
        plan(A, B, rescue="restart", can_unsay=False),
        {A: [cut(HALF, interrupted())], B: carries_on(WORDS)},
    )
    whole(fixed)
    assert [f.keep for f in fixed.fallbacks] == [True]


# Accounts


def test_usage_sums_all_attempts_and_estimates_those_that_were_cut():
    out = run(
        plan(A, B, input_characters=400),
        {A: [cut("x" * 40, interrupted())], B: [answer("and more")]},
    )
    first, second = out.done.attempts
    assert first.usage == Usage(100, 10, estimated=True)
    assert second.usage == Usage(10, 20, estimated=False)
    assert out.done.usage == Usage(110, 30, estimated=True)


def test_a_refused_call_costs_nothing_and_a_count_from_before_a_cut_is_not_believed():
    early = Script(
        ((0.1, (Usage(50, 1, estimated=False, cached_input_tokens=5), Text("y" * 80))),),
        0.2,
        interrupted(),
    )
    out = run(plan(A, B), {A: [dies(limited(60.0))], B: only(early, answer("z"))})
    assert out.done.attempts[0].usage is None
    assert out.done.attempts[1].usage == Usage(50, 20, True, cached_input_tokens=5)


def test_a_later_count_replaces_an_earlier_one_and_timing_is_from_the_begin():
    script = Script(
        (
            (0.5, (Usage(5, 1, estimated=False), Text("hi"))),
            (0.6, (STOP, Usage(5, 9, estimated=False))),
        ),
        0.7,
    )
    out = run(plan(A), {A: [script]})
    assert out.done.usage == Usage(5, 9, estimated=False)
    assert out.done.timing.first_token_ms == 500
    assert out.done.timing.total_ms == 700
    assert out.done.attempts == [EndedAttempt(A.provider, A.model, "ok", 700, usage=out.done.usage)]


# Taking over


def test_a_taken_over_answer_goes_on_without_a_second_start():
    sim = Sim(plan(A, B), {A: carries_on(WORDS), B: [SILENCE]})
    before = EndedAttempt("gpt", "gpt-1", "provider_overloaded", 5)
    out = sim.run(take_over=Shown(HALF, "", ()), attempts=[before])
    assert HALF + out.text == WORDS
    assert out.launches[0][1].partial == HALF.rstrip()
    assert out.done.attempts[0] == before


def test_a_taken_over_answer_with_nothing_shown_begins_afresh():
    out = Sim(plan(A), {A: carries_on(WORDS)}).run(take_over=Shown("", "", ()))
    assert out.text == WORDS
    assert out.fallbacks == []


def test_a_taken_over_answer_that_had_called_a_tool_is_done():
    out = Sim(plan(A), {A: [SILENCE]}).run(take_over=Shown("Let me look. ", "", (CALL,)))
    assert out.done.finish_reason is FinishReason.TOOL_CALLS
    assert out.launches == []


def test_a_taken_over_answer_that_may_not_be_rescued_ends_in_an_error():
    out = Sim(plan(A, rescue="off"), {A: [SILENCE]}).run(take_over=Shown(HALF, "", ()))
    assert out.failed.code is Code.PROVIDER_INTERRUPTED


def test_a_take_over_with_all_attempts_used_up_is_still_allowed_one():
    gone = [EndedAttempt("gpt", "gpt-1", "provider_overloaded", 5)] * 6
    out = Sim(plan(A), {A: carries_on(WORDS)}).run(take_over=Shown(HALF, "", ()), attempts=gone)
    assert isinstance(out.last, Done)


# The hot path


def begun(*heard: Event, log=list) -> Failover:
    policy = Failover(plan(A, B), usual_breakers(), usual_hedges(), lambda: 0.5, log)
    policy.begin(0.0)
    if heard:
        policy.batch(1, heard, 1.0)
    return policy


def test_plain_text_passes_through_as_the_very_same_objects():
    policy = begun(Text("a"))
    events = [Text("b"), Text("c")]
    assert policy.pass_through(1, events, 2.0) is events
    assert policy.deadline == 2.0 + 15.0


def test_a_count_among_text_is_noted_and_no_record():
    policy = begun(Text("a"))
    counted = Usage(7, 9, False)
    assert policy.pass_through(1, [Text("b"), counted, Text("c")], 2.0) == [Text("b"), Text("c")]
    policy.batch(1, [STOP], 3.0)
    assert policy.ended(1, None, 3.0).records[-1].usage == counted


def test_passing_text_on_does_not_read_the_log():
    def log():
        raise AssertionError("the log was read")

    assert begun(Text("a"), log=log).pass_through(1, [Text("b")], 2.0)


@pytest.mark.parametrize(
    ("policy", "attempt", "events"),
    [
        (begun(), 1, [Text("the first")]),
        (begun(Text("a")), 2, [Text("of nobody")]),
        (begun(Text("a")), 1, [Text("b"), STOP]),
        (begun(Text("a")), 1, [Reasoning("hm"), Text("b")]),
        (begun(Text("a")), 1, [ALIVE]),
        (begun(Reasoning("hm")), 1, [Text("the first text")]),
        (begun(Text("")), 1, [Text("the first text")]),
        (begun(CALL), 1, [Text("the first text")]),
        (begun(Text("a"), STOP), 1, [Text("after the finish")]),
    ],
)
def test_whatever_needs_a_decision_does_not_pass(policy, attempt, events):
    assert not policy.pass_through(attempt, events, 2.0)


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.builds(Text, st.text(min_size=1, max_size=3)),
                st.builds(Usage, st.integers(1, 9), st.integers(1, 9), st.just(False)),
            ),
            min_size=1,
            max_size=3,
        ),
        max_size=6,
    )
)
def test_what_passes_has_the_effect_of_a_batch(reads):
    quick, thorough, shown = begun(Text("a")), begun(Text("a")), [[], []]
    for at, read in enumerate(reads, 2):
        shown[0] += quick.pass_through(1, read, at) or quick.batch(1, read, at).records
        shown[1] += thorough.batch(1, read, at).records
        assert quick.deadline == thorough.deadline
    assert shown[0] == shown[1]
    assert quick.cancel(9.0) == thorough.cancel(9.0)
    assert quick.ended_attempts == thorough.ended_attempts


def test_the_first_text_is_the_first_that_is_not_empty():
    policy = begun(Text(""))
    policy.batch(1, [Text("a"), STOP], 3.0)
    assert policy.ended(1, None, 4.0).records[-1].timing.first_token_ms == 3000


@pytest.mark.parametrize("heard", [(), (Text("a"),), (Text("a"), STOP)])
def test_an_answer_is_begun_once(heard):
    policy = begun(*heard)
    assert policy.begin(5.0) == Step()
    assert policy.phase is not Phase.NEW


def test_calls_for_unknown_attempts_are_answered_with_an_empty_step():
    policy = Failover(plan(A), usual_breakers(), usual_hedges(), lambda: 0.5, list)
    policy.begin(0.0)
    for step in (
        policy.batch(7, [Text("x")], 1.0),
        policy.ended(7, None, 1.0),
        policy.ended(7, interrupted(), 1.0),
    ):
        assert (list(step.records), list(step.actions), step.ended) == ([], [], False)


def test_a_plan_without_forms_restarts():
    rules = plan(A, B, forms={})
    out = run(rules, {A: [cut(HALF, interrupted())], B: carries_on(WORDS)})
    whole(out)


def test_targets_that_limit_without_saying_for_how_long_are_not_asked_in_turn_without_a_pause():
    out = run(
        plan(A, B),
        {A: only(cut(HALF, interrupted()), dies(limited(None))), B: [dies(limited(None))] * 3},
    )
    assert out.failed.code is Code.PROVIDERS_EXHAUSTED
    assert out.failed.retry_after is None, "nobody said when"
    broke = out.launches[1][0]
    assert len([at for at, _ in out.launches if broke <= at < broke + 1.0]) <= 2
