"""What servers of the vendors' wires were seen to send, in the shapes of each wire."""

from __future__ import annotations

import json

import pytest

from relay.core.errors import Code
from relay.core.events import (
    Event,
    Finish,
    FinishReason,
    Reasoning,
    Served,
    Text,
    ToolCall,
    Usage,
)
from relay.providers.anthropic.decoder import AnthropicDecoder
from relay.providers.decoding.decoder import Decoder
from relay.providers.gemini.decoder import GeminiDecoder
from relay.providers.openai.decoder import OpenAIDecoder

DECODERS = {"openai": OpenAIDecoder, "anthropic": AnthropicDecoder, "gemini": GeminiDecoder}
VENDORS = sorted(DECODERS)


def data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def raw(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def choice(delta: object, reason: object = None) -> bytes:
    return data({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def calls(*deltas: dict) -> bytes:
    return choice({"tool_calls": list(deltas)})


def function(arguments: object, name: object = None, **more: object) -> dict:
    return {"index": 0, "function": {"name": name, "arguments": arguments}, **more}


def block(index: int, kind: str, **fields: object) -> bytes:
    content = {"type": kind, **fields}
    return data({"type": "content_block_start", "index": index, "content_block": content})


def delta(index: object, **fields: object) -> bytes:
    return data({"type": "content_block_delta", "index": index, "delta": fields})


def candidate(*parts: object, reason: object = None) -> bytes:
    return data({"candidates": [{"content": {"parts": list(parts)}, "finishReason": reason}]})


def says(vendor: str, text: object) -> bytes:
    """One event that carries `text`, whatever type it has."""
    match vendor:
        case "openai":
            return choice({"content": text})
        case "anthropic":
            return delta(0, type="text_delta", text=text)
    return candidate({"text": text})


def ends(vendor: str, reason: str | None = None) -> bytes:
    """A clean end."""
    match vendor:
        case "openai":
            return choice({}, reason or "stop") + b"data: [DONE]\n\n"
        case "anthropic":
            ended = {"type": "message_delta", "delta": {"stop_reason": reason or "end_turn"}}
            return data(ended) + data({"type": "message_stop"})
    return candidate({"text": ""}, reason=reason or "STOP")


def run(decoder: Decoder, body: bytes) -> list[Event]:
    return read(decoder, body, len(body))


def read(decoder: Decoder, body: bytes, size: int) -> list[Event]:
    """What reads of `size` bytes give, up to a fault."""
    events: list[Event] = []
    for at in range(0, len(body), size):
        events += decoder.feed(body[at : at + size])
        if decoder.fault:
            return events
    return events + decoder.eof()


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def calls_of(events: list[Event]) -> list[tuple[str, dict]]:
    return [(event.name, event.arguments) for event in events if isinstance(event, ToolCall)]


# A. A broken answer never looks whole

ERRORS = {
    "a field": b'error: {"code": 500, "message": "gone"}\n\n',
    "a field without JSON": b"error: upstream closed the stream\n\n",
    "a field, no blank line": b'error: {"code": 500}\n',
    "a named event": b'event: error\ndata: {"code": "Throttling", "message": "slow down"}\n\n',
    "a named event, name last": b'data: {"code": 1}\nevent: Exception\n\n',
    "a named event without data": b"event: error\n\n",
    "a bare object": b'{"error": {"message": "gone", "status": "UNAVAILABLE", "code": 503}}\n\n',
    "a bare object of many lines": b'{\n  "error": {\n    "code": 503\n  }\n}\n\n',
    "a bare array": b'[{\n  "error": {\n    "code": 503\n  }\n}\n]\n\n',
    "half a bare object": b'{"error": {"mess\n\n',
    "an error object": data({"error": {"message": "gone"}}),
    "an error in words": data({"error": "gone"}),
    "errors": data({"errors": [{"message": "gone"}]}),
    "MiniMax": data({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "limit"}}),
    "vLLM": data({"object": "error", "message": "gone", "type": "Internal", "code": 500}),
    "FastAPI": data({"detail": "Internal Server Error"}),
    "Alibaba": data({"code": "InternalError", "message": "gone", "request_id": "x"}),
    "a code beside nothing": data({"choices": [{"delta": {}}], "code": 500, "message": "gone"}),
    "an error one level down": data({"choices": [], "x_groq": {"id": "r", "error": "gone"}}),
    "a field in short": b"err: gone\n\n",
    "a bare traceback": b"Traceback (most recent call last):\n\n",
    "a failed status": data({"status": "failed", "id": "x"}),
    "no success": data({"success": False}),
    "an unknown object": data({"session": "expired"}),
    "a page": raw("<html>"),
    "a word": raw("gone"),
    "a number": raw("3"),
}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("error", ERRORS)
def test_a_sign_of_failure_outweighs_the_end_that_follows(vendor, error):
    body = says(vendor, "half") + ERRORS[error] + ends(vendor)
    for size in (len(body), 1, 7):
        decoder = DECODERS[vendor]()
        events = read(decoder, body, size)
        assert text_of(events) == "half"
        assert decoder.fault is not None
        assert not decoder.finished


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("error", ERRORS)
def test_after_the_finish_it_means_nothing(vendor, error):
    decoder = DECODERS[vendor]()
    events = run(decoder, says(vendor, "whole") + ends(vendor) + ERRORS[error])
    assert decoder.fault is None
    assert Finish(FinishReason.STOP) in events


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("reason", ["network_error", "Timeout", "worker_died", "_"])
def test_an_end_for_a_reason_that_nobody_knows_is_a_break(vendor, reason):
    decoder = DECODERS[vendor]()
    events = run(decoder, says(vendor, "half") + ends(vendor, reason))
    assert text_of(events) == "half"
    assert decoder.fault is not None
    assert reason.lower() in decoder.fault.message.lower() or reason == "_"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("sensitive", FinishReason.CONTENT_FILTER),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("eos_token", FinishReason.STOP),
        ("STOP", FinishReason.STOP),
        ("model_length", FinishReason.LENGTH),
        ("MAX_TOKENS", FinishReason.LENGTH),
    ],
)
def test_other_words_for_a_good_end_are_known(reason, finish):
    assert run(OpenAIDecoder(), choice({"content": "a"}, reason))[-1] == Finish(finish)


