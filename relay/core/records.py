"""One stream's records, in memory: the text once, as it will be sent.

Text is kept JSON-escaped, because that is the form in which every dialect sends it: a record is
escaped when it is appended and never again, however many readers there are, and a merged frame of a
thousand records is one slice. An array of offsets and a list of runs are kept instead of one object
per record: an appended token costs its bytes and five more.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from relay.core.events import (
    KIND_OF,
    TERMINAL,
    TEXTUAL,
    Done,
    Failed,
    Fallback,
    Kind,
    Reasoning,
    Record,
    Start,
    Target,
    Text,
    ToolCall,
)

MAX_FRAME_TEXT = 60_000
"""Bytes of escaped text that one merged frame carries at most; with its envelope a frame
stays under 64 KB. Only a whole tool call may be longer, because it is never cut."""

MAX_RECORD_CHARS = 8_192
"""Characters of one text record. Escaped they are at most 49 kB (`\\u0001` six bytes a
character), so that any record fits a frame."""

_WRITTEN = (Text, Reasoning)  # for isinstance: a union would be built again at each call
_OFFSET = "I"  # four bytes: no answer comes near 4 GiB
_encode = msgspec.json.Encoder().encode
_decode_str = msgspec.json.Decoder(str).decode
_chunk = tuple.__new__  # faster than NamedTuple's constructor, a Python function
_STRUCT_OF: dict[Kind, type] = {kind: struct for struct, kind in KIND_OF.items()}


class Chunk(NamedTuple):
    """Adjacent records `first..last` of one kind, as a cursor takes them.

    `body` is the JSON-escaped text without quotes for `token` and `reasoning`; for every other
    kind, where `first == last`, it is the record as a JSON object.
    """

    kind: Kind
    first: int
    last: int
    body: bytes

    @property
    def terminal(self) -> bool:
        """Whether nothing follows this chunk, ever."""
        return self.kind in TERMINAL


def escape(text: str) -> bytes:
    """`text` as it stands between the quotes of a JSON string (RFC 8259), in UTF-8."""
    return _encode(text)[1:-1]


def unescape(body: bytes) -> str:
    """The text that `escape` was given."""
    return _decode_str(b'"' + body + b'"')


def split_long(records: Sequence[Record]) -> Sequence[Record]:
    """The same records, texts longer than `MAX_RECORD_CHARS` split. A log numbers the records that
    this returns."""
    for record in records:
        if isinstance(record, _WRITTEN) and len(record.text) > MAX_RECORD_CHARS:
            return [piece for record in records for piece in _pieces(record)]
    return records


def _pieces(record: Record) -> list[Record]:
    if not isinstance(record, _WRITTEN):
        return [record]
    step, text, make = MAX_RECORD_CHARS, record.text, type(record)
    return [make(text[at : at + step]) for at in range(0, len(text), step)]


def encode(record: Record) -> tuple[Kind, bytes]:
    """A record's kind and body, as `Records.append` and a remote store keep them."""
    kind = KIND_OF[type(record)]
    return kind, escape(record.text) if isinstance(record, _WRITTEN) else _encode(record)


def decode(kind: Kind, body: bytes) -> Record:
    """The record that `encode` was given."""
    if kind in TEXTUAL:
        return Text(unescape(body)) if kind is Kind.TOKEN else Reasoning(unescape(body))
    record: Record = msgspec.json.decode(body, type=_STRUCT_OF[kind])
    return record


