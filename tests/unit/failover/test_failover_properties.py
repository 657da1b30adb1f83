"""What holds whatever happens: random routes, faults, cut points, chunk splits, texts that
repeat themselves, and cancels. `Sim` checks one terminal record, every attempt ended or
aborted, attempts within their bound, and silence after the end."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.core.errors import Code, Fault
from relay.core.events import ALIVE, Done, Fallback, Finish, FinishReason, Reasoning, Target, Text
from relay.core.provider import Form
from relay.core.records import Shown
from relay.failover.plan import Launch
from tests.by_default import usual_breakers
from tests.failover_sim import STOP, A, B, C, Script, Sim, plan, split

UNITS = [
    "ha ",
    "the end. ",
    "    x += 1\n",
    "}\n",
    "谢谢",
    "今天天气很好。",
    "👍🏽",
    "one two three four ",
]
TEXTS = st.lists(st.sampled_from(UNITS), min_size=1, max_size=12).map("".join)
FAULTS = st.sampled_from(
    [
        Fault(Code.PROVIDER_INTERRUPTED, "cut"),
        Fault(Code.PROVIDER_OVERLOADED, "503"),
        Fault(Code.PROVIDER_ERROR, "500"),
        Fault(Code.PROVIDER_RATE_LIMITED, "429"),
        Fault(Code.PROVIDER_RATE_LIMITED, "429", retry_after=2.0),
        Fault(Code.PROVIDER_RATE_LIMITED, "429", retry_after=60.0),
        Fault(Code.PROVIDER_AUTH, "401", remedy="fallback"),
        Fault(Code.CONTEXT_LENGTH, "long", remedy="fallback"),
    ]
)
ANY_FAULT = st.one_of(
    FAULTS,
    st.sampled_from(
        [
            Fault(Code.CONTENT_POLICY, "no", remedy="none"),
            Fault(Code.BAD_REQUEST, "no", remedy="none"),
            Fault(Code.BAD_REQUEST, "no prefill", remedy="none", prefill_refused=True),
        ]
    ),
)
RULES = st.fixed_dictionaries(
    {
        "form": st.sampled_from(list(Form)),
        "can_unsay": st.booleans(),
        "rescue": st.sampled_from(["continue", "continue", "restart", "off"]),
        "fallback": st.sampled_from([True, True, True, False]),
        "max_attempts": st.integers(1, 7),
        "hedge_after": st.sampled_from([0.0, 0.5, 8.0]),
    }
)
ROUTES = st.sampled_from([(A,), (A, B), (A, B, C)])
LIVELY = settings(
    max_examples=2 * settings.default.max_examples,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def behaviours(draw):
    """How one attempt goes: where it breaks (None: not at all), how, how it is cut into
    chunks, what it repeats, and what stands between the text."""
    return {
        "cut": draw(st.one_of(st.none(), st.floats(0, 1))),
        "fault": draw(st.one_of(st.none(), ANY_FAULT)),
        "size": draw(st.integers(1, 20)),
        "first": draw(st.sampled_from([0.0, 0.3, 1.0, 9.0])),
        "repeats": draw(st.sampled_from([0, 0, 0, 3, 12, 40, 10_000])),
        "thinks": draw(st.booleans()),
        "ends": draw(st.sampled_from(["finish", "open", "returns"])),
    }


def scripted(text: str, how: dict, launch: Launch) -> Script:
    """What an upstream does that would give `text`, misbehaving as told."""
    begin = max(0, len(launch.partial) - how["repeats"]) if launch.partial else 0
    said = text[begin:]
    breaks = how["cut"] is not None
    if breaks:
        said = said[: int(how["cut"] * len(said))]
    at = how["first"]
    batches = [(at, (Reasoning("hm "), ALIVE))] if how["thinks"] else []
    for piece in split(said, how["size"]):
        batches.append((at, (Text(piece),)))
        at += 0.01
    if breaks:
        return Script(tuple(batches), at if how["fault"] else None, how["fault"])
    if how["ends"] != "returns":
        batches.append((at, (STOP,)))
    return Script(tuple(batches), None if how["ends"] == "open" else at + 0.01)


def world(text: str, ways: list[dict], other: str | None = None):
    """Upstreams that follow the behaviours in turn; the last one repeats."""
    left = list(ways)

    def upstream(target: Target):
        def run(launch: Launch) -> Script:
            how = left.pop(0) if len(left) > 1 else left[0]
            mine = other if other is not None and target == B else text
            if not mine.startswith(launch.partial):
                mine = launch.partial + " " + mine
            return scripted(mine, how, launch)

        return run

    return {target: upstream(target) for target in (A, B, C)}


@LIVELY
@given(ROUTES, RULES, TEXTS, st.lists(behaviours(), min_size=1, max_size=7))
def test_text_of_agreeing_upstreams_is_whole_or_honestly_ended(route, rules, text, ways):
    exact = [{**how, "repeats": 0 if how["repeats"] < 10_000 else 10_000} for how in ways]
    out = Sim(plan(*route, **rules), world(text, exact)).run()
    assert text.startswith(out.text)
    if isinstance(out.last, Done) and out.last.finish_reason is FinishReason.STOP:
        assert out.text.rstrip() == text.rstrip()


@LIVELY
@given(ROUTES, RULES, TEXTS, TEXTS, st.lists(behaviours(), min_size=1, max_size=7))
def test_whatever_upstreams_say_the_answer_ends_once(route, rules, text, other, ways):
    Sim(plan(*route, **rules), world(text, ways, other)).run()


@LIVELY
@given(ROUTES, RULES, TEXTS, TEXTS, st.lists(behaviours(), min_size=1, max_size=7))
def test_text_that_cannot_be_unsaid_never_is(route, rules, text, other, ways):
    rules = {**rules, "can_unsay": False}
    out = Sim(plan(*route, **rules), world(text, ways, other)).run()
    assert all(record.keep for record in out.records if isinstance(record, Fallback))


@LIVELY
@given(ROUTES, RULES, TEXTS, st.lists(behaviours(), min_size=1, max_size=7), st.floats(0, 30))
def test_a_cancel_at_any_time_ends_the_answer_at_once(route, rules, text, ways, at):
    sim = Sim(plan(*route, **rules), world(text, ways))
    out = sim.run(cancel_at=at)
    assert out.at <= at + 1e-6
    assert all(sim.breakers.state(target, sim.now).state != "half_open" for target in route)


@LIVELY
@given(ROUTES, RULES, TEXTS, st.floats(0, 1), st.lists(behaviours(), min_size=1, max_size=7))
def test_a_take_over_from_any_point_is_honest(route, rules, text, point, ways):
    shown = text[: int(point * len(text))]
    exact = [{**how, "repeats": 0, "thinks": False} for how in ways]
    out = Sim(plan(*route, **rules), world(text, exact)).run(take_over=Shown(shown, "", ()))
    discarded = any(isinstance(r, Fallback) and not r.keep for r in out.records)
    assert text.startswith(out.text if discarded else shown + out.text)


@LIVELY
@given(
    RULES,
    TEXTS,
    st.lists(st.lists(behaviours(), min_size=1, max_size=4), min_size=5, max_size=30),
)
def test_a_process_with_failing_targets_never_loses_a_probe(rules, text, answers):
    breakers, now = usual_breakers(), 0.0
    for ways in answers:
        sim = Sim(plan(A, B, **rules), world(text, ways), breakers=breakers, now=now)
        sim.run()
        now = sim.now + 1.0
    rested = now + 1_000.0
    assert all(breakers.admits(target, rested - 900.0) for target in (A, B))


def test_the_finish_reason_is_the_upstreams_own():
    for reason in (FinishReason.LENGTH, FinishReason.STOP, FinishReason.CONTENT_FILTER):
        script = Script(((0.1, (Text("x"), Finish(reason))),), 0.2)
        out = Sim(plan(A), {A: [script]}).run()
        assert out.done.finish_reason is reason