@pytest.mark.parametrize("reason", ["null", "none", "", None, False, {}])
def test_a_reason_that_says_none_ends_nothing(reason):
    decoder = OpenAIDecoder()
    assert decoder.feed(choice({"content": "a"}, reason)) == [Text("a")]
    assert not decoder.finished


@pytest.mark.parametrize(
    ("vendor", "end"),
    [
        ("openai", {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"error": "x"}}),
        ("openai", {"choices": [{"delta": {"error": "x"}, "finish_reason": "stop"}]}),
        ("openai", {"choices": [{"delta": {}, "finish_reason": "stop"}], "code": 500, "msg": "x"}),
        (
            "anthropic",
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "error": {"type": "x"}}},
        ),
        ("gemini", {"candidates": [{"finishReason": "STOP", "error": {"code": 500}}]}),
    ],
)
def test_an_error_beside_the_end_outweighs_it(vendor, end):
    decoder = DECODERS[vendor]()
    run(decoder, says(vendor, "half") + data(end))
    assert decoder.fault is not None
    assert not decoder.finished


def test_a_filter_that_failed_breaks_no_answer():
    filtered = {"error": {"code": "content_filter_error", "message": "not filtered"}}
    first = data({"choices": [], "content_filter_results": filtered})
    decoder = OpenAIDecoder()
    assert text_of(run(decoder, first + says("openai", "a") + ends("openai"))) == "a"
    assert decoder.fault is None


def test_a_reason_inside_openrouters_choice_has_its_error():
    error = {"code": 429, "message": "limit"}
    broken = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": error}
    decoder = OpenAIDecoder()
    run(decoder, data({"choices": [broken]}))
    assert decoder.fault is not None
    assert decoder.fault.code is Code.PROVIDER_RATE_LIMITED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ERRORS["a named event"], Code.PROVIDER_RATE_LIMITED),
        (ERRORS["MiniMax"], Code.PROVIDER_RATE_LIMITED),
        (ERRORS["a bare object"], Code.PROVIDER_OVERLOADED),
    ],
)
def test_an_error_keeps_its_cause(error, code):
    decoder = OpenAIDecoder()
    run(decoder, error + ends("openai"))
    assert decoder.fault is not None
    assert decoder.fault.code is code


