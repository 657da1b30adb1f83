"""The entries of a stream's log in Redis: what one batch of records looks like at rest.

Nodes of different versions read each other's entries while an upgrade rolls over them, so
what is written here stays as it is: kinds go by the numbers of `NUMBER_OF`, never by the
order in which they are declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from relay.events import TERMINAL, TEXTUAL, Kind
from relay.records import decode
from relay.streamlog import Status

MAX_BATCH = 64 * 1024
"""Bytes of records after which a batch is full; only a single record may be longer."""

NUMBER_OF = {
    Kind.START: 0,
    Kind.TOKEN: 1,
    Kind.REASONING: 2,
    Kind.TOOL_CALL: 3,
    Kind.FALLBACK: 4,
    Kind.DONE: 5,
    Kind.ERROR: 6,
}
"""A kind's number in Redis, for ever: a further kind gets the next number, and the number
of one that is given up is not used again."""

_KIND_OF = {number: kind for kind, number in NUMBER_OF.items()}

Packed = list[tuple[Kind, bytes]]
"""Records as `records.encode` gives them."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[int, bytes]]).decode


class Unreadable(Exception):
    """An entry that this version of the relay can't read, as a later one may write it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records `first .. first + count - 1` on their way. Kept as it is until Redis has
    answered, so that a repeated call is told apart as a duplicate."""

    first: int
    count: int
    payload: bytes
    status: Status

    @property
    def next(self) -> int:
        """The seq after the batch."""
        return self.first + self.count


def pack(packed: Packed) -> bytes:
    """Records as an entry holds them: MessagePack, an array of (number, body)."""
    return _pack([(NUMBER_OF[kind], body) for kind, body in packed])


def unpack(payload: bytes) -> Packed:
    """The records that `pack` was given. Raises `Unreadable`."""
    try:
        return [(_KIND_OF[number], body) for number, body in _unpack(payload)]
    except (KeyError, msgspec.MsgspecError) as error:
        raise Unreadable from error


def read(payload: bytes) -> Packed:
    """The same of another node, whose version may be a later one. Raises `Unreadable` for a
    kind that is unknown here, or a record of known kind with a value that is."""
    packed = unpack(payload)
    try:
        for kind, body in packed:
            if kind not in TEXTUAL:
                decode(kind, body)
    except msgspec.MsgspecError as error:
        raise Unreadable from error
    return packed


def batch_of(first: int, waiting: Packed) -> Batch:
    """Take so many records off the front of those that wait as make a batch."""
    packed = _cut(waiting)
    kind = packed[-1][0]
    status: Status = "running" if kind not in TERMINAL else "done" if kind is Kind.DONE else "error"
    return Batch(first, len(packed), pack(packed), status)


def nothing_after(next_seq: int) -> Batch:
    """A batch of no records, where only something else is to be kept."""
    return Batch(next_seq, 0, b"", "running")


def fields(values: Mapping[str, str | bytes]) -> list[str | bytes]:
    """Names and values in turn, as commands and scripts take the fields of a hash."""
    return [part for field in values.items() for part in field]


def _cut(waiting: Packed) -> Packed:
    size = count = 0
    while count < len(waiting) and (not count or size + len(waiting[count][1]) <= MAX_BATCH):
        size += len(waiting[count][1])
        count += 1
    front = waiting[:count]
    del waiting[:count]
    return front
