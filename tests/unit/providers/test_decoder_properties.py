"""Two laws of every decoder, on random good streams with something random put in.

A sign of failure before the finish never ends in a good end. What carries no words, of
whatever type, never costs the answer.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import upstreams as up
from lab.upstreams.steps import Trouble
from lab.upstreams.wires import WIRES
from relay.core.events import Event, Finish, FinishReason, Reasoning, Text, ToolCall
from relay.providers.anthropic.decoder import AnthropicDecoder
from relay.providers.decoding.decoder import Decoder
from relay.providers.gemini.decoder import GeminiDecoder
from relay.providers.openai.decoder import OpenAIDecoder

DECODERS = {"openai": OpenAIDecoder, "anthropic": AnthropicDecoder, "gemini": GeminiDecoder}
VENDORS = sorted(DECODERS)

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
SAID = st.lists(
    WORDS.map(up.Token)
    | WORDS.map(up.Thought)
    | st.dictionaries(WORDS, st.text(max_size=5), max_size=2).map(
        lambda arguments: up.Call("c", "f", json.dumps(arguments), pieces=3)
    ),
    max_size=6,
)


def good(vendor: str, said: list[Any]) -> tuple[list[bytes], list[bytes]]:
    """The events of a good stream: those before the finish, and those from it on."""
    wire = WIRES[vendor]("m", {"stream_options": {"include_usage": True}})
    before = [wire.opening(), *map(wire.say, [*said, up.Token("."), up.Counts()])]
    called = any(isinstance(step, up.Call) for step in said)
    after = [wire.say(up.Finish("tool_calls" if called else "stop")), wire.say(up.End())]
    return [event for event in before if event], after


def run(decoder: Decoder, body: bytes, cuts: list[int]) -> list[Event]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    events: list[Event] = []
    for begin, end in itertools.pairwise(edges):
        events += decoder.feed(body[begin:end])
        if decoder.fault:
            return events
    return events + decoder.eof()


def told(events: list[Event]) -> tuple[Any, ...]:
    """What a client is told in the end."""
    return (
        "".join(event.text for event in events if isinstance(event, Text)),
        "".join(event.text for event in events if isinstance(event, Reasoning)),
        [(event.name, event.arguments) for event in events if isinstance(event, ToolCall)],
        [event.reason for event in events if isinstance(event, Finish)][-1:],
    )


# A sign of failure

ERROR_WORDS = st.sampled_from(["error", "Error", "upstream_error", "InternalException", "failed"])
ERROR_BODIES = st.sampled_from(
    [
        b'{"error": {"message": "gone", "code": 500}}',
        b'{"error": "gone"}',
        b'{"code": "Throttling", "message": "slow down"}',
        b'{"code": 500, "msg": "gone"}',
        b'{"object": "error", "message": "gone"}',
        b'{"base_resp": {"status_code": 1000, "status_msg": "gone"}}',
        b'{"detail": "gone"}',
        b'{"success": false}',
    ]
)
UNKNOWN = (
    st.dictionaries(st.text(min_size=1, max_size=5).map("x_".__add__), JSON, min_size=1, max_size=3)
    .map(json.dumps)
    .map(str.encode)
)
TROUBLES = get_args(Trouble)


def signs(vendor: str) -> st.SearchStrategy[bytes]:
    """One sign of failure: what vendors and the gateways before them were seen to send."""
    wire = WIRES[vendor]("m", {})
    return st.one_of(
        (ERROR_BODIES | UNKNOWN).map(lambda body: b"data: " + body + b"\n\n"),
        ERROR_BODIES.map(lambda body: body + b"\n\n"),
        st.tuples(ERROR_WORDS, ERROR_BODIES | UNKNOWN | st.just(b"gone")).map(
            lambda pair: f"event: {pair[0]}\ndata: ".encode() + pair[1] + b"\n\n"
        ),
        st.tuples(ERROR_WORDS, ERROR_BODIES | st.just(b"gone")).map(
            lambda pair: f"{pair[0]}: ".encode() + pair[1] + b"\n\n"
        ),
        st.sampled_from(TROUBLES).map(lambda trouble: wire.say(up.InBandError(trouble)) + b"\n\n"),
        st.sampled_from([b"data: <html>\n\n", b"data: {\n\n", b"data: gone\n\n"]),
    )


@pytest.mark.parametrize("vendor", VENDORS)
@given(SAID, st.data(), st.lists(st.integers(0), max_size=4))
def test_a_sign_of_failure_never_ends_well(vendor, said, data, cuts):
    before, after = good(vendor, said)
    place = data.draw(st.integers(0, len(before)))
    sign = data.draw(signs(vendor))
    decoder = DECODERS[vendor]()
    events = run(decoder, b"".join([*before[:place], sign, *before[place:], *after]), cuts)
    ends = [event.reason for event in events if isinstance(event, Finish)]
    assert decoder.fault is not None or ends == [FinishReason.CONTENT_FILTER]
    assert not (decoder.fault and ends)
    whole = run(DECODERS[vendor](), b"".join(before + after), [])
    assert told(whole)[0].startswith(told(events)[0])


REASONS = {
    "openai": b'"finish_reason":"',
    "anthropic": b'"stop_reason":"',
    "gemini": b'"finishReason": "',
}


@pytest.mark.parametrize("vendor", VENDORS)
@given(said=SAID, reason=st.from_regex(r"[a-z]{2,9}_[a-z]{2,9}_x", fullmatch=True))
def test_an_unknown_finish_reason_never_ends_well(vendor, said, reason):
    before, (finish, end) = good(vendor, said)
    head, _, tail = finish.partition(REASONS[vendor])
    assert tail
    other = head + REASONS[vendor] + reason.encode() + tail[tail.index(b'"') :]
    decoder = DECODERS[vendor]()
    events = run(decoder, b"".join([*before, other, end]), [])
    assert decoder.fault is not None
    assert not [event for event in events if isinstance(event, Finish)]


# What carries no words

WORDLESS = {
    "openai": {
        *("id", "object", "created", "model", "service_tier", "system_fingerprint", "usage"),
        *("obfuscation", "logprobs", "role", "prompt_tokens", "completion_tokens", "type"),
        *("total_tokens", "prompt_tokens_details", "completion_tokens_details"),
    },
    "anthropic": {
        *("message", "usage", "signature", "caller", "stop_sequence", "stop_details", "id"),
        *("input_tokens", "output_tokens", "cache_read_input_tokens"),
    },
    "gemini": {
        *("usageMetadata", "modelVersion", "responseId", "role", "thoughtSignature", "id"),
        *("promptTokenCount", "candidatesTokenCount", "promptTokensDetails"),
    },
}
"""Fields by whose value nothing of an answer's words is told."""