LIFE = {
    "null": raw("null"),
    "an empty object": raw("{}"),
    "an empty list": raw("[]"),
    "an empty string": raw('""'),
    "a ping": data({"type": "ping"}),
    "a named ping": b'event: ping\ndata: {"type": "ping"}\n\n',
    "a heartbeat": data({"heartbeat": 1}),
    "a word": raw("ping"),
    "a word in brackets": raw("[HEARTBEAT]"),
    "a success": data({"code": 200, "msg": "success"}),
    "a comment": b": keep-alive\n\n",
    "an unknown field": b"foo: bar\n\n",
    "a field with JSON": b'foo: {"a": 1}\n\n',
    "a named event": b"event: message\ndata: {}\n\n",
    "no error": raw('{"error": null}').replace(b'{"error": null}', b"{}"),
}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("sign", LIFE)
def test_a_sign_of_life_amid_good_events_costs_nothing(vendor, sign):
    decoder = DECODERS[vendor]()
    events = run(decoder, says(vendor, "a") + LIFE[sign] + says(vendor, "b") + ends(vendor))
    assert decoder.fault is None
    assert text_of(events) == "ab"
    assert Finish(FinishReason.STOP) in events


@pytest.mark.parametrize("nothing", [None, "", {}, [], False, 0])
def test_an_error_field_that_holds_nothing_is_no_error(nothing):
    body = {"choices": [{"delta": {"content": "a"}}], "error": nothing}
    decoder = OpenAIDecoder()
    assert text_of(run(decoder, data(body) + ends("openai"))) == "a"
    assert decoder.fault is None


def test_a_status_that_says_all_is_well_is_no_error():
    well = {"status_code": 0, "status_msg": ""}
    decoder = OpenAIDecoder()
    body = data({"choices": [{"delta": {"content": "a"}}], "base_resp": well})
    assert text_of(run(decoder, body + data({"choices": None, "base_resp": well}))) == "a"
    assert decoder.fault is not None  # by the missing end alone
    assert "end marker" in decoder.fault.message


# B. A field of another type does not cost the answer


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("text", "read"),
    [("5", "5"), ("3.10", "3.10"), ("-1e5", "-1e5"), ('"tab\there"', "tab\there"), ("0", "0")],
)
def test_words_of_another_type_are_read(vendor, text, read):
    body = says(vendor, "WORDS").replace(b'"WORDS"', text.encode())
    decoder = DECODERS[vendor]()
    assert text_of(run(decoder, body + ends(vendor))) == read
    assert decoder.fault is None


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("text", [True, [[1]], [["a"], "b"]])
def test_words_that_cannot_be_read_are_a_break_that_recurs(vendor, text):
    decoder = DECODERS[vendor]()
    run(decoder, says(vendor, text) + ends(vendor))
    assert decoder.fault is not None
    assert decoder.fault.recurs


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("pieces", "read"),
    [
        (("a \ud83d", "\ude00 b"), "a 😀 b"),
        (("a \ud83d", "", "\ude00 b"), "a 😀 b"),
        (("a \ud83d", " b"), "a � b"),
        (("a \ud83d",), "a �"),
        (("\ude00 b",), "� b"),
        (("\ud83d\ude00",), "😀"),
        (("a\ud83d", "\ud83d", "\ude00"), "a�😀"),
    ],
)
def test_a_character_cut_in_two_is_whole_again_or_is_replaced(vendor, pieces, read):
    decoder = DECODERS[vendor]()
    body = b"".join(says(vendor, piece) for piece in pieces)
    events = run(decoder, body + ends(vendor))
    assert decoder.fault is None
    assert text_of(events) == read
    assert isinstance([e for e in events if not isinstance(e, Usage)][-1], Finish)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("pieces", "read"),
    [
        ((b"a \xf0\x9f", b"\x98\x80 b"), "a 😀 b"),
        ((b"\xe6", b"\xbc", b"\xa2"), "漢"),
        ((b"caf\xc3", b"\xa9"), "café"),
        ((b"caf\xe9", b"!"), "caf�!"),
        ((b"\xf0\x9f",), "�"),
        ((b"\xc3\xa9\xff",), "é�"),
    ],
)
def test_a_characters_bytes_cut_between_two_events_are_whole_again_or_replaced(
    vendor, pieces, read
):
    events = [says(vendor, "WORDS").replace(b"WORDS", piece) for piece in pieces]
    decoder = DECODERS[vendor]()
    found = run(decoder, b"".join(events) + ends(vendor))
    assert decoder.fault is None
    assert text_of(found) == read


def test_halves_of_reasoning_and_of_text_are_not_joined_to_each_other():
    body = (
        choice({"reasoning": "\ud83d"}) + choice({"content": "a"}) + choice({"reasoning": "\ude00"})
    )
    events = run(OpenAIDecoder(), body + ends("openai"))
    assert [e.text for e in events if isinstance(e, Reasoning)] == ["😀"]
    assert text_of(events) == "a"


