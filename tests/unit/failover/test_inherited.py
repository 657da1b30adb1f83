"""What the next owner of an answer makes of what the last one left: its end tells of the whole
answer, of every owner's calls and from the chat's acceptance on."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.account import Account, AttemptNote
from relay.core.errors import Code
from relay.core.events import (
    Done,
    EndedAttempt,
    FinishReason,
    Reasoning,
    Served,
    Start,
    Target,
    Text,
    Usage,
)
from relay.core.records import Records, encode
from relay.failover.inherited import NODE_ENDED, Inherited, inherited_from
from tests.by_default import usual_breakers
from tests.failover_sim import (
    SILENCE,
    A,
    B,
    Script,
    Sim,
    answer,
    carries_on,
    cut,
    dies,
    interrupted,
    overloaded,
    plan,
)

WORDS = (
    "A lighthouse keeper once counted every ship that passed her rock, and wrote their names "
    "in a ledger bound with rope. Years later a storm took the ledger, yet she could still say "
    "each name aloud. Sailors came to listen, because nobody else remembered how many had gone "
    "by, nor that most of them had waved before the fog closed in again behind their sails."
)
FIRST, SECOND, THIRD = WORDS[:88], WORDS[88:179], WORDS[179:270]
"""Each ends with a word's end or with the space behind it."""
ASKED = 400  # characters


def says(pieces: list[str], pace: float = 1.0, usage: Usage | None = None) -> Script:
    """Names its model, says each piece at its pace, and never ends."""
    begin = (0.1, (Served("served"), *([usage] if usage else [])))
    texts = [((number + 1) * pace, (Text(piece),)) for number, piece in enumerate(pieces)]
    return Script((begin, *texts))


def heir(former: Sim, upstreams, after: float = 7.0, **fields) -> Sim:
    """The next owner, on a clock that has nothing to do with the last one's."""
    sim = Sim(former.plan, upstreams, now=random.uniform(5, 9_999))
    sim.inherit(former, after, **fields)
    return sim


def owner(upstreams, seconds: float, *targets: Target, **rules) -> Sim:
    sim = Sim(plan(*targets or (A,), input_characters=ASKED, **rules), upstreams)
    sim.play(seconds)
    return sim


def test_the_end_of_an_answer_that_was_taken_over_tells_of_the_dead_call_and_of_all_the_time():
    former = owner({A: [says([WORDS[:200], WORDS[200:240]], usage=Usage(90, 1, False))]}, 3.5)
    done = heir(former, {A: carries_on(WORDS)}).finish().done
    dead, last = done.attempts
    assert dead == EndedAttempt(A.provider, A.model, "internal", 3500, False, Usage(90, 60, True))
    assert (last.outcome, last.provider) == ("ok", A.provider)
    assert done.timing.first_token_ms == 1000
    assert done.timing.total_ms == 3500 + 7000 + last.ms
    assert done.usage.input_tokens == 90 + last.usage.input_tokens
    assert done.usage.output_tokens == 60 + last.usage.output_tokens
    assert done.usage.estimated is True


def test_each_of_several_owners_is_told_of():
    first = owner({A: [says([FIRST])]}, 2.0)
    second = heir(first, {A: [says([SECOND])]}, 10.0)
    second.play(3.0)
    third = heir(second, {A: [says([THIRD])]}, 10.0)
    third.play(4.0)
    done = heir(third, {A: carries_on(WORDS)}, 10.0).finish().done
    assert [each.outcome for each in done.attempts] == ["internal"] * 3 + ["ok"]
    assert [each.ms for each in done.attempts[:3]] == [2000, 3000, 4000]
    assert [each.usage.output_tokens for each in done.attempts[:3]] == [22, 23, 23]
    assert [each.usage.input_tokens for each in done.attempts[:3]] == [100, 122, 145]
    assert done.timing.first_token_ms == 1000
    assert done.timing.total_ms == 39_000 + done.attempts[3].ms


def test_an_owner_that_died_before_its_call_said_a_word():
    done = heir(owner({A: [SILENCE]}, 4.0), {A: [answer("hello")]}).finish().done
    assert done.attempts[0] == EndedAttempt(
        A.provider, A.model, "internal", 4000, False, Usage(100, 0, True)
    )
    assert done.timing.first_token_ms == done.timing.total_ms - done.attempts[1].ms + 100


def test_an_owner_that_died_before_it_wrote_anything():
    former = Sim(plan(A), {A: [SILENCE]})
    former.now += 2.0
    sim = heir(former, {A: [answer("hello")]}, left=Account())
    done = sim.finish().done
    assert isinstance(sim.out.records[0], Start)
    assert [each.outcome for each in done.attempts] == ["ok"]
    assert done.timing.total_ms == 9000 + done.attempts[0].ms


