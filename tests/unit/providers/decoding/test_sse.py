from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Code, Fault
from relay.providers.decoding.sse import MAX_EVENT_BYTES, Aside, Splitter


def plain(payload: bytes | Aside) -> bytes | tuple:
    """A payload as it is, an aside as what can be compared."""
    if isinstance(payload, bytes):
        return payload
    return (payload.named, payload.bare, payload.text, payload.value)


def split(body: bytes, *cuts: int) -> list[bytes | tuple]:
    splitter = Splitter()
    payloads: list[bytes | Aside] = []
    edges = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        payloads += splitter.feed(body[begin:end])
    return [plain(payload) for payload in payloads + splitter.eof()]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_any_line_end_ends_a_line(end):
    body = end.join([b"event: x", b"data: one", b"", b"data:two", b"id: 3", b"", b""])
    assert split(body) == [b"one", b"two"]


def test_data_lines_of_one_event_are_joined_by_line_feeds():
    assert split(b"data: a\ndata: b\ndata:\ndata\n\n") == [b"a\nb\n\n"]


@pytest.mark.parametrize("before", [b"", b"data: a", b"data: a\n", b"event: x\r", b": c\n"])
@pytest.mark.parametrize(
    "read", [b"data: b\n\n", b"data: \n\n", b"data: b\r\n\n", b"data: b\nx", b"data: b\r\n\r\n"]
)
def test_a_read_that_is_one_event_is_taken_as_its_bytes_one_by_one_are(before, read):
    body = before + read + b"data: c\n\n"
    assert split(body, len(before), len(before + read)) == split(body, *range(len(body)))


def test_an_event_of_the_largest_size_may_come_in_one_read():
    largest = b"x" * MAX_EVENT_BYTES
    assert split(b"data: " + largest + b"\n\n") == [largest]
    with pytest.raises(Fault, match="longer than"):
        split(b"data: " + largest + b"x\n\n")


def test_only_one_space_after_the_colon_is_dropped():
    assert split(b"data:  a\n\n") == [b" a"]


def test_a_comment_is_an_empty_payload():
    assert split(b": keep-alive\n\ndata: a\n\n") == [b"", b"a"]


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it():
    assert split(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]


def test_an_event_that_no_blank_line_closed_is_given_at_the_end():
    assert split(b"data: a\n\ndata: b\n") == [b"a", b"b"]
    assert split(b"data: a\n\ndata: b") == [b"a", b"b"]


def test_lines_that_are_no_event_are_told_in_their_place():
    error = b'{\n  "error": {}\n}'
    told = (False, True, error, {"error": {}})
    assert split(b"data: a\n\n" + error + b"\n\ndata: b\n\n") == [b"a", told, b"b"]
    assert split(b"data: a\n\n" + error + b"\ndata: b\n\n") == [b"a", told, b"b"]
    assert split(b"data: a\n\n" + error) == [b"a", told]


def test_a_line_whose_name_tells_of_a_failure_is_told_at_once():
    told = (True, False, b'{"code": 5}', {"code": 5})
    assert split(b'data: a\nerror: {"code": 5}\ndata: b\n\n') == [told, b"a\nb"]
    assert Splitter().feed(b"error: out of memory\n")


def test_an_event_whose_name_tells_of_a_failure_is_told_as_such():
    told = (True, False, b'{"code": 5}', {"code": 5})
    assert split(b'event: error\ndata: {"code": 5}\n\ndata: b\n\n') == [told, b"b"]
    assert split(b'data: {"code": 5}\nevent:InternalException\n\n') == [told]
    assert split(b"event: error\n\n") == [(True, False, b"", None)]
    assert split(b"event: result\ndata: b\n\n") == [b"b"]


def test_json_a_line_is_told_line_by_line():
    lines = b'{"a": 1}\n{"a": 2}\n'
    assert [told[3] for told in split(lines)] == [{"a": 1}, {"a": 2}]


def test_lines_that_are_no_event_and_no_json_are_told_at_the_end():
    assert split(b"<html>\n\n<p>:</p>\n\n") == [(False, True, b"<html>\n<p>:</p>", None)]


def test_half_a_json_object_is_told_as_broken():
    *_, aside = [*Splitter().feed(b'{"a": \n'), *_eof(b'{"a": \n')]
    assert aside.broken


def _eof(body: bytes) -> list:
    splitter = Splitter()
    splitter.feed(body)
    return splitter.eof()


def test_lines_that_are_no_event_are_bounded():
    splitter, fed = Splitter(), 0

    def feed_on() -> None:
        nonlocal fed
        while fed < 4 * MAX_EVENT_BYTES:
            splitter.feed(b"<" + b"x" * 1024 + b">\n\n")
            fed += 1024

    with pytest.raises(Fault):
        feed_on()
    assert fed <= MAX_EVENT_BYTES


@pytest.mark.parametrize("step", [4096, MAX_EVENT_BYTES * 2])
def test_an_event_of_the_largest_size_passes_and_one_byte_more_is_a_fault(step):
    def fed(size: int) -> list[bytes]:
        splitter, body = Splitter(), b"data: " + b"x" * size + b"\n\n"
        return [p for at in range(0, len(body), step) for p in splitter.feed(body[at : at + step])]

    assert [len(payload) for payload in fed(MAX_EVENT_BYTES)] == [MAX_EVENT_BYTES]
    with pytest.raises(Fault) as caught:
        fed(MAX_EVENT_BYTES + 1)
    assert caught.value.code is Code.PROVIDER_INTERRUPTED


@pytest.mark.slow
def test_an_event_without_end_is_a_fault_before_it_fills_the_memory():
    splitter, fed = Splitter(), 0

    def feed_on() -> None:
        nonlocal fed
        while fed < 4 * MAX_EVENT_BYTES:
            splitter.feed(b"data:\n" * 8192)
            fed += 8192

    with pytest.raises(Fault):
        feed_on()
    assert fed <= MAX_EVENT_BYTES


PIECES = st.sampled_from(
    [
        *("data: é漢👩‍🚀", "data:", ": c", "event: e", "id: 1", "", "retry: 9", "data: {}"),
        *("event: error", "event: ping", 'error: {"a": 1}', "{", '"a": 2', "}", "<p>", "error: x"),
    ]
)


@given(st.lists(PIECES, max_size=12), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_payloads_are_equal_wherever_the_body_is_cut(lines, end, data):
    body = "".join(line + end for line in lines).encode()
    cuts = data.draw(st.lists(st.integers(0, max(len(body), 1)), max_size=20))
    assert split(body, *cuts) == split(body)
