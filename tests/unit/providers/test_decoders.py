"""Shapes that servers are known to send and that no recording here holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import upstreams as up
from lab.upstreams.wires import WIRES
from relay.core.errors import Code
from relay.core.events import (
    ALIVE,
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

DONE = b"data: [DONE]\n\n"
DECODERS = {"openai": OpenAIDecoder, "anthropic": AnthropicDecoder, "gemini": GeminiDecoder}


def data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def choice(delta: dict, reason: str | None = None, **more) -> bytes:
    return data({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})


def candidate(parts: list, reason: str | None = None, **more) -> bytes:
    body = {"content": {"parts": parts, "role": "model"}}
    return data({"candidates": [body | ({"finishReason": reason} if reason else {})], **more})


def run(decoder: Decoder, *chunks: bytes, eof: bool = True) -> list[Event]:
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + (decoder.eof() if eof else [])


def test_text_in_the_chunk_that_finishes_is_kept():
    events = run(OpenAIDecoder(), choice({"content": "a"}, "stop") + DONE)
    assert events == [Text("a"), Finish(FinishReason.STOP)]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_and_text_in_one_chunk_are_both_kept(field):
    events = run(OpenAIDecoder(), choice({field: "hm", "content": "a"}, "stop"))
    assert events[:2] == [Reasoning("hm"), Text("a")]


def test_content_in_pieces_as_mistral_sends_it_is_text_and_reasoning():
    pieces = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "a"},
    ]
    assert run(OpenAIDecoder(), choice({"content": pieces}, "stop"))[:2] == [
        Reasoning("hm"),
        Text("a"),
    ]


def test_a_refusals_words_are_not_shown_and_filter_the_answer():
    events = run(OpenAIDecoder(), choice({"refusal": "No."}), choice({}, "stop") + DONE)
    assert events == [ALIVE, Finish(FinishReason.CONTENT_FILTER)]


def test_an_empty_finish_reason_is_none():
    decoder = OpenAIDecoder()
    assert run(decoder, choice({"content": "a"}, ""), eof=False) == [Text("a")]
    assert not decoder.finished


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_a_finish_reason_that_means_failure_is_a_fault(reason):
    decoder = OpenAIDecoder()
    assert run(decoder, choice({"content": "a"}), choice({}, reason)) == [Text("a")]
    assert decoder.fault is not None
    assert decoder.fault.remedy == "retry"


def test_stop_behind_forced_tool_calls_means_tool_calls():
    delta = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    events = run(OpenAIDecoder(), choice(delta), choice({}, "stop"))
    assert events[1:] == [ToolCall("c", "f", {}), Finish(FinishReason.TOOL_CALLS)]


def test_parallel_calls_that_share_an_index_are_told_apart_by_their_ids():
    def delta(call_id: str) -> bytes:
        function = {"name": "f", "arguments": '{"n": "' + call_id + '"}'}
        return choice({"tool_calls": [{"index": 0, "id": call_id, "function": function}]})

    events = run(OpenAIDecoder(), delta("a"), delta("b"), choice({}, "tool_calls"))
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert calls == [ToolCall("a", "f", {"n": "a"}), ToolCall("b", "f", {"n": "b"})]


def test_calls_without_index_or_with_arguments_as_an_object_are_read():
    delta = {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"n": 1}}}]}
    events = run(OpenAIDecoder(), choice(delta, "tool_calls"))
    assert ToolCall("c", "f", {"n": 1}) in events


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_an_answer_cut_by_its_length_leaves_out_the_call_it_did_not_finish(vendor):
    wire = WIRES[vendor]("m", {})
    steps = [up.Call("a", "f", '{"n": 1}'), up.Call("b", "f", '{"n": '), up.Call("c", "f", "")]
    body = wire.opening() + b"".join(map(wire.say, [*steps, up.Finish("length"), up.End()]))
    decoder = DECODERS[vendor]()
    events = run(decoder, body)
    assert [event for event in events if isinstance(event, ToolCall)] == [
        ToolCall("a", "f", {"n": 1})
    ]
    assert Finish(FinishReason.LENGTH) in events
    assert decoder.fault is None


def test_a_second_choice_is_not_mixed_into_the_answer():
    other = data({"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": "stop"}]})
    assert run(OpenAIDecoder(), other, eof=False) == [ALIVE]


def test_usage_on_every_chunk_is_a_running_total():
    counts = {"prompt_tokens": 3, "completion_tokens": 1}
    events = run(OpenAIDecoder(), choice({"content": "a"}, "stop", usage=counts))
    assert Usage(3, 1, estimated=False) in events
    assert run(OpenAIDecoder(), choice({"content": "a"}, "stop", usage={}))[-1] == Finish(
        FinishReason.STOP
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "x", "code": 502}, Code.PROVIDER_ERROR),
        ({"message": "x", "code": 429}, Code.PROVIDER_RATE_LIMITED),
        ({"message": "x", "type": "server_error"}, Code.PROVIDER_ERROR),
        ({"message": "x", "type": "exceed_context_size_error", "code": 400}, Code.CONTEXT_LENGTH),
        ({"message": "x", "code": 400}, Code.PROVIDER_ERROR),
        ("upstream gone", Code.PROVIDER_ERROR),
    ],
)
def test_an_error_object_inside_the_stream_is_a_fault(error, code):
    decoder = OpenAIDecoder()
    assert run(decoder, choice({"content": "a"}), data({"error": error})) == [Text("a")]
    assert decoder.fault is not None
    assert decoder.fault.code is code


def test_a_filter_that_strikes_inside_the_stream_ends_the_answer_as_filtered():
    decoder = OpenAIDecoder()
    events = run(decoder, choice({"content": "a"}), data({"error": {"code": "content_filter"}}))
    assert events == [Text("a"), Finish(FinishReason.CONTENT_FILTER)]
    assert decoder.fault is None


@pytest.mark.parametrize("vendor", sorted(DECODERS))
def test_a_bare_error_object_instead_of_events_is_its_fault(vendor):
    decoder = DECODERS[vendor]()
    assert run(decoder, b'{"error": {"message": "no", "code": 503, "status": "UNAVAILABLE"}}') == []
    assert decoder.fault is not None


@pytest.mark.parametrize("vendor", sorted(DECODERS))
def test_a_page_instead_of_events_is_a_break(vendor):
    decoder = DECODERS[vendor]()
    assert run(decoder, b"<html>\n<body>Sign in</body>\n</html>\n") == []
    assert decoder.fault is not None
    assert decoder.fault.code is Code.PROVIDER_INTERRUPTED


@pytest.mark.parametrize("vendor", sorted(DECODERS))
@pytest.mark.parametrize("trouble", [b'data: {"a": \n\n', b"data: \xff\xfe\n\n", b"data: 3\n\n"])
def test_what_follows_a_finish_breaks_nothing(vendor, trouble):
    wire, decoder = WIRES[vendor]("m", {}), DECODERS[vendor]()
    body = wire.opening() + wire.say(up.Token("a")) + wire.say(up.Finish())
    run(decoder, body, trouble)
    assert decoder.finished
    assert decoder.fault is None


@pytest.mark.parametrize("vendor", sorted(DECODERS))
@pytest.mark.parametrize("trouble", [b'data: {"a": \n\n', b"data: \xff\xfe\n\n", b"data: 3\n\n"])
def test_an_unreadable_event_before_the_finish_is_a_break_after_the_text_of_the_same_read(
    vendor, trouble
):
    wire, decoder = WIRES[vendor]("m", {}), DECODERS[vendor]()
    events = run(decoder, wire.opening() + wire.say(up.Token("a")) + trouble)
    assert Text("a") in events
    assert decoder.fault is not None
    assert decoder.fault.code is Code.PROVIDER_INTERRUPTED


def test_unknown_events_of_anthropics_are_life():
    wire = WIRES["anthropic"]("m", {})
    unknown = data({"type": "content_block_foo", "delta": {"type": "bar_delta", "bar": 1}})
    assert run(AnthropicDecoder(), wire.opening(), unknown, eof=False) == [Served("m"), ALIVE]


def test_input_that_anthropic_counts_apart_is_summed():
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 30,
        "output_tokens": 1,
    }
    started = data({"type": "message_start", "message": {"model": "m", "usage": usage}})
    ended = data(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
        }
    )
    events = run(AnthropicDecoder(), started, ended)
    assert Usage(60, 9, estimated=False, cached_input_tokens=30, reasoning_tokens=4) in events


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop_sequence", FinishReason.STOP),
        ("pause_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("refusal", FinishReason.CONTENT_FILTER),
    ],
)
def test_anthropics_stop_reasons_are_mapped(reason, expected):
    ended = data({"type": "message_delta", "delta": {"stop_reason": reason}})
    assert run(AnthropicDecoder(), ended) == [Finish(expected)]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.CONTENT_FILTER),
    ],
)
def test_geminis_finish_reasons_are_mapped(reason, expected):
    assert run(GeminiDecoder(), candidate([{"text": "a"}], reason)) == [Text("a"), Finish(expected)]


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "SOMETHING_NEW"])
def test_geminis_reasons_that_mean_failure_are_a_break(reason):
    decoder = GeminiDecoder()
    assert run(decoder, candidate([{"text": "a"}], reason)) == [Text("a")]
    assert decoder.fault is not None
    assert decoder.fault.remedy == "retry"


def test_geminis_calls_get_an_id_where_it_gives_none_and_its_signature_is_tagged():
    part = {"functionCall": {"name": "f", "args": {"n": 1}}, "thoughtSignature": "c2ln"}
    events = run(GeminiDecoder("turn7"), candidate([part, {"functionCall": {"name": "g"}}], "STOP"))
    assert events == [
        ToolCall("turn7-0", "f", {"n": 1}, "gemini:c2ln"),
        ToolCall("turn7-1", "g", {}),
        Finish(FinishReason.TOOL_CALLS),
    ]


def test_each_of_geminis_calls_is_handed_over_once_when_every_chunk_has_a_finish():
    def chunk(name: str) -> bytes:
        return candidate([{"functionCall": {"id": name, "name": name}}], "STOP")

    events = run(GeminiDecoder(), chunk("a"), chunk("b"))
    assert [event.name for event in events if isinstance(event, ToolCall)] == ["a", "b"]
    assert isinstance(events[-1], Finish)


def test_a_connection_that_breaks_after_a_finish_was_taken_back_is_a_break():
    decoder = GeminiDecoder()
    run(decoder, candidate([{"text": "a"}], "STOP"), eof=False)
    assert decoder.finished
    run(decoder, candidate([{"text": "b"}], "STOP"), eof=False)
    assert not decoder.finished


def test_a_blocked_prompt_is_a_filtered_answer():
    blocked = data({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
    assert run(GeminiDecoder(), blocked) == [Finish(FinishReason.CONTENT_FILTER)]
    unsaid = data({"promptFeedback": {"blockReason": "BLOCKED_REASON_UNSPECIFIED"}})
    assert run(GeminiDecoder(), unsaid, eof=False) == [ALIVE]


def test_geminis_first_counts_without_output_are_not_reported():
    first = candidate([{"text": "a"}], usageMetadata={"promptTokenCount": 5, "totalTokenCount": 5})
    assert run(GeminiDecoder(), first, eof=False) == [Text("a")]


STEPS = st.one_of(
    st.text(min_size=1, max_size=8).map(up.Token),
    st.text(min_size=1, max_size=8).map(up.Thought),
)


@given(st.sampled_from(sorted(DECODERS)), st.lists(STEPS, max_size=8), st.data())
def test_any_answer_cut_anywhere_gives_the_same_events(vendor, steps, drawn):
    wire = WIRES[vendor]("m", {"stream_options": {"include_usage": True}})
    said = [*steps, up.Token("."), up.Counts(), up.Finish(), up.End()]
    body = wire.opening() + b"".join(map(wire.say, said))
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole, cut = run(DECODERS[vendor](), body), run(DECODERS[vendor](), *pieces)
    kept = (Text, Reasoning, Finish, Served)
    assert [e for e in cut if isinstance(e, kept)] == [e for e in whole if isinstance(e, kept)]
    texts = "".join(step.text for step in said if isinstance(step, up.Token))
    assert "".join(e.text for e in whole if isinstance(e, Text)) == texts
    assert [e for e in cut if isinstance(e, Usage)][-1] == [
        e for e in whole if isinstance(e, Usage)
    ][-1]