USAGES = {
    "openai": lambda usage: data({"choices": [], "usage": usage}),
    "anthropic": lambda usage: data({"type": "message_delta", "delta": {}, "usage": usage}),
    "gemini": lambda usage: data({"candidates": [], "usageMetadata": usage}),
}
COUNTED = {
    "openai": ("prompt_tokens", "completion_tokens"),
    "anthropic": ("input_tokens", "output_tokens"),
    "gemini": ("promptTokenCount", "candidatesTokenCount"),
}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("count", [5.0, "5", 5, "5.0"])
def test_counts_of_another_type_are_read(vendor, count):
    usage = dict.fromkeys(COUNTED[vendor], count)
    events = run(DECODERS[vendor](), says(vendor, "a") + USAGES[vendor](usage) + ends(vendor))
    assert Usage(5, 5, estimated=False) in events


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("usage", [[], [1], "many", 7, {"x": 1}, True])
def test_counts_that_cannot_be_read_are_left_out(vendor, usage):
    decoder = DECODERS[vendor]()
    events = run(decoder, says(vendor, "a") + USAGES[vendor](usage) + ends(vendor))
    assert decoder.fault is None
    assert not [event for event in events if isinstance(event, Usage)]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("count", [-1, 2**70, 1.5, "5 tokens", True, [5]])
def test_a_count_that_is_no_count_is_left_out(vendor, count):
    decoder = DECODERS[vendor]()
    usage = dict.fromkeys(COUNTED[vendor], count)
    events = run(decoder, says(vendor, "a") + USAGES[vendor](usage) + ends(vendor))
    assert decoder.fault is None
    assert not [event for event in events if isinstance(event, Usage)]


@pytest.mark.parametrize("mark", ["[DONE]", " [DONE] ", "[done]", '"[DONE]"', "DONE"])
def test_the_end_marker_is_known_however_it_is_written(mark):
    decoder = OpenAIDecoder()
    assert run(decoder, says("openai", "a") + raw(mark))[-1] == Finish(FinishReason.STOP)
    assert decoder.ended


def test_words_in_a_list_in_one_piece_or_under_another_name_are_read():
    for content in (["a", "b"], {"type": "text", "text": "ab"}, [{"text": "a"}, "b"]):
        assert text_of(run(OpenAIDecoder(), choice({"content": content}) + ends("openai"))) == "ab"
    older = data({"choices": [{"index": 0, "text": "ab", "finish_reason": None}]})
    assert text_of(run(OpenAIDecoder(), older + ends("openai"))) == "ab"
    single = {"delta": {"content": "ab"}}
    for choices in (single, {"0": single}, [{"delta": [single["delta"]]}]):
        body = data({"choices": choices})
        assert text_of(run(OpenAIDecoder(), body + ends("openai"))) == "ab"


def test_json_that_is_nested_without_end_is_a_break():
    for vendor in VENDORS:
        decoder = DECODERS[vendor]()
        run(decoder, b'data: {"a": ' + b"[" * 100_000 + b"\n\n")
        assert decoder.fault is not None


# C. Tool calls

WEATHER = ("get_weather", {"city": "Rome"})
TIME = ("get_time", {"zone": "CET"})
W, T = '{"city": "Rome"}', '{"zone": "CET"}'


@pytest.mark.parametrize("ids", [{"id": ""}, {}, {"id": None}])
def test_two_whole_calls_under_one_index_without_ids_are_two(ids):
    first, second = function(W, "get_weather", **ids), function(T, "get_time", **ids)
    again = function('{"city": "Oslo"}', "get_weather", **ids)
    third = ("get_weather", {"city": "Oslo"})
    apart = calls(first) + calls(second) + calls(again)
    for body in (apart, calls(first, second, again)):
        events = run(OpenAIDecoder(), body + ends("openai", "tool_calls"))
        assert calls_of(events) == [WEATHER, TIME, third]
        assert len({event.call_id for event in events if isinstance(event, ToolCall)}) == 3


def test_two_equal_calls_of_one_event_are_two():
    body = calls(function(W, "get_weather"), function(W, "get_weather"))
    assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER, WEATHER]


@pytest.mark.parametrize("told", [{"id": "c"}, {}])
@pytest.mark.parametrize(
    "pieces", [("get_", "weather"), ("get_", "get_weather"), ("get_weather",) * 2]
)
def test_a_name_in_pieces_is_put_together(told, pieces):
    body = b"".join(calls(function("", piece, **told)) for piece in pieces)
    body += calls(function(W[:5])) + calls(function(W[5:]))
    assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER]


