"""Recorded streams of the real vendors, through the decoders and through the real SDKs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lab import upstreams as up
from lab.upstreams.wires import WIRES
from relay.core.errors import Code, Fault
from relay.core.events import Event, Finish, FinishReason, Reasoning, Served, Text, ToolCall, Usage
from relay.core.provider import Call
from relay.core.request import ChatRequest, Turn
from relay.providers.anthropic.decoder import AnthropicDecoder
from relay.providers.awaited import begin_and_wait
from relay.providers.decoding.decoder import Decoder
from relay.providers.gemini.decoder import GeminiDecoder
from relay.providers.openai.decoder import OpenAIDecoder
from relay.providers.registry import build

RECORDED = Path(__file__).parents[3] / "shared" / "recorded"
DECODERS = {"openai-chat": OpenAIDecoder, "anthropic": AnthropicDecoder, "gemini": GeminiDecoder}
KINDS = {"openai-chat": "openai", "anthropic": "anthropic", "gemini": "gemini"}
NAMES = [
    "oc01-azure-emoji",
    "oc03-moderation-after-usage",
    "oc05-long-text",
    "oc07-usage-only-last",
    "an01-thinking-nonascii",
    "an03-tool-use",
    "an04-emoji",
    "an10-overloaded-midstream",
    "ge01-text-crlf",
    "ge02-thought-parts",
    "ge05-utf8-chinese",
    "ge07-prompt-blocked",
    "ge09-error-midstream",
    "ge12-quotes-escaped",
]
BROKEN = {
    "an10-overloaded-midstream": Code.PROVIDER_OVERLOADED,
    "ge09-error-midstream": Code.PROVIDER_INTERRUPTED,
    "ge12-quotes-escaped": Code.PROVIDER_INTERRUPTED,
}
SPLITS = [1, 2, 3, 5, 16, 61, 1024, 65536]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    if not RECORDED.is_dir():
        pytest.skip(f"the recorded streams are not at {RECORDED}")
    return json.loads((RECORDED / "expected.json").read_text(encoding="utf-8"))


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.sse").read_bytes()


def decode(decoder: Decoder, body: bytes, split: int) -> list[Event]:
    events: list[Event] = []
    for at in range(0, len(body), split):
        events += decoder.feed(body[at : at + split])
    return events + decoder.eof()


def text(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def last(events: list[Event], kind: type) -> Any:
    return [event for event in events if isinstance(event, kind)][-1]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_stream_gives_its_text_and_outcome_at_every_split(name, split, expected):
    decoder = DECODERS[expected[name]["wire"]]()
    events = decode(decoder, recorded(name), split)
    assert text(events) == expected[name]["text"]
    if name in BROKEN:
        assert decoder.fault is not None
        assert decoder.fault.code is BROKEN[name]
    else:
        assert decoder.fault is None
        refused = expected[name]["expected_relay_outcome"] == "refused"
        tools = name == "an03-tool-use"
        reason = FinishReason.CONTENT_FILTER if refused else FinishReason.STOP
        assert last(events, Finish).reason is (FinishReason.TOOL_CALLS if tools else reason)


def test_every_recorded_stream_of_these_wires_is_replayed(expected):
    assert {name for name, row in expected.items() if row["wire"] in DECODERS} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "model", "usage"),
    [
        ("oc01-azure-emoji", "gpt-4.1-mini-2025-04-14", None),
        ("oc03-moderation-after-usage", "gpt-5-2025-08-07", (13, 11)),
        ("oc05-long-text", "gpt-4.1-nano-2025-04-14", (16, 300)),
        ("an01-thinking-nonascii", "claude-haiku-4-5-20251001", (46, 133)),
        ("an04-emoji", "claude-haiku-4-5-20251001", (678, 82)),
        ("ge01-text-crlf", "gemini-2.0-flash-exp", (13, 8)),
        ("ge02-thought-parts", "gemini-2.5-pro", (34, 469 + 787)),
    ],
)
def test_recorded_model_and_usage_are_read(name, model, usage, expected):
    events = decode(DECODERS[expected[name]["wire"]](), recorded(name), 100)
    assert last(events, Served).model == model
    counts = [(e.input_tokens, e.output_tokens) for e in events if isinstance(e, Usage)]
    assert counts[-1:] == ([usage] if usage else [])


def test_recorded_thinking_is_kept_from_the_text(expected):
    for name in ("an01-thinking-nonascii", "ge02-thought-parts"):
        events = decode(DECODERS[expected[name]["wire"]](), recorded(name), 50)
        thought = "".join(event.text for event in events if isinstance(event, Reasoning))
        assert len(thought) > 100
        assert thought[:40] not in text(events)


def test_recorded_tool_calls_without_arguments_are_whole(expected):
    events = decode(AnthropicDecoder(), recorded("an03-tool-use"), 9)
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [call.arguments for call in calls] == [{}, {}]
    assert len({call.call_id for call in calls}) == 2


def test_text_after_a_finish_takes_it_back_until_the_clean_end(expected):
    events = decode(GeminiDecoder(), recorded("ge05-utf8-chinese"), 65536)
    kinds = [type(event) for event in events if isinstance(event, Text | Finish)]
    assert kinds == [Text, Finish, Text, Text, Text, Finish]


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_stream_cut_anywhere_is_a_break_or_was_finished(name, expected):
    body = recorded(name)
    whole = expected[name]["text"]
    for cut in range(0, len(body), max(1, len(body) // 97)):
        decoder = DECODERS[expected[name]["wire"]]()
        events = decode(decoder, body[:cut], 512)
        assert whole.startswith(text(events))
        assert (decoder.fault is None) == decoder.finished
        if decoder.finished and name != "ge05-utf8-chinese" and name != "ge09-error-midstream":
            assert text(events) == whole


@pytest.mark.parametrize("split", [None, 7])
@pytest.mark.parametrize(
    "name",
    ["oc01-azure-emoji", "oc07-usage-only-last", "an01-thinking-nonascii", "ge05-utf8-chinese"],
)
async def test_a_recorded_stream_passes_through_the_real_sdk(name, split, expected):
    kind = KINDS[expected[name]["wire"]]
    events: list[Event] = []
    async with up.Upstream([up.Raw(recorded(name))], split=split) as upstream:
        provider = build(kind, name="p", api_key="k", base_url=upstream.base_url(kind), lean=False)
        request = ChatRequest("p", (Turn("user", "Hi"),))
        async with asyncio.timeout(20):
            await begin_and_wait(provider, Call("m", request, 64), events.extend)
        await provider.close()
    assert text(events) == expected[name]["text"]


@pytest.mark.parametrize("name", sorted(BROKEN))
async def test_a_recorded_break_is_a_fault_through_the_real_sdk(name, expected):
    kind = KINDS[expected[name]["wire"]]
    events: list[Event] = []
    async with up.Upstream([up.Raw(recorded(name))]) as upstream:
        provider = build(kind, name="p", api_key="k", base_url=upstream.base_url(kind), lean=False)
        request = ChatRequest("p", (Turn("user", "Hi"),))
        with pytest.raises(Fault) as caught:
            async with asyncio.timeout(20):
                await begin_and_wait(provider, Call("m", request, 64), events.extend)
        await provider.close()
    assert caught.value.code is BROKEN[name]
    assert text(events) == expected[name]["text"]


def paths(value: Any, at: str = "") -> set[str]:
    """The names of all fields in a JSON value, each with its place."""
    if isinstance(value, dict):
        return {p for key, v in value.items() for p in {f"{at}/{key}", *paths(v, f"{at}/{key}")}}
    if isinstance(value, list):
        return {path for item in value for path in paths(item, f"{at}[]")}
    return set()


def shapes(body: bytes) -> set[frozenset[str]]:
    lines = [line for line in body.splitlines() if line.startswith(b"data: {")]
    found = [paths(json.loads(line[6:])) for line in lines]
    return {frozenset(p for p in shape if p != "/obfuscation") for shape in found}


SPOKEN = {
    "openai": [up.Token("a"), up.Counts(), up.Finish(), up.End()],
    "anthropic": [
        up.Thought("a"),
        up.Token("a"),
        up.Call("c", "n", "{}"),
        up.Counts(),
        up.Finish("tool_calls"),
        up.End(),
        up.InBandError("overloaded"),
    ],
    "gemini": [up.Token("a"), up.Counts(), up.Finish()],
}
THINKING = [up.Counts(reasoning=2), up.Thought("a"), up.Token("b"), up.Finish(), up.End()]


@pytest.mark.parametrize("vendor", sorted(WIRES))
def test_the_loopback_servers_events_have_the_recorded_ones_fields(vendor, expected):
    wire = WIRES[vendor]("m", {"stream_options": {"include_usage": True}})
    spoken = wire.opening() + b"".join(wire.say(step) for step in SPOKEN[vendor])
    names = [name for name in NAMES if KINDS[expected[name]["wire"]] == vendor]
    real = {shape for name in names for shape in shapes(recorded(name))}
    if vendor == "gemini":
        thinker = WIRES[vendor]("m", {})
        spoken += b"".join(thinker.say(step) for step in THINKING)
    for shape in shapes(spoken):
        assert shape in real, sorted(shape)


@pytest.mark.parametrize("vendor", sorted(WIRES))
def test_the_loopback_servers_framing_is_the_recorded_one(vendor, expected):
    wire = WIRES[vendor]("m", {"stream_options": {"include_usage": True}})
    spoken = wire.opening() + wire.say(up.Token("a"))
    sample = {"openai": "oc05-long-text", "anthropic": "an04-emoji", "gemini": "ge01-text-crlf"}
    real = recorded(sample[vendor])
    assert (b"\r\n\r\n" in spoken) == (b"\r\n\r\n" in real)
    assert spoken.startswith(b"event: ") == real.startswith(b"event: ")
    assert wire.say(up.End()).rstrip(b" }\n") in real
