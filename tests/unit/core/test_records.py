"""The record buffer: whatever is put in comes out, in whatever pieces it is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Code
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
from relay.core.records import (
    MAX_FRAME_TEXT,
    MAX_RECORD_CHARS,
    Records,
    announced,
    decode,
    encode,
    escape,
    shown,
    split_long,
    unescape,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
USAGE = Usage(3, 4, estimated=True, cached_input_tokens=0)
EVERY_KIND: list[Record] = [
    Start("s", "gpt", "m"),
    Text("t"),
    Reasoning("r"),
    ToolCall("c", "f", {"a": [1, None, "é"]}, "state"),
    Fallback(Target("gpt", "a"), Target("claude", "b"), Code.PROVIDER_TIMEOUT, keep=False),
    Done(
        "gpt",
        "m",
        FinishReason.LENGTH,
        USAGE,
        [EndedAttempt("gpt", "m", "ok", 5, hedge=True, usage=USAGE)],
        Timing(None, 9),
    ),
    Failed(Code.PROVIDERS_EXHAUSTED, "all failed", retryable=True, retry_after=1.5, attempts=[]),
]


def filled(records: list[Record]) -> Records:
    buffer = Records()
    for record in records:
        buffer.append(*encode(record))
    return buffer


def test_every_kind_comes_back_as_it_was() -> None:
    for record in EVERY_KIND:
        assert decode(*encode(record)) == record


@given(TEXT)
def test_escaping_loses_nothing(text: str) -> None:
    assert unescape(escape(text)) == text


@given(
    st.lists(st.one_of(TEXT.map(Text), TEXT.map(Reasoning), st.sampled_from(EVERY_KIND[3:5]))),
    st.integers(1, 200),
    st.integers(-1, 30),
)
def test_chunks_are_gapless_ordered_and_whole_from_any_cursor(
    records: list[Record], limit: int, after: int
) -> None:
    buffer = filled(records)
    after = min(after, len(records) - 1)
    texts: list[tuple[Kind, str]] = []
    seq = after
    while chunk := buffer.take(seq, limit):
        assert chunk.first == seq + 1
        assert chunk.last >= chunk.first
        assert len(chunk.body) <= limit or chunk.first == chunk.last
        kinds = {encode(record)[0] for record in records[chunk.first : chunk.last + 1]}
        assert kinds == {chunk.kind}
        if chunk.kind in (Kind.TOKEN, Kind.REASONING):
            texts.append((chunk.kind, unescape(chunk.body)))
        else:
            assert chunk.first == chunk.last
            assert decode(chunk.kind, chunk.body) == records[chunk.first]
        seq = chunk.last
    assert seq == len(records) - 1
    for kind, struct in ((Kind.TOKEN, Text), (Kind.REASONING, Reasoning)):
        got = "".join(text for of, text in texts if of is kind)
        assert got == "".join(r.text for r in records[after + 1 :] if isinstance(r, struct))


@given(TEXT, st.integers(1, 5))
def test_long_text_is_split_without_loss(text: str, times: int) -> None:
    long = text * (MAX_RECORD_CHARS * times // len(text) + 1)
    pieces = split_long([Text(long), Reasoning("short")])
    texts = [piece.text for piece in pieces if isinstance(piece, Text)]
    assert "".join(texts) == long
    assert all(len(escape(piece)) <= MAX_FRAME_TEXT for piece in texts)
    assert pieces[-1] == Reasoning("short")


def test_a_record_at_the_limit_is_not_split() -> None:
    records = [Text("x" * MAX_RECORD_CHARS)]
    assert split_long(records) is records


def test_a_fallback_that_keeps_nothing_takes_text_and_reasoning_away() -> None:
    fresh = Fallback(Target("a", "a"), Target("b", "b"), Code.PROVIDER_TIMEOUT, keep=False)
    call = ToolCall("c", "f", {})
    records = [Text("old"), Reasoning("old"), call, fresh, Text("new")]
    assert shown(filled(records).chunks()) == ("new", "", (call,))


def test_a_fallback_that_keeps_goes_on_from_the_text() -> None:
    go_on = Fallback(Target("a", "a"), Target("b", "b"), Code.PROVIDER_TIMEOUT, keep=True)
    records = [Text("old"), Reasoning("thought"), go_on, Text("new")]
    assert shown(filled(records).chunks()) == ("oldnew", "thought", ())


def test_memory_of_a_token_is_its_bytes_and_an_offset() -> None:
    buffer = filled([Text("abcd")] * 1_000)
    assert buffer.size <= 1_000 * (4 + 4) + 100


def test_only_a_terminal_record_ends_it() -> None:
    for record in EVERY_KIND:
        assert filled([record]).ended is isinstance(record, Done | Failed)


@given(st.lists(st.one_of(TEXT.map(Text), TEXT.map(Reasoning), st.sampled_from(EVERY_KIND))))
def test_each_gives_back_what_was_appended(records: list[Record]) -> None:
    assert filled(records).each() == [encode(record) for record in records]


def test_readers_were_last_told_of_the_start_or_the_newest_fallback() -> None:
    go_on = Fallback(Target("a", "a"), Target("b", "b"), Code.PROVIDER_TIMEOUT, keep=True)
    records = [Start("s", "gpt", "m"), Text("x")]
    assert announced(filled(records).chunks()) == Target("gpt", "m")
    assert announced(filled([*records, go_on]).chunks()) == Target("b", "b")
    assert announced([]) is None