def test_what_ended_before_the_death_stands_before_what_it_cut_short():
    upstreams = {A: [dies(overloaded())] * 2, B: [says([FIRST])]}
    former = owner(upstreams, 5.0, A, B)
    done = heir(former, {A: [SILENCE], B: carries_on(WORDS)}).finish().done
    assert [(e.provider, e.outcome) for e in done.attempts] == [
        *[(A.provider, "provider_overloaded")] * 2,
        (B.provider, "internal"),
        (B.provider, "ok"),
    ]


def test_the_target_that_was_being_asked_goes_on_and_what_took_the_first_away_is_told():
    former = owner({A: [dies(overloaded())] * 2, B: [SILENCE]}, 3.0, A, B)
    out = heir(former, {A: [SILENCE], B: [answer("hello")]}).finish()
    assert [(f.from_, f.to, f.reason) for f in out.fallbacks] == [(A, B, Code.PROVIDER_OVERLOADED)]


def test_a_target_that_had_taken_over_keeps_the_answer():
    former = owner(
        {A: [cut(FIRST, interrupted())], B: carries_on(WORDS, first=1.0, gap=1.0)}, 6.0, A, B
    )
    assert former.out.fallbacks
    out = heir(former, {A: [SILENCE], B: carries_on(WORDS)}).finish()
    assert out.fallbacks == []
    assert out.done.provider == B.provider


def test_both_calls_of_a_hedge_are_told_of():
    former = owner({A: [SILENCE], B: [SILENCE]}, 10.0, A, B, hedge_after=8.0)
    out = heir(former, {A: [answer("hello")], B: [SILENCE]}).finish()
    first, hedge, last = out.done.attempts
    assert [each.outcome for each in (first, hedge)] == ["internal"] * 2
    assert [(each.provider, each.ms, each.hedge) for each in (first, hedge)] == [
        (A.provider, 10_000, False),
        (B.provider, 2_000, True),
    ]
    assert last.provider == A.provider
    assert out.fallbacks == []


@pytest.mark.parametrize("abandoned", [True, False])
def test_an_answer_that_is_only_to_be_ended_tells_as_much(abandoned):
    former = owner({A: [says([FIRST])]}, 2.0)
    sim = Sim(former.plan, {A: [SILENCE]}, now=50.0)
    account = former.policy.account(former.now)
    sim.policy.inherit(inherited_from(former.log.chunks(), account, 40.0, 2000))
    (end,) = sim.policy.cancel(50.0, abandoned=abandoned).records
    (attempt,) = end.attempts
    assert (attempt.outcome, attempt.ms, attempt.usage) == ("internal", 2000, Usage(100, 22, True))
    if isinstance(end, Done):
        assert (end.timing.first_token_ms, end.timing.total_ms) == (1000, 10_000)
        assert (end.model, end.finish_reason) == ("served", FinishReason.CANCELLED)


def test_what_was_said_before_a_call_began_anew_is_not_counted_as_its_words():
    scripts = [cut("a" * 40, interrupted()), says(["b" * 80])]
    former = owner({A: scripts}, 6.0, rescue="restart")
    done = heir(former, {A: [answer("c" * 20)]}, 1.0).finish().done
    assert [each.usage.output_tokens for each in done.attempts[:2]] == [10, 20]


def test_words_that_were_held_back_count():
    thinks = Script(((0.5, (Text(WORDS[:100]),)), (1.0, (Reasoning("hm" * 50),))))
    former = owner({A: [thinks]}, 2.0)
    account = former.policy.account(former.now)
    (call,) = account.calls
    left = msgspec.structs.replace(account, calls=(msgspec.structs.replace(call, written=800),))
    done = heir(former, {A: carries_on(WORDS)}, left=left).finish().done
    assert done.attempts[0].usage.output_tokens == 200


def test_calls_cut_short_do_not_use_up_what_an_answer_may_try():
    former = owner({A: [says([FIRST])]}, 2.0, max_attempts=2)
    for _ in range(5):
        former = heir(former, {A: [SILENCE]})
        former.play(1.0)
    out = heir(former, {A: [dies(overloaded()), answer(WORDS[88:])]}).finish()
    assert out.text == WORDS[88:]
    assert len(out.done.attempts) == 8


