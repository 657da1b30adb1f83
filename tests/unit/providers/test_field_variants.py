"""More of what the field sends, each in the shapes of every wire where it can occur."""

from __future__ import annotations

import json

import pytest

from lab.upstreams.shapes import calls, ends, event, grows, says
from relay.core.errors import Code
from relay.core.events import Event, Finish, FinishReason, Text, ToolCall
from relay.providers.anthropic import decoder as anthropic_wire
from relay.providers.anthropic.decoder import AnthropicDecoder
from relay.providers.decoding.decoder import Decoder
from relay.providers.decoding.faults import Reply, refused
from relay.providers.gemini import decoder as gemini_wire
from relay.providers.gemini.decoder import GeminiDecoder
from relay.providers.openai import decoder as openai_wire
from relay.providers.openai.decoder import OpenAIDecoder

DECODERS = {"openai": OpenAIDecoder, "anthropic": AnthropicDecoder, "gemini": GeminiDecoder}
ANY = pytest.mark.parametrize("wire", sorted(DECODERS))
GOOD = {"openai": "stop", "anthropic": "end_turn", "gemini": "STOP"}
MARKER = {
    "openai": b"data: [DONE]\n\n",
    "anthropic": event({"type": "message_stop"}),
    "gemini": b"",
}


def good_end(wire: str) -> bytes:
    return ends(wire, GOOD[wire]) + MARKER[wire]


def run(wire: str, *parts: bytes) -> tuple[Decoder, list[Event]]:
    decoder = DECODERS[wire]()
    events: list[Event] = []
    for part in parts:
        events += decoder.feed(part)
        if decoder.fault:
            return decoder, events
    return decoder, events + decoder.eof()


def text_of(events: list[Event]) -> str:
    return "".join(each.text for each in events if isinstance(each, Text))


def reasons_of(events: list[Event]) -> list[FinishReason]:
    return [each.reason for each in events if isinstance(each, Finish)]


def calls_of(events: list[Event]) -> list[tuple[str, dict]]:
    return [(each.name, each.arguments) for each in events if isinstance(each, ToolCall)]


# A


@ANY
@pytest.mark.parametrize(
    "line",
    [
        b"Internal Server Error\n\n",
        b"upstream connect error or disconnect/reset before headers. reset reason: overflow\n\n",
        b"<html><head><title>502 Bad Gateway</title></head></html>\n\n",
        b"stream error: gone\n\n",
        b"504 Gateway Time-out\n",
    ],
)
def test_a_failure_in_bare_words_outweighs_the_end_that_follows(wire, line):
    decoder, events = run(wire, says(wire, "half"), line, good_end(wire))
    assert text_of(events) == "half"
    assert decoder.fault is not None
    assert not reasons_of(events)


@ANY
@pytest.mark.parametrize("line", [b"keep-alive\n\n", b"OK\n\n", b"retry: 5\n\n"])
def test_other_bare_words_are_passed_over(wire, line):
    decoder, events = run(wire, says(wire, "a"), line, says(wire, "b"), good_end(wire))
    assert decoder.fault is None
    assert text_of(events) == "ab"


@ANY
@pytest.mark.parametrize("reason", [{"type": "network_error"}, ["stop"], True])
def test_a_finish_reason_that_cannot_be_read_is_a_break(wire, reason):
    decoder, events = run(wire, says(wire, "half"), ends(wire, reason), MARKER[wire])
    assert decoder.fault is not None
    assert not reasons_of(events)


@ANY
@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("sensitive", FinishReason.CONTENT_FILTER),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("stop", FinishReason.STOP),
        ("END_TURN", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
    ],
)
def test_one_vendors_finish_reason_is_known_on_every_wire(wire, reason, finish):
    decoder, events = run(wire, says(wire, "a"), ends(wire, reason), MARKER[wire])
    assert decoder.fault is None
    assert reasons_of(events) == [finish]


@pytest.mark.parametrize(
    "reason",
    [
        *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
        *("MODEL_ARMOR", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
    ],
)
def test_each_of_geminis_filters_is_known(reason):
    _, events = run("gemini", says("gemini", "a"), ends("gemini", reason))
    assert reasons_of(events) == [FinishReason.CONTENT_FILTER]


@ANY
def test_an_error_beside_a_good_end_in_one_event_is_a_break(wire):
    ended = json.loads(ends(wire, GOOD[wire])[6:])
    both = event({**ended, "error": {"message": "gone", "code": 500}})
    decoder, events = run(wire, says(wire, "half"), both, MARKER[wire])
    assert decoder.fault is not None
    assert not reasons_of(events)


@ANY
@pytest.mark.parametrize(
    "life",
    [{"type": "ping", "message": "still here"}, {"event": "heartbeat", "message": "alive"}],
)
def test_a_sign_of_life_may_have_words(wire, life):
    decoder, events = run(wire, says(wire, "a"), event(life), says(wire, "b"), good_end(wire))
    assert decoder.fault is None
    assert text_of(events) == "ab"


# B


@ANY
def test_events_without_blank_lines_and_with_their_name_twice_are_read(wire):
    body = says(wire, "a") + says(wire, "b") + good_end(wire)
    for other in (body.replace(b"\n\n", b"\n"), body.replace(b"data: ", b"data: data:data: ")):
        decoder, events = run(wire, other)
        assert decoder.fault is None
        assert text_of(events) == "ab"
        assert reasons_of(events) == [FinishReason.STOP]


def test_a_piece_of_content_of_which_nothing_is_known_is_a_break():
    decoder, _ = run("openai", says("openai", [{"value": "a"}]), good_end("openai"))
    assert decoder.fault is not None
    known = [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "a"}]
    decoder, events = run("openai", says("openai", known), good_end("openai"))
    assert decoder.fault is None
    assert text_of(events) == "a"


