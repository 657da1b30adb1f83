"""What holds of an answer whatever happens: random routes, faults, cut points, chunk splits
and clients that cancel, drop and come back, against the relay and its real wires."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lab.faults.canon import MIXED, QUESTION, TEXT, pieces, written
from lab.faults.clients import ChatCompletionsClient, events
from lab.faults.matrix import ROLES, TRANSPORTS, VENDORS, Cell
from lab.faults.seen import FrameReader, Seen
from lab.faults.stage import Cast, Stage
from lab.upstreams.request import Request
from lab.upstreams.steps import (
    Close,
    Counts,
    End,
    Finish,
    Garbage,
    Hang,
    InBandError,
    Pause,
    Raw,
    Refuse,
    Reset,
    Step,
    Token,
    Trouble,
)
from lab.waiting import until
from tests.wire.assembled import served

PATIENCE = 60
TOGETHER = 8
"""Chats of one example, all at once."""

TEXTS = [
    TEXT,
    MIXED,
    "def f(x):\n    x += 1\n    x += 1\n    if x:\n        x += 1\n    return x\n}\n}\n}",
    "Well, ha ha ha ha ha ha ha ha. The end. The end. The end.",
    "谢谢谢谢。今天天气很好。今天天气很好。谢谢，谢谢谢谢。",
]
TROUBLES: list[Trouble] = [
    "rate_limit",
    "quota",
    "server_error",
    "overloaded",
    "context_length",
    "policy",
    "auth",
    "bad_request",
    "prefill",
]


@dataclass(frozen=True)
class Way:
    """How one request is answered: `kind`, the share of the text before it breaks, the
    characters of a token, the bytes of a read (0: all at once), and whether the model goes
    on or starts over."""

    kind: str
    share: float
    trouble: Trouble
    retry_after: float | None
    size: int
    split: int
    over: bool


WAYS = st.builds(
    Way,
    st.sampled_from(["good", "good", "refuse", "hang", "stall", "reset", "close", "rot", "error"]),
    st.floats(0, 1),
    st.sampled_from(TROUBLES),
    st.sampled_from([None, None, 0.1, 30.0]),
    st.integers(1, 12),
    st.sampled_from([0, 0, 1, 3, 7, 40]),
    st.booleans(),
)


@dataclass(frozen=True)
class Case:
    """One chat. `act` once the client has seen so many frames or the upstreams so many
    requests; `ways` for each role, the last one for all further requests."""

    vendor: str
    transport: str
    prefill: bool
    text: str
    ways: list[list[Way]]
    fallback: bool
    act: str
    after_frames: int
    after_requests: int


CASES = st.builds(
    Case,
    st.sampled_from(VENDORS),
    st.sampled_from(TRANSPORTS),
    st.booleans(),
    st.sampled_from(TEXTS),
    st.lists(st.lists(WAYS, min_size=1, max_size=3), min_size=1, max_size=3),
    st.sampled_from([True, True, True, False]),
    st.sampled_from(["stay", "stay", "drop", "cancel"]),
    st.integers(1, 4),
    st.integers(1, 3),
)
RULES = st.fixed_dictionaries(
    {
        "MAX_ATTEMPTS": st.sampled_from(["1", "3", "6"]),
        "RESCUE": st.sampled_from(["continue", "continue", "restart", "off"]),
        "HEDGE_AFTER": st.sampled_from(["0", "0.15"]),
    }
)
SHORT = {
    "FIRST_TOKEN_TIMEOUT": "0.8",
    "TOKEN_IDLE_TIMEOUT": "0.4",
    "RETRY_AFTER_MAX": "0.3",
    "BREAKER_COOLDOWN": "0.3",
    "HEDGE_BUDGET": "1",
    "PORT": "0",
}


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink what runs in real time takes for ever
    suppress_health_check=list(HealthCheck),
)
@given(RULES, st.lists(CASES, min_size=TOGETHER, max_size=TOGETHER))
def test_every_answer_ends_once_and_its_text_is_whole_or_honestly_ended(
    tmp_path_factory: Any, rules: dict[str, str], cases: list[Case]
) -> None:
    asyncio.run(play(cases, rules, tmp_path_factory.mktemp("routes")))


async def play(cases: list[Case], rules: dict[str, str], folder: Path) -> None:
    stage = Stage()
    async with stage.upstream, asyncio.timeout(PATIENCE):
        chats = [Chat(stage, case, number) for number, case in enumerate(cases)]
        routes = folder / "routes.toml"
        routes.write_text(stage.routes_file())
        variables = {**stage.environment(), **SHORT, **rules, "ROUTES_FILE": str(routes)}
        async with served(variables) as (relay, url), aiohttp.ClientSession() as http:
            await asyncio.gather(*(chat.take_place(http, url) for chat in chats))
            for chat in chats:
                await chat.check(int(rules["MAX_ATTEMPTS"]))
            assert relay.dispatcher.running == 0


class Chat:
    """One case in play, and what must hold of it."""

    def __init__(self, stage: Stage, case: Case, number: int) -> None:
        self.case = case
        self.cell = Cell(f"chat{number}", case.vendor, case.transport, number)
        scripts = {
            role: scripted(case.text, ways) for role, ways in zip(ROLES, case.ways, strict=False)
        }
        self.cast: Cast = stage.cast(self.cell, scripts, prefill=case.prefill)
        self.reader = FrameReader(Seen(), "chat")
        self.acted = False

    @property
    def seen(self) -> Seen:
        return self.reader.seen

    async def take_place(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http, self.url = http, url
        self.session, self.frames = secrets.token_urlsafe(24), 0
        self.moment = asyncio.Event()
        watch = asyncio.create_task(self.watch())
        try:
            await {"ws": self.over_socket, "sse": self.over_sse, "chat": self.over_chat}[
                self.case.transport
            ]()
        finally:
            watch.cancel()

    async def watch(self) -> None:
        """Set `moment` when it is time to act."""
        case = self.case

        def is_time() -> bool:
            asked = len(self.cast.requests)
            return self.frames >= case.after_frames and asked >= case.after_requests

        await until(is_time, within=PATIENCE)
        self.moment.set()

    def due(self, act: str) -> bool:
        return self.case.act == act and not self.acted and self.moment.is_set()

    def body(self) -> dict[str, Any]:
        return {
            "id": "chat",
            "messages": [{"role": "user", "content": QUESTION}],
            "fallback": self.case.fallback,
        }

    async def over_socket(self) -> None:
        while self.seen.terminal is None:
            async with self.http.ws_connect(f"{self.url}/ws") as socket:
                last = self.reader.last
                resume = {"resume": {"chat": last}} if last >= 0 else {}
                await socket.send_json({"type": "hello", "session": self.session, **resume})
                if last < 0:
                    await socket.send_json(
                        {"type": "chat", "provider": self.cell.route, **self.body()}
                    )
                await self.read_socket(socket)

    async def read_socket(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while self.seen.terminal is None:
            receiving = asyncio.create_task(socket.receive())
            moment = asyncio.create_task(self.moment.wait())
            tasks = {receiving, moment} if not self.acted else {receiving}
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            moment.cancel()
            if self.due("drop"):
                self.acted = True
                receiving.cancel()
                await asyncio.wait({receiving})
                assert socket._response.connection is not None
                assert socket._response.connection.transport is not None
                socket._response.connection.transport.abort()
                return
            if self.due("cancel"):
                await socket.send_json({"type": "cancel", "id": "chat"})
            self.acted = self.acted or self.moment.is_set()
            message = await receiving
            assert message.type is aiohttp.WSMsgType.TEXT, message
            frame = json.loads(message.data)
            if frame["type"] == "ready":
                continue
            self.frames += 1
            self.reader.take(frame)

    async def over_sse(self) -> None:
        url = f"{self.url}/chat/{self.cell.route}"
        async with self.http.post(url, json=self.body()) as response:
            assert response.status == 200, await response.text()
            stream = response.headers["X-Stream-Id"]
            await self.read_sse(response, stream)
        while self.seen.terminal is None:
            headers = {"Last-Event-ID": str(self.reader.last)}
            url = f"{self.url}/streams/{stream}"
            async with self.http.get(url, headers=headers) as response:
                await self.read_sse(response, stream)

    async def read_sse(self, response: aiohttp.ClientResponse, stream: str) -> None:
        reading = asyncio.create_task(self.take_events(response))
        moment = asyncio.create_task(self.moment.wait())
        try:
            if not self.acted:
                await asyncio.wait({reading, moment}, return_when=asyncio.FIRST_COMPLETED)
            if self.due("drop"):
                self.acted = True
                return
            if self.due("cancel"):
                self.acted = True
                async with self.http.delete(f"{self.url}/streams/{stream}") as deleted:
                    assert deleted.status == 204
            await reading
        finally:
            reading.cancel()
            moment.cancel()
            await asyncio.wait({reading, moment})

    async def take_events(self, response: aiohttp.ClientResponse) -> None:
        async for _, _, data in events(response.content):
            self.frames += 1
            self.reader.take(json.loads(data))

    async def over_chat(self) -> None:
        client = ChatCompletionsClient(self.http, self.url, self.cell.route, [])
        self.reader.seen = client.seen
        self.frames = self.case.after_frames
        reading = asyncio.create_task(client.read())
        moment = asyncio.create_task(self.moment.wait())
        await asyncio.wait({reading, moment}, return_when=asyncio.FIRST_COMPLETED)
        moment.cancel()
        if self.case.act != "stay" and not reading.done():
            self.acted = True
            await client.cancel()
        await reading

    async def check(self, max_attempts: int) -> None:
        seen, text = self.seen, self.case.text
        assert seen.misses == []
        assert self.cast.defects == []
        for request in self.cast.requests:
            await request.closed.wait()
        assert len(self.cast.requests) <= max_attempts
        assert text.startswith(seen.text)
        if self.case.transport == "chat":
            assert seen.terminal is not None or self.acted
        else:
            assert seen.terminal is not None
            told = len(seen.terminal["attempts"])
            assert len(self.cast.requests) <= told <= max_attempts
        if seen.finish == "stop":
            assert seen.text == text
        refused = any(way.trouble == "policy" for ways in self.case.ways for way in ways)
        assert seen.finish != "content_filter" or refused
        assert seen.finish != "cancelled" or self.case.act == "cancel"
        assert seen.finish in ("stop", "content_filter", "cancelled", None)


def scripted(text: str, ways: Sequence[Way]) -> Any:
    def script(request: Request) -> list[Step]:
        return steps_of(ways[min(request.number, len(ways) - 1)], text, request)

    return script


def steps_of(way: Way, text: str, request: Request) -> list[Step]:
    if way.kind == "refuse":
        return [Refuse(way.trouble, retry_after=way.retry_after)]
    if way.kind == "hang":
        return [Hang()]
    partial = request.partial
    assert text.startswith(partial), f"the relay offered {partial!r}"
    said = text if way.over else text[len(partial) :]
    if way.kind == "good":
        return sent(request, said, way, [Counts(), Finish(), End()], [])
    inside: dict[str, list[Step]] = {"rot": [Garbage()], "error": [InBandError(way.trouble)]}
    after: dict[str, list[Step]] = {
        "reset": [Pause(0.05), Reset()],
        "close": [Close()],
        "stall": [Hang()],
        "rot": [Token("never to be read")],
    }
    said = said[: int(way.share * len(said))]
    return sent(request, said, way, inside.get(way.kind, []), after.get(way.kind, []))


def sent(
    request: Request, said: str, way: Way, end: Sequence[Step], after: Sequence[Step]
) -> list[Step]:
    body = written(request, *map(Token, pieces(said, way.size)), *end)
    size = way.split or len(body) or 1
    steps: list[Step] = []
    for at in range(0, len(body), size):
        steps += [Raw(body[at : at + size]), Pause(0)]
    return [*steps, *after]
