"""F01 to F07, F12, F13, F16, F17 and F20: faults before any text is shown."""

from __future__ import annotations

from collections.abc import Iterator

from lab.faults.canon import TOKENS, spoken, whole
from lab.faults.matrix import Profile
from lab.faults.scenario import Fault, Played, Scenario
from lab.upstreams.request import Request
from lab.upstreams.scripts import in_turn
from lab.upstreams.steps import Counts, End, Finish, Hang, Pause, Refuse, Reset, Step

LIMITED = Refuse("rate_limit")
DOWN = Refuse("overloaded")


def _limited_once(p: Profile, vendor: str) -> Scenario:
    wait = p.seconds(2)

    def waited(played: Played) -> Iterator[str]:
        first, second = played.cast.parts["primary"].requests[:2]
        pause = second.arrived - first.arrived
        if pause < wait:
            yield f"asked again after {pause:.2f} s, must be no sooner than {wait:g} s"

    return Scenario(
        {
            "primary": in_turn([Refuse("rate_limit", retry_after=wait)], whole()),
            "fallback": whole(),
        },
        by=("primary",),
        attempts={"primary": (2, 2), "fallback": (0, 0)},
        checks=(waited,),
    )


def _in_first_seconds(seconds: float, most: int) -> object:
    def check(played: Played) -> Iterator[str]:
        requests = played.cast.requests
        early = [r for r in requests if r.arrived < requests[0].arrived + seconds]
        if len(early) > most:
            yield f"{len(early)} attempts in {seconds:g} s, must be at most {most}"

    return check


def _limited_for_ever(retry_after: float | None) -> object:
    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(
            {"primary": [Refuse("rate_limit", retry_after=retry_after)], "fallback": whole()},
            attempts={"fallback": (1, 1)},
            checks=(_in_first_seconds(3.0, 4),),  # type: ignore[arg-type]
        )

    return make


def _failed_once(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": in_turn([Refuse("server_error")], whole()), "fallback": whole()},
        by=("primary",),
        attempts={"primary": (2, 2), "fallback": (0, 0)},
    )


def _down(p: Profile, vendor: str) -> Scenario:
    return Scenario({"primary": [DOWN], "fallback": whole()}, attempts={"fallback": (1, 1)})


def _reset(p: Profile, vendor: str) -> Scenario:
    return Scenario({"primary": [Reset()], "fallback": whole()})


def _cut_off(played: Played) -> Iterator[str]:
    (request,) = played.cast.parts["primary"].requests
    if not request.cut_off:
        yield "the call of the silent target was not closed"


def _silent(*before: Counts) -> object:
    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(
            {"primary": [*before, Hang()], "fallback": whole()},
            attempts={"primary": (1, 1), "fallback": (1, 1)},
            within=20,
            checks=(_cut_off,),
        )

    return make


def _slow(p: Profile, vendor: str) -> Scenario:
    def kept(played: Played) -> Iterator[str]:
        slow, hedge = (played.cast.parts[role].requests[0] for role in ("primary", "fallback"))
        if hedge.arrived - slow.arrived < p.seconds(5):
            yield "the slow model was hedged at once"
        if not slow.cut_off:
            yield "the loser ran on after the hedge had won"
        terminal = played.seen.terminal or {}
        told = [attempt.get("hedge", False) for attempt in terminal.get("attempts", ())]
        if told and sorted(told) != [False, True]:
            yield f"the attempts lack the hedge: {told}"

    asked: list[Request] = []

    def slow(request: Request) -> list[Step]:
        asked.append(request)
        return [Pause(p.seconds(20)), *whole()]

    def hedge(request: Request) -> list[Step]:
        """Continues once the losing call is closed, so that it must be closed at once."""
        return [*spoken(TOKENS[:6]), Pause(until=asked[0].closed), *whole(TOKENS[6:])]

    return Scenario(
        {"primary": slow, "fallback": hedge},
        by=("fallback",),
        attempts={"primary": (1, 1), "fallback": (1, 1)},
        within=15,
        checks=(kept,),
    )


def _slow_alone(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [Pause(p.seconds(20)), *whole()], "fallback": [DOWN]},
        by=("primary",),
        attempts={"primary": (1, 1)},
        within=25,
    )


def _too_long(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [Refuse("context_length")], "fallback": whole()},
        attempts={"primary": (1, 1), "fallback": (1, 1)},
    )


def _policy(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [Refuse("policy")], "fallback": whole()},
        outcome="error",
        code="content_policy",
        attempts={"primary": (1, 1), "fallback": (0, 0)},
    )


def _announced(played: Played) -> Iterator[str]:
    if played.cell.transport == "chat":
        return
    told = [(f["to"]["model"], f["reason"], f["keep"]) for f in played.seen.fallbacks]
    wanted = [(played.cast.models["fallback"], "provider_overloaded", True)]
    if told != wanted:
        yield f"fallback frames: {told}, must be {wanted}"


def _honest(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [DOWN], "fallback": whole()},
        attempts={"primary": (1, 5), "fallback": (1, 1)},
        checks=(_announced,),
    )


def _empty(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [Counts(output=0), Finish(), End()], "fallback": whole()},
        attempts={"fallback": (1, 1)},
    )


def _refusal(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [Finish("refusal"), End()], "fallback": whole()},
        outcome="error",
        code="content_policy",
        attempts={"primary": (1, 1), "fallback": (0, 0)},
    )


def _all_down(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [DOWN], "fallback": [Reset()]},
        outcome="error",
        code="providers_exhausted",
        attempts={"primary": (1, 4), "fallback": (1, 4)},
    )


OPENING = (
    Fault("F01", "one 429 with Retry-After: 2", _limited_once, length=3),
    Fault("F02", "429 for ever", _limited_for_ever(None)),  # type: ignore[arg-type]
    Fault("F02 later", "429 for ever, Retry-After: 60", _limited_for_ever(60)),  # type: ignore[arg-type]
    Fault("F03", "one 500", _failed_once),
    Fault("F04", "503 for ever", _down),
    Fault("F05", "reset before headers", _reset),
    Fault("F06", "accepts, then silence", _silent(), length=9),  # type: ignore[arg-type]
    Fault("F06 opened", "headers, then silence", _silent(Counts()), length=9),  # type: ignore[arg-type]
    Fault("F07", "first token after 20 s", _slow, length=9),
    Fault("F07 alone", "the same, and the fallback is down", _slow_alone, length=21),
    Fault("F12", "400 context length", _too_long),
    Fault("F13", "400 content policy", _policy),
    Fault("F16", "503: the frames name who answered", _honest),
    Fault("F17", "200 and a clean end, no content", _empty),
    Fault("F17 refusal", "a model's own refusal", _refusal),
    Fault("F20", "every target fails before text", _all_down),
)