@pytest.mark.parametrize("pieces", [("Hel", "lo"), ("Hel", "Hello"), ("Hello", "Hello")])
def test_a_stream_of_messages_is_read_whole(pieces):
    body = b"".join(
        event({"choices": [{"message": {"content": piece}, "finish_reason": None}]})
        for piece in pieces
    )
    decoder, events = run("openai", body + good_end("openai"))
    assert decoder.fault is None
    assert text_of(events) == "Hello"


def test_anthropics_message_that_repeats_what_was_streamed_says_nothing():
    content = [{"type": "text", "text": "Hi."}]
    whole = event({"type": "message", "content": content, "stop_reason": "end_turn"})
    for before in (says("anthropic", "Hi."), says("anthropic", "Hi.") + good_end("anthropic")[:-1]):
        decoder, events = run("anthropic", before, whole)
        assert decoder.fault is None
        assert text_of(events) == "Hi."


# C

F, G = {"name": "f", "arguments": '{"a": 1}'}, {"name": "g", "arguments": '{"b": 2}'}
BOTH = [("f", {"a": 1}), ("g", {"b": 2})]


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_two_calls_that_share_index_and_id_are_two(wire):
    body = calls(wire, {**F, "id": "c"}) + calls(wire, {**G, "id": "c"})
    _, events = run(wire, body, good_end(wire))
    assert calls_of(events) == BOTH


def test_pieces_under_one_index_find_their_call_by_its_id():
    begun = b"".join(
        calls("openai", {"name": name, "arguments": "", "id": told})
        for name, told in (("f", "a"), ("g", "b"))
    )
    grown = b"".join(
        calls("openai", {"arguments": arguments, "id": told})
        for arguments, told in (('{"a": ', "a"), ('{"b": ', "b"), ("1}", "a"), ("2}", "b"))
    )
    _, events = run("openai", begun + grown, good_end("openai"))
    assert calls_of(events) == BOTH


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("pieces", [("null",), ("{}", '{"a"', ": 1}"), ("null", '{"a": 1}')])
def test_what_stands_in_for_arguments_is_no_argument(wire, pieces):
    body = calls(wire, {"name": "f", "arguments": pieces[0], "id": "c"})
    body += b"".join(grows(wire, piece) for piece in pieces[1:])
    _, events = run(wire, body, good_end(wire))
    assert calls_of(events) == [("f", {"a": 1} if len(pieces) > 1 else {})]


def test_a_call_may_get_its_name_after_its_arguments_began():
    body = calls("openai", {"arguments": "{", "id": "c"})
    body += calls("openai", {"name": "f", "arguments": '"a": 1}'})
    _, events = run("openai", body, good_end("openai"))
    assert calls_of(events) == BOTH[:1]


def test_anthropics_arguments_without_an_index_are_the_last_calls():
    body = (calls("anthropic", F) + calls("anthropic", G)).replace(b'"index": 0, ', b"")
    _, events = run("anthropic", body, good_end("anthropic"))
    assert calls_of(events) == BOTH


def test_anthropics_arguments_of_no_call_are_a_break_unless_their_block_is_passed_over():
    decoder, _ = run("anthropic", grows("anthropic", "{}"), good_end("anthropic"))
    assert decoder.fault is not None
    own = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    begun = event({"type": "content_block_start", "index": 0, "content_block": own})
    decoder, events = run(
        "anthropic", begun, grows("anthropic", '{"query": "x"}'), good_end("anthropic")
    )
    assert decoder.fault is None
    assert not calls_of(events)


# F


@pytest.mark.parametrize("module", [openai_wire, anthropic_wire, gemini_wire])
@pytest.mark.parametrize(
    "body",
    [
        {
            "code": 20015,
            "message": "length of prompt_tokens (9) must be less than max_seq_len (8).",
        },
        {"error": {"message": "Total tokens of image and text exceed max message tokens"}},
        {"error": {"code": "1210", "message": "Prompt 超长"}},
        {
            "errors": [
                {"message": "input and output tokens exceeded this model context window limit"}
            ]
        },
    ],
)
def test_more_words_for_a_conversation_that_is_too_long(module, body):
    fault = refused(module.judge, Reply(400, {}, json.dumps(body).encode(), 0.0))
    assert (fault.code, fault.remedy) == (Code.CONTEXT_LENGTH, "fallback")
