"""The HTTP edges over the real dispatcher: what a client's leaving does to the upstream."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from aiohttp import web

from lab.waiting import until
from relay.answering.dispatcher import AnswerSettings, Dispatcher, Lineup
from relay.answering.timerwheel import TimerWheel
from relay.core.errors import Code, Fault
from relay.core.events import Target, Text
from relay.edges import http
from relay.edges.delivery.http_body import HttpService
from relay.edges.delivery.outlet import Pace
from relay.edges.openai.chat import PREFIX, OpenAIChatEdge, openai_shape
from relay.edges.relay_v1.sse import SseEdge
from relay.stores.memory import MemoryLimits, MemoryLog
from tests.by_default import by_default, open_route, usual_breakers, usual_hedges
from tests.wire.http_relay import PATIENCE, RawClient, events_of, listening, text_of
from tests.wire.socket_relay import END, Held, ScriptedProvider, Told, says

CHAT = {"messages": [{"role": "user", "content": "Hello!"}]}
ASKED: dict[str, Any] = CHAT | {"model": "gpt"}
GRACE = 300.0


class Relay:
    """The real log and dispatcher behind the HTTP edges. `now` is their clock."""

    def __init__(self, script):
        self.now = time.monotonic()
        self.told, self.provider = Told(), ScriptedProvider(script)
        self.log = MemoryLog(by_default(MemoryLimits), lambda: self.now)
        self.dispatcher = Dispatcher(
            Lineup(
                {"gpt": self.provider},
                {"gpt": open_route("gpt", Target("gpt", "m"))},
                {"claude": "ANTHROPIC_API_KEY is not set"},
            ),
            self.log,
            settings=by_default(AnswerSettings, resume_grace=GRACE, max_attempts=1),
            breakers=usual_breakers(),
            hedges=usual_hedges(),
            observer=self.told,
            clock=lambda: self.now,
        )
        self.port = 0

    def unread(self, stream):
        """Whether a stream has no reader."""
        return not self.log._streams[stream].cursors

    async def client(self):
        return await RawClient.connect(self.port)


@asynccontextmanager
async def serving(script):
    relay = Relay(script)
    service = HttpService(
        relay.dispatcher, relay.log, by_default(Pace), TimerWheel(time.monotonic), 64 * 1024
    )
    app = web.Application(middlewares=[http.errors])
    http.shape_errors(app, PREFIX, openai_shape)
    app.add_routes([*SseEdge(service).routes(), *OpenAIChatEdge(service).routes()])
    async with listening(app) as relay.port:
        yield relay
        await relay.dispatcher.drain(0)
    await relay.log.close()
    assert relay.told.defects == []


async def begun(relay, held, path="/chat/gpt", body=CHAT):
    """A client whose answer is under way."""
    reader = await relay.client()
    reader.send("POST", path, body)
    await held.say("Hel")
    if path == "/chat/gpt" or body.get("stream"):
        await reader.head()
        while b"Hel" not in await reader.chunk():
            pass
    return reader


async def soon(event):
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def test_an_answer_over_sse_from_start_to_done():
    async with serving(says("Hel", "lo")) as relay:
        reader = await relay.client()
        events = events_of(await reader.ask("POST", "/chat/gpt", CHAT))
        reader.close()
    assert [events[0].name, events[-1].name] == ["start", "done"]
    assert text_of(events) == "Hello"
    assert (events[-1].data["model"], events[-1].data["usage"]["output_tokens"]) == ("m-0613", 5)


async def test_a_provider_that_is_off_is_404_and_says_why():
    async with serving(says("x")) as relay:
        reader = await relay.client()
        answer = json.loads(await reader.ask("POST", "/chat/claude", CHAT))
        reader.close()
    assert (reader.status, answer["error"]["code"]) == (404, "unknown_provider")
    assert "ANTHROPIC_API_KEY is not set" in answer["error"]["message"]


async def test_a_draining_server_refuses_new_chats_and_lets_streams_be_read():
    async with serving(says("x")) as relay:
        reader = await relay.client()
        await reader.ask("POST", "/chat/gpt", CHAT)
        stream = reader.headers["x-stream-id"]
        await relay.dispatcher.drain(0)
        answer = json.loads(await reader.ask("POST", "/chat/gpt", CHAT))
        assert (reader.status, answer["error"]["code"]) == (503, "draining")
        assert reader.headers["retry-after"] == "1"
        await reader.ask("POST", "/v1/chat/completions", ASKED)
        assert reader.status == 503
        assert text_of(events_of(await reader.ask("GET", f"/streams/{stream}"))) == "x"
        reader.close()


async def test_a_dropped_reader_has_the_grace_and_then_the_upstream_is_closed():
    held = Held()
    async with serving(held) as relay:
        reader = await begun(relay, held)
        stream = reader.headers["x-stream-id"]
        reader.close()
        await until(lambda: relay.unread(stream))
        relay.now += GRACE - 0.001
        relay.dispatcher.sweep()
        await asyncio.sleep(0)
        assert not held.cancelled.is_set()
        relay.now += 0.001
        relay.dispatcher.sweep()
        await soon(held.cancelled)
        again = await relay.client()
        end = events_of(await again.ask("GET", f"/streams/{stream}"))[-1]
        again.close()
        assert (end.name, end.data["code"]) == ("error", "abandoned")


async def test_a_reader_that_comes_back_within_the_grace_has_the_whole_answer():
    held = Held()
    async with serving(held) as relay:
        reader = await begun(relay, held)
        stream = reader.headers["x-stream-id"]
        reader.close()
        await held.say("lo")
        held.end()
        again = await relay.client()
        events = events_of(await again.ask("GET", f"/streams/{stream}"))
        again.close()
        assert text_of(events) == "Hello"
        assert len(relay.provider.calls) == 1


async def test_delete_closes_the_upstream_and_the_reader_is_told():
    held = Held()
    async with serving(held) as relay:
        reader, other = await begun(relay, held), await relay.client()
        await other.ask("DELETE", f"/streams/{reader.headers['x-stream-id']}")
        assert other.status == 204
        await soon(held.cancelled)
        done = events_of(await reader.body())[-1]
        assert (done.name, done.data["finish_reason"]) == ("done", "cancelled")
        reader.close()
        other.close()


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_openai_client_that_leaves_closes_the_upstream_at_once(streamed):
    held = Held()
    async with serving(held) as relay:
        reader = await begun(relay, held, "/v1/chat/completions", ASKED | {"stream": streamed})
        reader.close()
        await soon(held.cancelled)
        assert relay.dispatcher.running == 0


async def test_an_openai_stream_that_breaks_raises_in_the_sdk():
    async def breaks(call, take):
        take([Text("half an ")])
        raise Fault(Code.PROVIDER_INTERRUPTED, "the connection was cut")

    async with (
        serving(breaks) as relay,
        openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{relay.port}/v1", api_key="sk-any", max_retries=0
        ) as sdk,
    ):
        seen = []

        async def read():
            async for chunk in await sdk.chat.completions.create(**ASKED, stream=True):
                seen.extend(chunk.choices)

        with pytest.raises(openai.APIError):
            await read()
        assert "".join(choice.delta.content for choice in seen) == "half an "


async def test_many_readers_of_one_stream_have_the_same_text():
    held = Held()
    async with serving(held) as relay:
        first = await begun(relay, held)
        stream = first.headers["x-stream-id"]
        others = [await relay.client() for _ in range(20)]
        reading = [asyncio.create_task(o.ask("GET", f"/streams/{stream}")) for o in others]
        for n in range(50):
            await held.say(f"{n} ")
            await asyncio.sleep(0)
        held.take(END[:1])
        held.end()
        texts = {text_of(events_of(body)) for body in await asyncio.gather(*reading)}
        assert texts == {"Hel" + "".join(f"{n} " for n in range(50))}
        for reader in [first, *others]:
            reader.close()