def spoilt(value: Any, wordless: set[str], data: st.DataObject) -> Any:
    """`value` with some wordless fields of another type, and some fields more."""
    if isinstance(value, list):
        return [spoilt(item, wordless, data) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {
        name: data.draw(JSON)
        if name in wordless and data.draw(st.booleans())
        else spoilt(item, wordless, data)
        for name, item in value.items()
        if name != "arguments" and name != "args"
    }
    fields |= {name: value[name] for name in ("arguments", "args") if name in value}
    if data.draw(st.booleans()):
        fields |= data.draw(st.dictionaries(st.just("x_more"), JSON, max_size=1))
    return fields


def spoil(event: bytes, wordless: set[str], data: st.DataObject) -> bytes:
    lines = []
    for line in event.splitlines(keepends=True):
        if line.startswith(b"data: {"):
            value = spoilt(json.loads(line[6:]), wordless, data)
            line = b"data: " + json.dumps(value).encode() + b"\n"
        lines.append(line)
    return b"".join(lines)


@pytest.mark.parametrize("vendor", VENDORS)
@given(SAID, st.data())
def test_what_carries_no_words_never_costs_the_answer(vendor, said, data):
    before, after = good(vendor, said)
    events = [spoil(event, WORDLESS[vendor], data) for event in before + after]
    decoder = DECODERS[vendor]()
    found = run(decoder, b"".join(events), [])
    assert decoder.fault is None
    assert told(found) == told(run(DECODERS[vendor](), b"".join(before + after), []))
    assert told(found)[3][0] in (FinishReason.STOP, FinishReason.TOOL_CALLS)