@pytest.mark.parametrize("name", [None, "get_weather"])
@pytest.mark.parametrize("told", [{}, {"id": "c"}])
@pytest.mark.parametrize(
    "pieces",
    [
        (W[:3], W[3:]),
        (W[:3], W[:9], W),
        (W[:3], W[3:], W),
        (W, W),
        ("", W),
        (W, ""),
    ],
)
def test_arguments_in_pieces_or_with_all_that_came_before_are_put_together(name, told, pieces):
    first, *rest = pieces
    body = calls(function(first, "get_weather", **told))
    body += b"".join(calls(function(piece, name, **told)) for piece in rest)
    assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER]


def test_arguments_are_read_as_an_object_as_text_in_text_and_with_half_a_character():
    for arguments in ({"city": "Rome"}, json.dumps(W)):
        body = calls(function(arguments, "get_weather"))
        assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER]
    for pieces in (('{"city": "\ud83d', '\ude00"}'), ('{"city": "\\ud83d', '\\ude00"}')):
        body = calls(function(pieces[0], "f")) + calls(function(pieces[1]))
        assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [("f", {"city": "😀"})]
    body = calls(function('{"city": "\\ud83d"}', "f"))
    assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [("f", {"city": "�"})]


def test_a_name_may_come_late_and_the_function_around_it_may_be_missing():
    late = calls(function(W[:4])) + calls(function(W[4:], "get_weather"))
    flat = calls({"index": 0, "id": "c", "name": "get_weather", "arguments": W})
    numbered = choice({"tool_calls": {"0": function(W, "get_weather")}})
    for body in (late, flat, numbered):
        assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER]


@pytest.mark.parametrize("vendor", VENDORS)
def test_two_calls_that_a_vendor_gave_one_id_go_out_under_two(vendor):
    body = {
        "openai": calls(
            function(W, "get_weather", id="c"), {**function(T, "get_time", id="c"), "index": 1}
        ),
        "anthropic": block(0, "tool_use", id="c", name="get_weather", input=WEATHER[1])
        + block(1, "tool_use", id="c", name="get_time", input=TIME[1]),
        "gemini": candidate(
            {"functionCall": {"id": "c", "name": "get_weather", "args": WEATHER[1]}},
            {"functionCall": {"id": "c", "name": "get_time", "args": TIME[1]}},
        ),
    }[vendor]
    events = run(DECODERS[vendor](), body + ends(vendor))
    assert calls_of(events) == [WEATHER, TIME]
    assert len({event.call_id for event in events if isinstance(event, ToolCall)}) == 2


def test_two_whole_calls_under_one_index_and_one_id_are_two():
    other = '{"city": "Oslo"}'
    body = calls(function(W, "get_weather", id="c")) + calls(function(other, "get_weather", id="c"))
    found = calls_of(run(OpenAIDecoder(), body + ends("openai")))
    assert found == [WEATHER, ("get_weather", {"city": "Oslo"})]


def test_anthropics_arguments_may_be_an_object():
    body = block(0, "tool_use", id="c", name="get_weather", input={})
    body += delta(0, type="input_json_delta", partial_json=WEATHER[1])
    assert calls_of(run(AnthropicDecoder(), body + ends("anthropic"))) == [WEATHER]


def test_a_new_id_with_each_piece_makes_no_new_call():
    body = calls(function(W[:5], "get_weather", id="a")) + calls(function(W[5:], id="b"))
    assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER]


def test_pieces_are_told_apart_by_id_where_there_is_no_index():
    def piece(told: str, arguments: str, name: str | None = None) -> dict:
        return {"id": told, "function": {"name": name, "arguments": arguments}}

    body = calls(piece("a", "", "get_weather"), piece("b", "", "get_time"))
    body += calls(piece("a", W), piece("b", T))
    assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER, TIME]


def test_calls_that_share_an_id_but_not_the_index_are_two():
    body = calls(
        function(W, "get_weather", id="c"), {**function(T, "get_time", id="c"), "index": 1}
    )
    assert calls_of(run(OpenAIDecoder(), body + ends("openai"))) == [WEATHER, TIME]


