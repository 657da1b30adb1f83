"""Plays one cell and judges it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from lab.faults.canon import TEXT
from lab.faults.matrix import Profile, healthy_route
from lab.faults.scenario import Played, Scenario
from lab.faults.seen import Seen

HANG_SECONDS = 120.0
"""Seconds, to be scaled, after which a cell counts as hung, whatever its fault."""

CLOSED_SECONDS = 2.0
"""Seconds after the end within which every upstream call must be closed."""


async def play(played: Played) -> None:
    """Play the cell, then judge it; failures are added to `played.misses`."""
    patience = 30 + played.profile.seconds(HANG_SECONDS)
    try:
        async with asyncio.timeout(patience):
            if played.scenario.play is not None:
                await played.scenario.play(played)
            else:
                played.seen = await played.client().read()
                judge(played)
            await _closed(played)
            await _serves_on(played)
    except TimeoutError:
        played.miss(f"hangs: no end after {patience:g} s")
    except Exception as error:
        played.miss(f"{type(error).__name__}: {error}")
    played.misses.extend(played.cast.defects)


def judge(played: Played) -> None:
    """Compare what was seen with what must have happened."""
    scenario, seen = played.scenario, played.seen
    played.misses.extend(seen.misses)
    if seen.terminal is None:
        played.miss("no terminal frame")
        return
    played.misses.extend(_outcome(played))
    played.misses.extend(_attempts(played))
    bound = played.profile.bound(max(scenario.within, _at_least(played.profile)))
    if seen.seconds > bound:
        played.miss(f"took {seen.seconds:.1f} s, must be within {bound:.1f} s")
    if scenario.continued and not _offered(played):
        played.miss("no model was given the unfinished text")
    for check in scenario.checks:
        played.misses.extend(check(played))


def _at_least(profile: Profile) -> float:
    return 0.0 if profile.scale == 1 else 1.0


def _outcome(played: Played) -> Iterator[str]:
    scenario, seen = played.scenario, played.seen
    match scenario.outcome:
        case "answer":
            yield from _answer(played, "stop")
        case "tool_call":
            yield from _answer(played, "tool_calls")
            yield from _whole_calls(scenario, seen)
        case "filtered":
            yield from _answer(played, "content_filter")
        case "error":
            if seen.code != scenario.code:
                yield f"ended {seen.terminal}, not in {scenario.code}"
            if not scenario.text.startswith(seen.text):
                yield f"the shown text is not the beginning of the answer: {seen.text[-60:]!r}"
        case "cancelled":
            if seen.finish != "cancelled":
                yield f"ended {seen.terminal}, not cancelled"


def _answer(played: Played, finish: str) -> Iterator[str]:
    scenario, seen = played.scenario, played.seen
    assert seen.terminal is not None
    if seen.finish != finish:
        yield f"ended {seen.terminal}, not in {finish}"
        return
    if seen.text != scenario.text:
        yield f"text differs {_difference(scenario.text, seen.text)}"
    role = played.cast.role_of(seen.terminal["model"])
    if role not in scenario.by or not str(seen.terminal["model"]).endswith("-served"):
        yield f"done names {seen.terminal['model']} ({role}), not one of {scenario.by}"
    yield from _named(played, role)
    yield from _usage(played)


def _named(played: Played, role: str | None) -> Iterator[str]:
    """Check that the frames before `done` named the model that answered."""
    if played.cell.transport == "chat":
        return
    seen = played.seen
    if played.cast.role_of(seen.model) != role:
        yield f"the frames name {seen.model}, the answer is {role}'s"
    assert seen.terminal is not None
    if seen.terminal["provider"] != played.cell.vendor:
        yield f"done names the provider {seen.terminal['provider']}"


def _usage(played: Played) -> Iterator[str]:
    usage = (played.seen.terminal or {}).get("usage") or {}
    if played.cell.transport == "chat":
        if not usage.get("total_tokens"):
            yield f"no usage: {usage}"
    elif not isinstance(usage.get("estimated"), bool):
        yield f"usage is neither known nor marked estimated: {usage}"
    elif played.seen.text and not usage["output_tokens"]:
        yield f"usage counts no output: {usage}"


def _whole_calls(scenario: Scenario, seen: Seen) -> Iterator[str]:
    calls = [(call["name"], call["arguments"]) for call in seen.calls]
    if calls != list(scenario.calls):
        yield f"tool calls: {calls}"
    if len({call["call_id"] for call in seen.calls}) != len(calls):
        yield f"calls that share an id: {seen.calls}"


def _attempts(played: Played) -> Iterator[str]:
    scenario, cast, seen = played.scenario, played.cast, played.seen
    for role, (least, most) in scenario.attempts.items():
        made = cast.attempts(role)
        if not least <= made <= most:
            yield f"{made} attempts on the {role}, must be {least} to {most}"
    made = len(cast.requests)
    if made > scenario.total:
        yield f"{made} attempts, must be at most {scenario.total}"
    told = (seen.terminal or {}).get("attempts")
    if played.cell.transport != "chat" and len(told or ()) != made:
        yield f"{made} attempts at the upstream, {len(told or ())} in the terminal frame"


def _offered(played: Played) -> bool:
    return any(request.partial for request in played.cast.requests)


async def _closed(played: Played) -> None:
    """Check that every upstream call is closed soon after the end."""
    try:
        async with asyncio.timeout(CLOSED_SECONDS + played.profile.allowance):
            for request in played.cast.requests:
                await request.closed.wait()
    except TimeoutError:
        played.miss("an upstream call was left open")


async def _serves_on(played: Played) -> None:
    seen = await played.client(healthy_route(played.cell.vendor)).read()
    if seen.text != TEXT or seen.misses or seen.finish != "stop":
        played.miss(f"afterwards a healthy chat: {seen.terminal} {seen.misses}")


def _difference(wanted: str, got: str) -> str:
    pairs = zip(wanted, got, strict=False)
    at = next((n for n, (w, g) in enumerate(pairs) if w != g), min(len(wanted), len(got)))
    return (
        f"at character {at}: wanted {wanted[max(0, at - 12) : at + 24]!r}, "
        f"got {got[max(0, at - 12) : at + 24]!r} ({len(wanted)} and {len(got)} characters)"
    )
