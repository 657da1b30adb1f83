"""What the Python client and its `--json` tell is what the relay sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.client import AnswerFailed, ConnectionFailed, RelayClient
from tests.frames import server_frame
from tests.wire.stub_relay import OFFERS, StubRelay, answer, done
from tests.wire.test_client import command

FALLBACK = {
    "type": "fallback",
    "from": {"provider": "claude", "model": "m"},
    "to": {"provider": "gpt", "model": "n"},
    "reason": "provider_interrupted",
    "keep": False,
}
ATTEMPT = {"provider": "gpt", "model": "n", "outcome": "provider_rate_limited", "ms": 3}
FAILED = {
    "type": "error",
    "code": "providers_exhausted",
    "message": "every provider failed",
    "retryable": True,
    "retry_after": 2,
    "attempts": [ATTEMPT],
}


@pytest.mark.parametrize("end", [FAILED, done()], ids=lambda frame: frame["type"])
async def test_json_is_the_relays_frames(end: dict[str, Any]) -> None:
    """Each line is a frame by the relay's own models; what was merged covers what it merges."""
    records = [*answer("a", "b", finish=False), FALLBACK, *answer("c", finish=False)[1:], end]
    async with (
        StubRelay(lambda _: records).serve() as stub,
        command("hi", "--url", stub.url, "--json") as process,
    ):
        out, _ = await process.communicate()
    frames = [json.loads(line) for line in out.splitlines()]
    for frame in frames:
        server_frame.validate_python(frame)
    whole = [frame for frame in frames if frame["type"] != "token"]
    assert [{k: v for k, v in frame.items() if k not in ("id", "seq")} for frame in whole] == [
        records[0],
        FALLBACK,
        end,
    ]
    covered = [frame.get("first", frame["seq"]) for frame in frames[1:]]
    assert covered == [frame["seq"] + 1 for frame in frames[:-1]]


async def test_the_providers_are_listed_as_json_too() -> None:
    async with (
        StubRelay(lambda _: []).serve() as stub,
        command("--providers", "--json", "--url", stub.url) as process,
    ):
        out, _ = await process.communicate()
    assert [json.loads(line) for line in out.splitlines()] == OFFERS


async def test_a_failure_carries_attempts_and_the_wait() -> None:
    async with (
        StubRelay(lambda _: [*answer(finish=False), FAILED]).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        with pytest.raises(AnswerFailed) as raised:
            await relay.chat("hi").done()
    assert (raised.value.attempts, raised.value.retry_after) == ([ATTEMPT], 2)


@pytest.mark.parametrize(
    ("status", "code", "retryable"), [(403, "forbidden", False), (503, "draining", True)]
)
async def test_a_refused_handshake_says_what_the_relay_said(
    status: int, code: str, retryable: bool
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        told = {"error": {"code": code, "message": "and this is why"}}
        return web.json_response(told, status=status, headers={"Retry-After": "7"})

    app = web.Application()
    app.add_routes([web.get("/ws", refuse)])
    async with TestServer(app, host="127.0.0.1") as refusing:
        with pytest.raises(ConnectionFailed) as raised:
            await RelayClient(f"127.0.0.1:{refusing.port}").__aenter__()
    failure = raised.value
    assert (failure.code, failure.message) == (code, "and this is why")
    assert (failure.retryable, failure.retry_after) == (retryable, 7)
