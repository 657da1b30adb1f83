"""One stream as a node of several sees it: what Redis acknowledged, and what is on its way.

Readers here see only records that Redis has. An owner's appends wait in `_pending`, go
out as one batch, and are shown once the batch is acknowledged: shown sooner, an answer
taken over by another node would mix two answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from relay.errors import Fenced, RelayError
from relay.events import TERMINAL, Attempt, Kind, Record
from relay.records import encode, split_long
from relay.stores.reading import Readable, ReadCursor
from relay.streamlog import Spec

_KINDS = tuple(Kind)
_INDEX = {kind: index for index, kind in enumerate(_KINDS)}
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[int, bytes]]).decode

Packed = list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records `first .. first + count - 1` on their way. Kept as it is until Redis has
    answered, so that a repeated call is told apart as a duplicate."""

    first: int
    count: int
    payload: bytes
    status: str


class RedisStream(Readable):
    """A stream that this node reads, writes, or both."""

    __slots__ = (
        "_clock",
        "attempts",
        "attempts_changed",
        "cancel_callback",
        "cancel_wanted",
        "elsewhere",
        "epoch",
        "fenced",
        "flush",
        "followed",
        "in_flight",
        "left_callback",
        "lost_callback",
        "missed",
        "name",
        "pending",
        "settling",
        "spec",
        "terminal_appended",
        "unread_since",
    )

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        *,
        flush: Callable[[RedisStream], None],
        left: Callable[[RedisStream], None],
    ) -> None:
        super().__init__()
        self.name = name
        self.epoch = 0
        self.spec: Spec | None = None
        self.fenced = False
        self.followed = False
        self.missed = 0
        self.elsewhere = False
        self.attempts: Sequence[Attempt] = ()
        self.attempts_changed = False
        self.cancel_wanted = False
        self.cancel_callback: Callable[[], None] | None = None
        self.lost_callback: Callable[[], None] | None = None
        self.flush = flush
        self.left_callback = left
        self.pending: Packed = []
        self.in_flight: Batch | None = None
        self.settling: list[asyncio.Future[None]] = []
        self.terminal_appended = False
        self.unread_since: float | None = clock()
        self._clock = clock

    # Writer

    @property
    def stream(self) -> str:
        """See `Writer.stream`."""
        return self.name

    @property
    def owned(self) -> bool:
        """Whether this node writes the stream."""
        return self.epoch > 0 and not self.fenced and not self.records.ended

    def append(self, records: Sequence[Record]) -> None:
        """See `Writer.append`."""
        if self.fenced:
            raise Fenced
        if self.terminal_appended:
            raise RuntimeError("nothing may follow a terminal record")
        for record in split_long(records):
            kind, body = encode(record)
            self.pending.append((_INDEX[kind], body))
        self.terminal_appended = _KINDS[self.pending[-1][0]] in TERMINAL
        self.flush(self)

    async def settled(self) -> None:
        """See `Writer.settled`."""
        if not self.has_more:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.settling.append(waiter)
        await waiter

    def adopt(self, epoch: int, spec: Spec) -> None:
        """This node took the stream over."""
        self.epoch, self.spec, self.fenced = epoch, spec, False
        self.elsewhere = False
        self.cancel_wanted = self.terminal_appended = False
        self.count_readers()

    def keep_attempts(self, attempts: Sequence[Attempt]) -> None:
        """See `Writer.keep_attempts`. Written with the next renewal of the lease."""
        self.attempts = attempts
        self.attempts_changed = True

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """See `Writer.on_cancel`."""
        if self.cancel_wanted:
            callback()
        else:
            self.cancel_callback = callback

    def on_lost(self, callback: Callable[[], None]) -> None:
        """See `Writer.on_lost`."""
        if self.fenced:
            callback()
        else:
            self.lost_callback = callback

    def want_cancel(self) -> None:
        """Tell the driver, once."""
        callback, self.cancel_callback = self.cancel_callback, None
        self.cancel_wanted = True
        if callback and not self.terminal_appended:
            callback()

    def lose(self, trouble: RelayError | None = None) -> None:
        """This node may write no more: another one does, or the store gave up."""
        self.fenced = True
        self.trouble = trouble
        self.pending.clear()
        self.in_flight = None
        callback, self.lost_callback = self.lost_callback, None
        self._settle(trouble or Fenced())
        if callback:
            callback()
        if trouble:
            self.wake()

    # What is on its way

    def next_batch(self) -> Batch | None:
        """The batch to send: the one not answered yet, else all that is pending."""
        if self.in_flight is None and self.pending:
            packed, self.pending = self.pending, []
            self.in_flight = Batch(
                len(self.records), len(packed), _pack(packed), self._status_after(packed)
            )
        return self.in_flight

    @property
    def has_more(self) -> bool:
        """Whether something waits to be sent or to be answered."""
        return self.in_flight is not None or bool(self.pending)

    def whole(self) -> Batch:
        """Everything so far as one batch, for a Redis that came back without it."""
        packed = [(_INDEX[kind], body) for kind, body in self.records.each()]
        if self.in_flight is not None:
            packed += _unpack(self.in_flight.payload)
        return Batch(0, len(packed), _pack(packed), self._status_after(packed))

    def acknowledged(self) -> None:
        """Redis has the batch in flight: show it."""
        batch, self.in_flight = self.in_flight, None
        if batch is not None:
            self._show(_unpack(batch.payload))
        if not self.pending:
            self._settle(None)
        if self.records.ended and not self.cursors:
            self.left_callback(self)

    def read(self, next_seq: int, payload: bytes) -> None:
        """One entry of the log, which ends before `next_seq`. What is here already is
        skipped: a log written anew has other batches."""
        packed = _unpack(payload)
        known = len(self.records) - (next_seq - len(packed))
        if 0 <= known < len(packed):
            self._show(packed[known:])

    def _show(self, packed: Packed) -> None:
        for index, body in packed:
            self.records.append(_KINDS[index], body)
        self.wake()

    def _status_after(self, packed: Packed) -> str:
        kind = _KINDS[packed[-1][0]] if packed else Kind.START
        return "running" if kind not in TERMINAL else "done" if kind is Kind.DONE else "error"

    def _settle(self, error: Exception | None) -> None:
        waiters, self.settling = self.settling, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    # Readers

    def entered(self, cursor: ReadCursor) -> None:
        """A reader came to this node."""
        super().entered(cursor)
        self.unread_since = None

    def left(self, cursor: ReadCursor) -> None:
        """A reader of this node left."""
        super().left(cursor)
        self.count_readers()
        if not self.cursors:
            self.left_callback(self)

    def count_readers(self) -> None:
        """Keep `unread_since` in step with the readers here and elsewhere."""
        if self.cursors or self.elsewhere:
            self.unread_since = None
        elif self.unread_since is None:
            self.unread_since = self._clock()
