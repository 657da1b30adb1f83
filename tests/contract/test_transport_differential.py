"""The lean transport against the SDKs: what either sends and makes of an answer is equal."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.core.errors import Fault
from relay.core.events import Alive, Text, ToolCall
from relay.core.provider import Call
from relay.core.request import ChatRequest, ImageContent, OfferedTool, TextContent, Turn
from relay.providers.awaited import begin_and_wait
from relay.providers.registry import build

RECORDED = Path(__file__).parents[3] / "shared" / "recorded"
KINDS = ("openai", "anthropic", "gemini", "compatible")
WIRES = {"openai-chat": "openai", "anthropic": "anthropic", "gemini": "gemini"}
INCIDENTAL = {"host", "connection", "accept-encoding", "content-length"}
"""Headers of one connection's own, which each client sets by itself."""

GOOD = {
    "openai": b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"hi"},'
    b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "anthropic": b'data: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hi"}}\n\ndata: {"type":"message_delta",'
    b'"delta":{"stop_reason":"end_turn"}}\n\ndata: {"type":"message_stop"}\n\n',
    "gemini": b'data: {"candidates":[{"content":{"parts":[{"text":"hi"}]},'
    b'"finishReason":"STOP"}]}\n\n',
}
GOOD["compatible"] = GOOD["openai"]

PIXEL = "iVBORw0KGgo="
REQUESTS = {
    "plain": ChatRequest(provider="x", messages=(Turn("user", "Grüße, 世界 🌍"),)),
    "system and stop": ChatRequest(
        provider="x", system="Be brief.", stop=("END",), messages=(Turn("user", "hi"),)
    ),
    "image": ChatRequest(
        provider="x",
        messages=(
            Turn("user", (TextContent("what is it?"), ImageContent("image/png", data=PIXEL))),
        ),
    ),
    "tools": ChatRequest(
        provider="x",
        tools=(OfferedTool("look", "Looks.", {"type": "object", "properties": {}}),),
        tool_choice="look",
        messages=(
            Turn("user", "look"),
            Turn("assistant", tool_calls=(ToolCall("c1", "look", {"at": "日本"}, state="AQ=="),)),
            Turn("tool", "seen", call_id="c1"),
            Turn("assistant", "I saw"),
            Turn("user", "go on"),
        ),
    ),
}


class Replayer:
    """A server that answers every request with the same bytes, cut as it is told to."""

    def __init__(self):
        self.requests = []
        self.pieces = []

    async def accept(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *lines = head.decode("latin-1").rstrip().split("\r\n")
                pairs = [text.partition(": ")[::2] for text in lines]
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((line, headers, json.loads(body)))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                if b"0\r\n\r\n" not in b"".join(self.pieces)[-7:]:
                    writer.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    return head + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


async def both(kind, request, pieces, model="some-model"):
    """What the server saw and what came of it, by either transport."""
    replayer = Replayer()
    server = await asyncio.start_server(replayer.accept, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    base += "/v1" if kind in ("openai", "compatible") else ""
    replayer.pieces = pieces
    outcomes = []
    for lean in (True, False):
        provider = build(kind, name="x", api_key="sk-k", base_url=base, lean=lean)
        events = []
        try:
            await begin_and_wait(provider, Call(model, request, 100), events.extend)
            outcomes.append((merged(events), None))
        except Fault as fault:
            told = (fault.code, fault.message, fault.remedy, fault.retry_after)
            outcomes.append((merged(events), (*told, fault.prefill_refused)))
        await provider.close()
    server.close()
    return replayer.requests, outcomes


def merged(events):
    """Events without what depends on where the reads were cut or on chance."""
    out = []
    for event in events:
        if isinstance(event, Alive):
            continue
        if isinstance(event, Text) and out and isinstance(out[-1], Text):
            out[-1] = Text(out[-1].text + event.text)
        elif hasattr(event, "call_id"):
            out.append((event.name, event.arguments, event.state))
        else:
            out.append(event)
    return out


def essential(request):
    line, headers, body = request
    return line, {name: v for name, v in headers.items() if name not in INCIDENTAL}, body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REQUESTS)
async def test_both_send_the_same_request_and_hear_the_same_answer(kind, name):
    requests, (lean, sdk) = await both(kind, REQUESTS[name], [chunked(GOOD[kind])])
    assert len(requests) == 2
    assert essential(requests[0]) == essential(requests[1])
    assert lean == sdk
    assert Text("hi") in lean[0]
    assert lean[1] is None


def test_the_lean_transport_is_the_one_that_was_compared():
    """It asks for no compression; the SDKs do. Were it never used, this would show."""

    async def encodings(kind):
        requests, _ = await both(kind, REQUESTS["plain"], [chunked(GOOD[kind])])
        return [headers["accept-encoding"] for _, headers, _ in requests]

    for kind in KINDS:
        lean, sdk = asyncio.run(encodings(kind))
        assert lean == "identity"
        assert sdk != "identity"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 529])
async def test_both_make_the_same_of_a_refusal(kind, status):
    body = b'{"error":{"message":"no such luck","type":"some_error","status":"UNAVAILABLE"}}'
    head = b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\nretry-after: 7\r\n" % status
    answer = head + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    _, (lean, sdk) = await both(kind, REQUESTS["plain"], [answer])
    assert lean == sdk
    assert lean[1] is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
async def test_both_make_the_same_of_an_answer_that_is_cut_off(kind, share):
    wire = chunked(GOOD[kind])
    _, (lean, sdk) = await both(kind, REQUESTS["plain"], [wire[: int(len(wire) * share)]])
    assert lean == sdk


@pytest.mark.parametrize("kind", KINDS)
async def test_both_make_the_same_of_garbage_and_of_nothing(kind):
    for wire in (chunked(b""), chunked(b"data: {oops\n\n"), b"220 smtp ready\r\n"):
        _, (lean, sdk) = await both(kind, REQUESTS["plain"], [wire])
        assert lean == sdk
        assert lean[1] is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_compressed_answer_is_the_sdks_to_read(kind):
    import gzip

    body = gzip.compress(GOOD[kind])
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    requests, (lean, sdk) = await both(kind, REQUESTS["plain"], [head + body])
    assert lean == sdk
    assert Text("hi") in lean[0]
    assert len(requests) == 3


def recordings():
    index = json.loads((RECORDED / "index.json").read_text()) if RECORDED.exists() else []
    return [(row["name"], WIRES[row["wire"]]) for row in index if row["wire"] in WIRES]


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded streams are not here")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_both_hear_the_same_in_a_recorded_answer_cut_anywhere(data):
    name, kind = data.draw(st.sampled_from(recordings()))
    wire = chunked((RECORDED / f"{name}.sse").read_bytes())
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=30)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    _, (lean, sdk) = asyncio.run(both(kind, REQUESTS["plain"], pieces))
    assert lean == sdk
    assert lean[0] or lean[1]
