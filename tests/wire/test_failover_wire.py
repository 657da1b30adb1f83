"""What a rescue must not cost a healthy answer: nothing of it is held back, on any wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.faults.canon import TEXT, TOKENS, goes_on, spoken, whole
from lab.faults.clients import CLIENTS
from lab.faults.matrix import TRANSPORTS, VENDORS, Cell
from lab.faults.seen import Seen
from lab.faults.stage import Stage
from lab.upstreams.request import Request
from lab.upstreams.steps import Close, Pause, Refuse, Step, Thought, Token
from lab.waiting import until
from relay.failover.breaker import FAILURES_TO_OPEN
from tests.wire.assembled import served

PATIENCE = 20
ASK = {"messages": "Tell me something."}


async def gated(
    folder: Path,
    vendor: str,
    transport: str,
    steps: list[Step],
    gate: asyncio.Event,
    shown: Callable[[Seen], bool],
) -> Seen:
    """One chat whose upstream waits at `gate`, which is opened once `shown` holds."""
    stage = Stage()
    cell = Cell("gated", vendor, transport, 0)
    stage.cast(cell, {"primary": steps, "fallback": whole()}, prefill=False)
    async with stage.upstream, asyncio.timeout(PATIENCE):
        routes = folder / "routes.toml"
        routes.write_text(stage.routes_file())
        variables = {**stage.environment(), "PORT": "0", "ROUTES_FILE": str(routes)}
        async with served(variables) as (_, url), aiohttp.ClientSession() as http:
            client = CLIENTS[transport](http, url, cell.route, [])
            reading = asyncio.create_task(client.read())
            await until(lambda: shown(client.seen))
            gate.set()
            return await reading


EVERYWHERE = pytest.mark.parametrize(
    ("vendor", "transport"), [(v, t) for v in VENDORS for t in TRANSPORTS]
)


@EVERYWHERE
async def test_thinking_is_shown_before_it_ends(
    tmp_path: Path, vendor: str, transport: str
) -> None:
    gate = asyncio.Event()
    steps = [Thought("Let me see. "), Pause(until=gate), Thought("Ships."), *whole()]
    seen = await gated(
        tmp_path, vendor, transport, steps, gate, lambda seen: seen.reasoning == "Let me see. "
    )
    assert (seen.text, seen.reasoning, seen.misses) == (TEXT, "Let me see. Ships.", [])


@EVERYWHERE
async def test_each_token_is_shown_before_the_next_one_is_there(
    tmp_path: Path, vendor: str, transport: str
) -> None:
    gate = asyncio.Event()
    steps = [Token(TOKENS[0]), Pause(until=gate), *whole(TOKENS[1:])]
    seen = await gated(
        tmp_path, vendor, transport, steps, gate, lambda seen: seen.text == TOKENS[0]
    )
    assert (seen.text, seen.misses) == (TEXT, [])


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_continuation_is_asked_for_in_the_operators_words_and_the_persona_stays(
    tmp_path: Path, vendor: str
) -> None:
    stage = Stage()
    cell = Cell("persona", vendor, "sse", 0)
    scripts = {"primary": [*spoken(TOKENS[:40]), Close()], "fallback": goes_on()}
    cast = stage.cast(cell, scripts, prefill=False)  # type: ignore[arg-type]
    routes = tmp_path / "routes.toml"
    routes.write_text(stage.routes_file())
    async with stage.upstream, asyncio.timeout(PATIENCE), aiohttp.ClientSession() as http:
        own = {"PORT": "0", "ROUTES_FILE": str(routes), "CONTINUATION_PROMPT": "Weiter!"}
        async with served({**stage.environment(), **own}) as (_, url):
            body = {"messages": "Erzähl mir was.", "system": "Du bist ein Pirat."}
            async with http.post(f"{url}/chat/{cell.route}", json=body) as response:
                assert "event: done" in await response.text()
    first, second = cast.requests
    assert second.turns[-1].text == "Weiter!"
    assert _persona(second) == _persona(first)
    assert "Du bist ein Pirat." in json.dumps(_persona(second))


def _persona(request: Request) -> list[object]:
    """Everything that a request says outside of the conversation's turns."""
    body = request.body
    turns = [turn for turn in request.turns if turn.role in ("system", "developer")]
    return [turns, body.get("system"), body.get("systemInstruction")]


async def test_a_target_whose_breaker_is_open_is_told_why_and_is_no_attempt(
    tmp_path: Path,
) -> None:
    stage = Stage()
    cell = Cell("open", VENDORS[0], "sse", 0)
    scripts = {"primary": [Refuse("overloaded")], "fallback": whole()}
    cast = stage.cast(cell, scripts, prefill=False)  # type: ignore[arg-type]
    routes = tmp_path / "routes.toml"
    routes.write_text(stage.routes_file())
    async with stage.upstream, asyncio.timeout(PATIENCE), aiohttp.ClientSession() as http:
        own = {"PORT": "0", "ROUTES_FILE": str(routes), "BREAKER_COOLDOWN": "60"}
        async with served({**stage.environment(), **own}) as (_, url):
            frames: list[dict[str, Any]] = []
            for _ in range(FAILURES_TO_OPEN):
                async with http.post(f"{url}/chat/{cell.route}", json=ASK) as response:
                    body = await response.text()
                lines = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
                frames = [json.loads(line) for line in lines]
    start, done = frames[0], frames[-1]
    (fallback,) = (frame for frame in frames if frame["type"] == "fallback")
    assert cast.attempts("primary") == FAILURES_TO_OPEN
    assert fallback["from"] == {"provider": start["provider"], "model": start["model"]}
    assert (fallback["reason"], fallback["keep"]) == ("provider_overloaded", True)
    assert [each["outcome"] for each in done["attempts"]] == ["ok"]
    assert done["attempts"][0]["model"] == fallback["to"]["model"]