def test_calls_without_arguments_are_told_apart_by_the_tools_names():
    body = calls(function("", "f")) + calls(function("", "g"))
    decoder = OpenAIDecoder(frozenset({"f", "g"}))
    assert calls_of(run(decoder, body + ends("openai"))) == [("f", {}), ("g", {})]


def test_a_function_call_of_the_older_wire_is_a_call():
    body = choice({"function_call": {"name": "get_weather", "arguments": W[:4]}})
    body += choice({"function_call": {"arguments": W[4:]}}) + ends("openai", "function_call")
    assert calls_of(run(OpenAIDecoder(), body)) == [WEATHER]


def test_anthropics_blocks_under_one_index_are_calls_of_their_own():
    body = b"".join(
        block(0, "tool_use", id=told, name=name, input={})
        + delta(0, type="input_json_delta", partial_json=arguments[:6])
        + delta("0", type="input_json_delta", partial_json=arguments[6:])
        + data({"type": "content_block_stop", "index": 0})
        for told, name, arguments in (("", "get_weather", W), (None, "get_time", T))
    )
    events = run(AnthropicDecoder(), body + ends("anthropic", "tool_use"))
    assert calls_of(events) == [WEATHER, TIME]
    assert len({event.call_id for event in events if isinstance(event, ToolCall)}) == 2


def test_anthropics_arguments_may_repeat_or_come_with_the_block():
    grown = block(0, "tool_use", id="a", name="get_weather", input={})
    grown += b"".join(
        delta(0, type="input_json_delta", partial_json=piece) for piece in (W[:3], W[:9], W)
    )
    for body in (
        grown,
        block(0, "tool_use", id="a", name="get_weather", input=W),
        block(0, "tool_use", id=5, name="get_weather", input={"city": "Rome"}),
    ):
        assert calls_of(run(AnthropicDecoder(), body + ends("anthropic"))) == [WEATHER]


def test_geminis_arguments_may_be_text():
    part = {"functionCall": {"id": 7, "name": "get_weather", "args": W}}
    assert calls_of(run(GeminiDecoder(), candidate(part, reason="STOP"))) == [WEATHER]


@pytest.mark.parametrize("arguments", ["[1]", "{", "5", '{"a": NaN}'])
def test_arguments_that_are_no_object_are_a_break(arguments):
    decoder = OpenAIDecoder()
    run(decoder, calls(function(arguments, "f")) + ends("openai"))
    assert decoder.fault is not None
    assert decoder.fault.recurs


# F. A server that does not stream

MESSAGE = {"role": "assistant", "content": "Hi.", "reasoning_content": "hm"}
WHOLE_CALL = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": W}}
UNSTREAMED = {
    "openai": {
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {**MESSAGE, "tool_calls": [WHOLE_CALL]},
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    },
    "anthropic": {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "Hi."},
            {"type": "tool_use", "id": "c", "name": "get_weather", "input": {"city": "Rome"}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
    "gemini": {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "hm", "thought": True},
                        {"text": "Hi."},
                        {"functionCall": {"id": "c", "name": "get_weather", "args": WEATHER[1]}},
                    ]
                },
                "finishReason": "STOP",
            }
        ],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4},
        "modelVersion": "m",
    },
}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("form", ["a line", "lines", "a last line", "an array", "an event"])
def test_an_answer_in_one_object_is_read(vendor, form):
    whole = UNSTREAMED[vendor]
    body = {
        "a line": json.dumps(whole).encode(),
        "a last line": json.dumps(whole).encode() + b"\r\n",
        "lines": json.dumps(whole, indent=2).encode(),
        "an array": json.dumps([whole], indent=1).encode(),
        "an event": data(whole),
    }[form]
    for size in (len(body), 16):
        decoder = DECODERS[vendor]()
        events = read(decoder, body, size)
        assert decoder.fault is None
        assert text_of(events) == "Hi."
        assert Reasoning("hm") in events
        assert Served("m") in events
        assert calls_of(events) == [WEATHER]
        assert Finish(FinishReason.TOOL_CALLS) in events
        assert Usage(3, 4, estimated=False) in events


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_answer_in_one_object_that_is_cut_is_a_break(vendor):
    decoder = DECODERS[vendor]()
    run(decoder, json.dumps(UNSTREAMED[vendor]).encode()[:-3])
    assert decoder.fault is not None
    assert not decoder.finished


def test_a_message_that_repeats_what_was_streamed_says_nothing():
    final = data(
        {"choices": [{"delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}]}
    )
    events = run(OpenAIDecoder(), says("openai", "a") + says("openai", "b") + final)
    assert text_of(events) == "ab"
