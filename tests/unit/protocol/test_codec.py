from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Code, RelayError, StreamExpired
from relay.core.events import (
    Done,
    EndedAttempt,
    Failed,
    Fallback,
    FinishReason,
    Kind,
    Reasoning,
    Record,
    Start,
    Target,
    Text,
    Timing,
    ToolCall,
    Usage,
)
from relay.core.records import Records
from relay.core.records import encode as encode_record
from relay.protocol.codec import (
    MAX_DEPTH,
    MAX_FAULTS_TOLD,
    MAX_PLACE_CHARS,
    MAX_VALUES,
    BadFrame,
    NotAFrame,
    decode_frame,
    decode_object,
    encode,
    encode_chunk,
    encode_id,
    error_frame,
)
from relay.protocol.frames import SERVER_FRAMES, PingFrame
from relay.protocol.plainchat import ReadChat
from tests.frames import server_frame

USAGE = Usage(10, 20, False, cached_input_tokens=3)
ATTEMPTS = [
    EndedAttempt("gpt", "m", "provider_timeout", 12),
    EndedAttempt("claude", "n", "ok", 7, hedge=True, usage=USAGE),
]
RECORDS: list[Record] = [
    Start("st1", "gpt", "m"),
    Reasoning("hmm"),
    Text('say "hi"\n\u2028 \x01 日本'),
    ToolCall("c1", "f", {"a": [1, None, {"b": "é"}]}, "opaque"),
    ToolCall("c2", "g", {}),
    Fallback(Target("gpt", "m"), Target("claude", "n"), Code.PROVIDER_INTERRUPTED, True),
    Done("claude", "n", FinishReason.STOP, USAGE, ATTEMPTS, Timing(5, 9), 0.25),
    Done("claude", "n", FinishReason.CANCELLED, Usage(1, 0, True), [], Timing(None, 9)),
    Failed(Code.PROVIDERS_EXHAUSTED, "all failed", True, 1.5, ATTEMPTS),
    Failed(Code.ABANDONED, "nobody came back", False),
]


def frame_of(*records: Record, id: str = "a") -> dict[str, Any]:
    log = Records()
    for record in records:
        log.append(*encode_record(record))
    chunk = log.take(-1)
    assert chunk is not None
    spliced = encode_chunk(encode_id(id), chunk)
    server_frame.validate_json(spliced)
    return json.loads(spliced)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_spliced_bytes_are_the_frame_that_the_model_describes(record: Record) -> None:
    frame = frame_of(record, id="a.b-c")
    model = SERVER_FRAMES[frame["type"]].model_validate(frame)
    written = json.loads(encode(model))  # type: ignore[arg-type]
    if "timing" in frame:
        written["timing"].setdefault("first_token_ms", None)
    assert frame == written
    assert (frame["id"], frame["seq"]) == ("a.b-c", 0)


def test_every_kind_of_record_is_among_them() -> None:
    assert {frame_of(record)["type"] for record in RECORDS} == {kind.value for kind in Kind}


def test_what_is_none_is_left_out() -> None:
    assert "cost_usd" not in frame_of(RECORDS[7])
    assert "state" not in frame_of(ToolCall("c", "f", {}))
    assert frame_of(RECORDS[9]).keys() == {"type", "id", "seq", "code", "message", "retryable"}


def test_first_is_there_only_where_records_were_merged() -> None:
    assert frame_of(Text("a")) == {"type": "token", "id": "a", "seq": 0, "text": "a"}
    merged = {"type": "token", "id": "a", "seq": 2, "first": 0, "text": "abc"}
    assert frame_of(Text("a"), Text("b"), Text("c")) == merged