def test_a_handed_over_call_is_draining_and_exact():
    former = owner({A: [says([FIRST])]}, 2.0)
    former.policy.withdraw(former.now, Code.DRAINING)
    out = heir(former, {A: carries_on(WORDS)}).finish()
    first, last = out.done.attempts
    assert (first.outcome, first.ms, last.outcome) == ("draining", 2000, "ok")
    assert out.done.timing.first_token_ms == 1000


def test_an_open_breaker_of_the_next_owner_is_why_the_announced_target_is_not_asked():
    breakers = usual_breakers()
    for _ in range(5):
        breakers.failed(breakers.enter(A, 100.0), Code.PROVIDER_RATE_LIMITED, 100.0)
    former = owner({A: [says([FIRST])], B: [SILENCE]}, 2.0, A, B)
    sim = Sim(former.plan, {A: [SILENCE], B: carries_on(WORDS)}, now=101.0, breakers=breakers)
    sim.inherit(former, 3.0)
    (fallback,) = sim.finish().fallbacks
    assert (fallback.from_, fallback.to, fallback.reason) == (A, B, Code.PROVIDER_RATE_LIMITED)


def left_by_an_earlier_version(text: str, attempts: tuple[EndedAttempt, ...] = ()) -> Inherited:
    records = Records()
    for record in (Start("s", A.provider, A.model), Text(text)):
        records.append(*encode(record))
    return inherited_from(records.chunks(), Account(attempts), 0.0, 4000)


def test_of_an_owner_that_noted_no_calls_one_is_taken_for_granted():
    (dead,) = left_by_an_earlier_version("x" * 80).cut_short(ASKED)
    assert dead == EndedAttempt(A.provider, A.model, "internal", 0, False, Usage(100, 20, True))


def test_what_its_attempts_told_of_is_not_counted_twice():
    told = EndedAttempt(A.provider, A.model, "provider_error", 5, usage=Usage(9, 15, False))
    (dead,) = left_by_an_earlier_version("x" * 80, (told,)).cut_short(ASKED)
    assert dead.usage.output_tokens == 5


MOMENTS = st.floats(0.05, 12.0)
WAYS = st.lists(st.sampled_from(["says", "silent", "dies", "cut"]), min_size=1, max_size=3)


def scripts(ways: list[str], text: str):
    """Upstreams that know what was said and go on, each time in another way."""
    left = list(ways)

    def upstream(launch) -> Script:
        rest = text[len(launch.partial) :]
        match left.pop(0) if left else "ends":
            case "says":
                return says([rest[at : at + 9] for at in range(0, min(90, len(rest)), 9)], 0.3)
            case "silent":
                return SILENCE
            case "dies":
                return dies(overloaded(), at=0.5)
            case "cut":
                return cut(rest[:40], interrupted(), first=0.7)
        return answer(rest)

    return upstream


@given(st.lists(st.tuples(WAYS, MOMENTS), min_size=1, max_size=4), st.booleans())
def test_whenever_owners_die_every_call_is_told_once_and_time_counts_from_acceptance(owners, two):
    targets = (A, B) if two else (A,)
    rules = plan(*targets, input_characters=ASKED, max_attempts=20)
    launched, elapsed, sim, texts_at = 0, 0.0, None, []
    for ways, seconds in [*owners, (["ends"], None)]:
        upstreams = {target: scripts(ways, WORDS) for target in targets}
        former, sim = sim, Sim(rules, upstreams)
        begun = sim.now
        if former is not None:
            sim.inherit(former, 2.5)
            elapsed += 2.5
        sim.finish() if seconds is None else sim.play(seconds)
        launched += len(sim.out.launches)
        texts_at += [elapsed] if any(isinstance(r, Text) for r in sim.out.records) else []
        elapsed += sim.now - begun
        if sim.out.records and isinstance(sim.out.records[-1], Done):
            break
    done = sim.out.done
    assert len(done.attempts) == launched
    assert sum(each.outcome in NODE_ENDED for each in done.attempts) <= 2 * len(owners)
    assert done.timing.total_ms == pytest.approx(elapsed * 1000, abs=2)
    assert texts_at[0] * 1000 - 2 <= done.timing.first_token_ms <= done.timing.total_ms
    assert all(each.ms <= done.timing.total_ms for each in done.attempts)


def test_an_account_is_the_same_after_it_was_kept_as_json():
    account = Account(
        (), (AttemptNote("gpt", "m", 1, 2, 3, True, 4, Usage(1, 2, True)),), 5, 6, "s", None
    )
    kept = msgspec.json.decode(msgspec.json.encode(account), type=Account)
    assert kept == account
    assert msgspec.json.decode(b"{}", type=Account).calls is None