class Records:
    """An append-only sequence of records, read by `take` from any point.

    `newest` is the seq of the last one, -1 where there is none. `ended` is True once the terminal
    record is in.
    """

    __slots__ = ("_data", "_ends", "_run_kinds", "_run_starts", "ended", "newest")

    def __init__(self) -> None:
        self.newest = -1
        self.ended = False
        self._data = bytearray()
        self._ends = array(_OFFSET)
        self._run_starts = array(_OFFSET)
        self._run_kinds: list[Kind] = []

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def size(self) -> int:
        """Bytes held, offsets included."""
        offsets = len(self._ends) + len(self._run_starts)
        return len(self._data) + self._ends.itemsize * offsets + 8 * len(self._run_kinds)

    def append(self, kind: Kind, body: bytes) -> int:
        """Add one record, encoded as by `encode`; returns its seq."""
        self.newest = seq = self.newest + 1
        if not self._run_kinds or self._run_kinds[-1] is not kind:
            self._run_kinds.append(kind)
            self._run_starts.append(seq)
            self.ended = kind in TERMINAL
        self._data += body
        self._ends.append(len(self._data))
        return seq

    def extend(self, records: Sequence[Record]) -> None:
        """Add records as an answer yields them, long texts split. The hot path: a text that
        follows others of its kind is escaped and appended here."""
        kinds, ends, data = self._run_kinds, self._ends, self._data
        for record in records:
            kind = KIND_OF[record.__class__]
            if (
                isinstance(record, _WRITTEN)
                and kinds
                and kinds[-1] is kind
                and len(record.text) <= MAX_RECORD_CHARS
            ):
                data += _encode(record.text)[1:-1]
                ends.append(len(data))
                self.newest += 1
            else:
                for piece in split_long((record,)):
                    self.append(*encode(piece))

    def take(self, after: int, limit: int = MAX_FRAME_TEXT) -> Chunk | None:
        """The records that follow `after` (-1 for all), as many of one kind as fit `limit`
        bytes but at least one; None where there are none yet.

        Only text merges; every other record is taken alone.
        """
        first, newest = after + 1, self.newest
        if first > newest:
            return None
        if first == newest:  # a reader at the head, which is most of them most of the time
            begin = self._ends[-2] if first else 0
            return _chunk(Chunk, (self._run_kinds[-1], first, first, bytes(self._data[begin:])))
        run = bisect_right(self._run_starts, first) - 1
        kind = self._run_kinds[run]
        begin = self._ends[first - 1] if first else 0
        last = self._last_fitting(run, first, begin + limit) if kind in TEXTUAL else first
        return Chunk(kind, first, last, bytes(self._data[begin : self._ends[last]]))

    def _last_fitting(self, run: int, first: int, stop: int) -> int:
        starts = self._run_starts
        after_run = starts[run + 1] if run + 1 < len(starts) else len(self._ends)
        return max(first, bisect_right(self._ends, stop, first, after_run) - 1)

    def each(self) -> list[tuple[Kind, bytes]]:
        """Every record as `append` took it, unmerged."""
        found: list[tuple[Kind, bytes]] = []
        begin = 0
        runs = iter([*zip(self._run_starts, self._run_kinds, strict=True)][1:])
        kind = self._run_kinds[0] if self._run_kinds else Kind.START
        change = next(runs, None)
        for seq, end in enumerate(self._ends):
            if change is not None and change[0] == seq:
                kind, change = change[1], next(runs, None)
            found.append((kind, bytes(self._data[begin:end])))
            begin = end
        return found

    def chunks(self) -> list[Chunk]:
        """Everything, in merged chunks."""
        found: list[Chunk] = []
        after = -1
        while chunk := self.take(after):
            found.append(chunk)
            after = chunk.last
        return found


class Shown(NamedTuple):
    """What a reader of all records has on the screen; a continuation goes on from it."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]


def shown(chunks: Sequence[Chunk]) -> Shown:
    """Fold all records, from 0, into what readers still see: a fallback with `keep` false removes
    the text and reasoning before it."""
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    for chunk in chunks:
        match decode(chunk.kind, chunk.body):
            case Text(piece):
                text.append(piece)
            case Reasoning(piece):
                reasoning.append(piece)
            case ToolCall() as call:
                calls.append(call)
            case Fallback(keep=False):
                text.clear()
                reasoning.clear()
            case Start() | Fallback() | Done() | Failed():
                pass
    return Shown("".join(text), "".join(reasoning), tuple(calls))


def characters(chunks: Sequence[Chunk]) -> int:
    """Characters of text and reasoning in the records, including those that a fallback discards."""
    return sum(len(unescape(chunk.body)) for chunk in chunks if chunk.kind in TEXTUAL)


def announced(chunks: Sequence[Chunk]) -> Target | None:
    """The target that the last `start` or `fallback` record names; None without one."""
    target: Target | None = None
    for chunk in chunks:
        if chunk.kind in TEXTUAL:
            continue
        match decode(chunk.kind, chunk.body):
            case Start(provider=provider, model=model):
                target = Target(provider, model)
            case Fallback(to=to):
                target = to
            case _:
                pass
    return target
