"""F15 and F24: faults in which the time of an event matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from lab.faults.canon import TEXT, TOKENS, spoken, whole
from lab.faults.matrix import Profile, Role
from lab.faults.play import judge
from lab.faults.scenario import Fault, Played, Scenario
from lab.upstreams.request import Request
from lab.upstreams.steps import Hang, Refuse, Step
from lab.waiting import until

OUTAGE = 60.0
REQUESTS = 20
BACK = 30.0
WASTED = 14
CLOSED = 0.1
"""The limits, in seconds and attempts."""

CROWDED = 0.5
"""Seconds that a busy machine may add to the last of these limits, if it may add any. Less than
the shortest grace, after which an upstream is closed even without a cancel."""


def _outage(p: Profile, vendor: str) -> Scenario:
    ends_at = float("inf")

    def primary(request: Request) -> list[Step]:
        return [Refuse("overloaded")] if time.monotonic() < ends_at else whole()

    async def play(played: Played) -> None:
        nonlocal ends_at
        began = time.monotonic()
        ends_at = began + p.seconds(OUTAGE)
        played.misses.extend(await _during(played, p.seconds(OUTAGE) / REQUESTS))
        await asyncio.sleep(max(0.0, ends_at - time.monotonic()))
        wasted = played.cast.attempts("primary")
        if wasted > WASTED:
            played.miss(f"{wasted} attempts wasted on the dead target, at most {WASTED}")
        back = await _until_back(played, ends_at)
        played.seconds = time.monotonic() - began
        played.note = f"{wasted} wasted, back after {back:.1f} s"

    return Scenario({"primary": primary, "fallback": whole()}, play=play, total=10_000)


async def _during(played: Played, pause: float) -> list[str]:
    asked = []
    for _ in range(REQUESTS):
        asked.append(asyncio.create_task(played.client().read()))
        await asyncio.sleep(pause)
    misses = []
    for n, seen in enumerate(await asyncio.gather(*asked)):
        misses += [f"request {n}: {what}" for what in seen.misses]
        if seen.text != TEXT or seen.finish != "stop":
            misses.append(f"request {n} was not answered: {seen.terminal}")
    return misses


async def _until_back(played: Played, since: float) -> float:
    """Ask once a second until the primary answers; returns the seconds that it took."""
    while True:
        asked = time.monotonic() - since
        seen = await played.client().read()
        if seen.text != TEXT or seen.finish != "stop":
            played.miss(f"not answered after the outage: {seen.terminal}")
        if played.cast.role_of((seen.terminal or {}).get("model")) == "primary":
            return asked
        if asked > played.profile.bound(BACK):
            played.miss(f"not back on the primary {asked:.0f} s after its return")
            return asked
        await asyncio.sleep(played.profile.seconds(1))


async def _asked(played: Played, role: Role) -> None:
    await played.cast.parts[role].arrived.wait()


async def _shown(played: Played, count: int) -> None:
    wanted = "".join(TOKENS[:count])
    await until(lambda: played.seen.text == wanted, within=None)


async def _waiting(played: Played) -> None:
    await _asked(played, "primary")
    await played.cast.parts["primary"].requests[0].closed.wait()
    await asyncio.sleep(0.1)


def _cancelled(
    scripts: Callable[[Profile], dict[Role, list[Step]]],
    moment: Callable[[Played], Awaitable[None]],
    attempts: int,
) -> Callable[[Profile, str], Scenario]:
    """The client cancels at the moment for which `moment` waits."""

    async def play(played: Played) -> None:
        client = played.client()
        reading = asyncio.create_task(client.read())
        if played.cell.transport == "sse":
            await until(lambda: client.seen.stream, within=None)
        played.seen = client.seen
        await moment(played)
        cancelled_at = time.monotonic()
        await client.cancel()
        await _all_closed(played)
        took = time.monotonic() - cancelled_at
        played.note = f"closed after {took * 1000:.0f} ms"
        played.seconds = cancelled_at + took - client.seen.asked_at
        if took > CLOSED + min(played.profile.allowance, CROWDED):
            played.miss(f"upstream closed {took * 1000:.0f} ms after the cancel, not within 100")
        played.seen = await reading
        played.misses.extend(_judged(played))
        await asyncio.sleep(played.profile.seconds(3))
        if (made := len(played.cast.requests)) != attempts:
            played.miss(f"{made} attempts, must be {attempts}")

    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(dict(scripts(p)), outcome="cancelled", play=play)

    return make


async def _all_closed(played: Played) -> None:
    for request in played.cast.requests:
        await request.closed.wait()


def _judged(played: Played) -> Iterator[str]:
    """Check the end. Over chat.completions the request itself is closed, so there is no end to
    see."""
    if played.cell.transport != "chat":
        judge(played)
    else:
        yield from played.seen.misses
        if played.seen.terminal is not None:
            yield f"an end was seen: {played.seen.terminal}"
    if not TEXT.startswith(played.seen.text):
        yield f"shown: {played.seen.text[-40:]!r}"


def _limited(p: Profile) -> list[Step]:
    return [Refuse("rate_limit", retry_after=p.seconds(2))]


CLOCK = (
    Fault("F15", "a 60 s outage, 20 requests", _outage, length=90),
    Fault(
        "F24 before",
        "cancel before the first token",
        _cancelled(
            lambda p: {"primary": [Hang()], "fallback": whole()},
            lambda played: _asked(played, "primary"),
            1,
        ),
        quiet=True,
    ),
    Fault(
        "F24 middle",
        "cancel mid-stream",
        _cancelled(
            lambda p: {"primary": [*spoken(TOKENS[:20]), Hang()], "fallback": whole()},
            lambda played: _shown(played, 20),
            1,
        ),
        quiet=True,
    ),
    Fault(
        "F24 waiting",
        "cancel while a retry waits",
        _cancelled(
            lambda p: {"primary": _limited(p), "fallback": whole()},
            _waiting,
            1,
        ),
        quiet=True,
    ),
    Fault(
        "F24 hedged",
        "cancel while a hedge runs",
        _cancelled(
            lambda p: {"primary": [Hang()], "fallback": [Hang()]},
            lambda played: _asked(played, "fallback"),
            2,
        ),
        quiet=True,
        length=9,
    ),
)
