"""The gate for frames, whatever pieces they come in."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.edges.rfc6455 import FrameGate


def frame(first: int, payload: bytes, *, mask: bool = True) -> bytes:
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 65_536:
        head = bytes([first, bit | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + size.to_bytes(8, "big")
    return head + (b"mask" if mask else b"") + payload


SIZES = st.sampled_from([0, 1, 2, 125, 126, 127, 300, 65_535, 65_536])
PAYLOADS = SIZES.map(lambda size: b"\x81" * size)  # looks like a frame without a mask
CONTROL = st.builds(frame, st.sampled_from([0x89, 0x8A]), st.just(b"\x81\x01"))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message, in fragments with control frames between."""
    first = draw(st.sampled_from([1, 2]))
    pieces = draw(st.lists(PAYLOADS, min_size=1, max_size=4))
    opcodes = [first, *[0] * (len(pieces) - 1)]
    opcodes[-1] |= 0x80
    return b"".join(
        draw(st.one_of(st.just(b""), CONTROL)) + frame(opcode, piece)
        for opcode, piece in zip(opcodes, pieces, strict=True)
    )


GOOD = st.lists(st.one_of(messages(), CONTROL), max_size=4).map(b"".join)
BAD = st.one_of(
    st.builds(frame, st.sampled_from([0x81, 0x82, 0x89, 0x8A, 0x88, 0x01]), PAYLOADS).map(
        lambda data: data[:1] + bytes([data[1] & 0x7F]) + data[2:]
    ),
    st.builds(frame, st.sampled_from([0x80, 0x00]), PAYLOADS),
)
INSIDE = st.builds(
    lambda start, second, text: (frame(start, text), frame(second, b"x")),
    st.sampled_from([1, 2]),
    st.sampled_from([0x81, 0x82, 0x01, 0x02]),
    PAYLOADS,
)


def fed(data: bytes, cuts: list[int]) -> tuple[FrameGate, bytes]:
    """What a gate admits of `data`, cut at these places, and the gate."""
    gate, admitted = FrameGate(), b""
    for start, end in pairwise([0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]):
        if not gate.broken:
            admitted += gate.admit(data[start:end])
    return gate, admitted


CUTS = st.lists(st.integers(0, 1 << 20), max_size=12)


@given(good=GOOD, cuts=CUTS)
def test_what_keeps_the_rules_goes_through_whole(good: bytes, cuts: list[int]) -> None:
    gate, admitted = fed(good, cuts)
    assert admitted == good
    assert not gate.broken


@given(good=GOOD, bad=BAD, tail=st.binary(max_size=9), cuts=CUTS)
def test_nothing_goes_through_from_the_first_frame_that_breaks_one(
    good: bytes, bad: bytes, tail: bytes, cuts: list[int]
) -> None:
    gate, admitted = fed(good + bad + tail, cuts)
    assert gate.broken
    assert admitted == good


@given(good=GOOD, inside=INSIDE, cuts=CUTS)
def test_a_message_does_not_begin_within_another(
    good: bytes, inside: tuple[bytes, bytes], cuts: list[int]
) -> None:
    begun, second = inside
    gate, admitted = fed(good + begun + second, cuts)
    assert gate.broken
    assert admitted == good + begun


@given(good=GOOD, reason=st.binary(max_size=120), tail=st.binary(max_size=300), cuts=CUTS)
def test_nothing_goes_through_behind_a_close(
    good: bytes, reason: bytes, tail: bytes, cuts: list[int]
) -> None:
    whole = good + frame(0x88, reason)
    gate, admitted = fed(whole + tail, cuts)
    assert (gate.closed, gate.broken) == (True, False)
    assert admitted == whole


@given(good=GOOD, at=st.integers(0, 1 << 20))
def test_at_most_a_head_is_held_back(good: bytes, at: int) -> None:
    data = good[: at % (len(good) + 1)]
    _, admitted = fed(data, [])
    assert data.startswith(admitted)
    assert len(data) - len(admitted) < 10