@given(st.lists(st.text(min_size=1).filter(str.isprintable), min_size=1, max_size=9))
def test_merged_text_is_the_text(pieces: list[str]) -> None:
    assert frame_of(*[Text(piece) for piece in pieces])["text"] == "".join(pieces)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "nonsense",
            "[]",
            "5",
            "null",
            '"hello"',
            "{",
            '{"type":"ping"',
            "{}",
            "\ufeff{}",
        ),
        *('{"type":5}', '{"type":null}', '{"type":["ping"]}', '{"type":"ping","t":NaN}'),
        *('{"type":"ping","t":1e999}', '{"type":"ping","t":"\\ud800"}', '{"type":"ping"} x'),
        *("[" * 100_000, '{"a":' * 100_000, '{"type":"ping","t":' + "9" * 5_000 + "}"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_frame_at_all_is_told_so(text: str) -> None:
    with pytest.raises(NotAFrame) as caught:
        decode_frame(text)
    assert caught.value.code is Code.BAD_FRAME


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_json_may_be_nested_to_the_limit_and_no_deeper(open_: str, close: str) -> None:
    def nested(depth: int) -> str:
        return '{"x":' + open_ * (depth - 1) + "1" + close * (depth - 1) + "}"

    assert decode_object(nested(MAX_DEPTH))
    with pytest.raises(NotAFrame, match="nested"):
        decode_object(nested(MAX_DEPTH + 1))


def test_json_may_have_so_many_values_and_no_more() -> None:
    def wide(count: int) -> str:
        return '{"x":[' + ",".join("1" * (count - 1)) + "]}"  # and a bracket, and a brace

    assert decode_object(wide(MAX_VALUES))
    with pytest.raises(NotAFrame, match="values"):
        decode_object(wide(MAX_VALUES + 1))


@pytest.mark.parametrize("text", ["[{,]}" * MAX_VALUES, '\\"[{,]}' * MAX_VALUES, "\\" * 9])
def test_brackets_and_commas_of_a_text_do_not_count(text: str) -> None:
    assert decode_object(json.dumps({"x": text, "y": text})) == {"x": text, "y": text}


def test_an_unknown_type_names_the_known_ones_and_not_itself() -> None:
    with pytest.raises(BadFrame) as caught:
        decode_frame('{"type":"sk-secret","id":"a"}')
    assert caught.value.message == (
        "type: unknown frame type; known are hello, chat, cancel, resume, ping, pong"
    )
    assert caught.value.id == "a"


def test_an_id_that_could_not_be_one_is_not_sent_back() -> None:
    with pytest.raises(BadFrame) as caught:
        decode_frame('{"type":"cancel","id":"' + "x" * 65 + '"}')
    assert caught.value.id is None


def test_shape_is_bad_frame_and_meaning_is_bad_request() -> None:
    for text, code in [
        ('{"type":"chat","messages":7}', Code.BAD_FRAME),
        ('{"type":"chat","messages":[]}', Code.BAD_REQUEST),
        ('{"type":"resume"}', Code.BAD_FRAME),
    ]:
        with pytest.raises(BadFrame) as caught:
            decode_frame(text)
        assert caught.value.code is code


SECRET = "sk-live-4242424242"


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "hello", "token": [SECRET]},
        {"type": "hello", "token": SECRET * 1000},
        {"type": "hello", "session": SECRET},
        {"type": "chat", "messages": [{"role": SECRET, "content": SECRET}]},
        {"type": "chat", "messages": [{"role": "user", "content": [{"type": SECRET}]}]},
        {"type": "chat", "messages": "x", "tool_choice": SECRET},
        {"type": "chat", "messages": "x", "max_tokens": SECRET},
        {"type": "chat", "messages": "x", "stop": [SECRET, 1]},
        {"type": "cancel", "id": SECRET + " "},
        {"type": SECRET},
    ],
)
def test_a_message_never_quotes_what_was_sent(frame: dict[str, Any]) -> None:
    with pytest.raises(BadFrame) as caught:
        decode_frame(json.dumps(frame))
    assert SECRET not in caught.value.message
    assert len(caught.value.message) < 400


def test_a_long_list_of_faults_is_cut_short() -> None:
    frame = {"type": "ping"} | {f"f{n}": 1 for n in range(MAX_FAULTS_TOLD + 4)}
    with pytest.raises(BadFrame) as caught:
        decode_frame(json.dumps(frame))
    assert caught.value.message.count("is an unknown field") == MAX_FAULTS_TOLD
    assert caught.value.message.endswith("; and 4 more")


def test_a_huge_or_unprintable_name_of_a_field_is_cut_and_cleaned() -> None:
    with pytest.raises(BadFrame) as caught:
        decode_frame(json.dumps({"type": "ping", "a\x1b[31m\r\n" + "b" * 100_000: 1}))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < MAX_PLACE_CHARS + 40


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_tags = st.sampled_from(["hello", "chat", "cancel", "resume", "ping", "pong", "done"])
_names = st.sampled_from(
    ["id", "session", "resume", "token", "messages", "after", "stream", "t", "tools", "stop", "zz"]
)


@given(_tags, st.dictionaries(_names, _json, max_size=5))
def test_any_json_is_a_frame_or_a_clear_refusal(tag: str, fields: dict[str, Any]) -> None:
    text = json.dumps(fields | {"type": tag})
    try:
        frame = decode_frame(text)
        assert isinstance(frame, ReadChat) if tag == "chat" else frame.type == tag
    except (BadFrame, NotAFrame) as fault:
        server_frame.validate_json(encode(error_frame(fault)))


@given(st.text())
def test_any_text_is_a_frame_or_a_clear_refusal(text: str) -> None:
    with pytest.raises((BadFrame, NotAFrame)):
        decode_frame(text)


def test_a_refusal_has_no_seq_so_that_the_id_stays_free() -> None:
    frame = json.loads(encode(error_frame(StreamExpired(), "a")))
    assert frame == {
        "type": "error",
        "id": "a",
        "code": "stream_expired",
        "message": "this stream is not available; send the chat again",
        "retryable": False,
    }
    limited = RelayError(Code.RATE_LIMITED, "wait", retryable=True, retry_after=2.5)
    assert json.loads(encode(error_frame(limited)))["retry_after"] == 2.5


def test_ping_without_t_is_its_tag_alone() -> None:
    assert encode(PingFrame(type="ping")) == b'{"type":"ping"}'
