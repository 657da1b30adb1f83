"""One stream as a node sees it: the records that Redis acknowledged, and those being sent.

Readers here see only records that Redis has. An owner's new records wait in `pending`, go out as
one batch, and are shown once the batch is acknowledged. If they were shown earlier, an answer that
another node takes over could mix two answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from relay.core.account import Account
from relay.core.errors import Code, Fenced, RelayError
from relay.core.events import TERMINAL, Record
from relay.core.records import Chunk, encode, split_long
from relay.stores.reading import Readable, ReadCursor
from relay.stores.redis.encoding import (
    Batch,
    Packed,
    StreamFacts,
    UnreadableEntry,
    account_fields,
    batch_of,
    read,
    unpack,
)


class StreamHolder(Protocol):
    """Holds a node's streams; a stream reports these events to it."""

    def write_soon(self, stream: RedisStream) -> None:
        """The stream has records to append."""
        ...

    def left_alone(self, stream: RedisStream) -> None:
        """The stream has no reader or writer here any more."""
        ...

    def lost(self, stream: RedisStream) -> None:
        """This node may not write the stream any more; it may still have readers here."""
        ...


class RedisStream(Readable):
    """A stream that this node reads, writes, or both.

    `accepted` is when the chat was accepted, by `clock`. `adopting` while this node takes the
    stream over. `refused_since` is when Redis first refused to write or read it, by the event
    loop's time. `account_asked` counts the requests to save the account; `account_kept` is the
    number of the last one that was saved.
    """

    __slots__ = (
        "_account",
        "_cancel_callback",
        "_clock",
        "_facts",
        "_holder",
        "_lost_callback",
        "_settling",
        "accepted",
        "account_asked",
        "account_kept",
        "adopting",
        "cancel_wanted",
        "elsewhere",
        "epoch",
        "erased",
        "fenced",
        "followed",
        "in_flight",
        "look_due",
        "missed",
        "name",
        "pending",
        "read_epoch",
        "refused_since",
        "terminal_appended",
        "unread_since",
    )

    def __init__(self, name: str, clock: Callable[[], float], holder: StreamHolder) -> None:
        super().__init__()
        self.name = name
        self.epoch = 0
        self.read_epoch = 0
        self._facts: StreamFacts | None = None
        self.erased = False
        self.fenced = False
        self.followed = False
        self.adopting = False
        self.look_due = False
        self.missed = 0
        self.elsewhere = False
        self.accepted = 0.0
        self.account_asked = 0
        self.account_kept = 0
        self._account: Callable[[], Account] | None = None
        self.cancel_wanted = False
        self.pending: Packed = []
        self.in_flight: Batch | None = None
        self.refused_since: float | None = None
        self.terminal_appended = False
        self.unread_since: float | None = clock()
        self._clock = clock
        self._holder = holder
        self._cancel_callback: Callable[[], None] | None = None
        self._lost_callback: Callable[[], None] | None = None
        self._settling: list[asyncio.Future[None]] = []

    # Writer

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.name

    @property
    def owned(self) -> bool:
        """Whether this node writes the stream."""
        return self.epoch > 0 and not self.fenced and not self.records.ended

    @property
    def dead(self) -> bool:
        """Whether nothing more can be read from it here."""
        return self.gone or self.trouble is not None

    @property
    def idle(self) -> bool:
        """Whether nobody reads or writes it here."""
        return not (self.cursors or self.owned or self.has_more or self.adopting)

    @property
    def facts(self) -> StreamFacts:
        """The stream's constant fields in Redis; known only if this node writes or wrote it."""
        assert self._facts is not None
        return self._facts

    def own(self, epoch: int, facts: StreamFacts, accepted: float) -> None:
        """Start to write the stream, as its creator or after a take-over."""
        self.epoch = self.read_epoch = epoch
        self.accepted = accepted
        self._facts = facts
        self.fenced = self.elsewhere = self.cancel_wanted = self.terminal_appended = False
        self._account = None
        self.account_asked = self.account_kept = 0
        self.refused_since = None
        self.count_readers()

    def append(self, records: Sequence[Record]) -> None:
        """Add records; they are shown once Redis has them. Raises `Fenced`, or `RuntimeError`
        after a terminal record."""
        if self.fenced:
            raise Fenced
        if self.terminal_appended:
            raise RuntimeError("no record may follow a terminal record")
        self.pending += map(encode, split_long(records))
        self.terminal_appended = self.pending[-1][0] in TERMINAL
        self._holder.write_soon(self)

    def chunks(self) -> Sequence[Chunk]:
        """The acknowledged records, then those not acknowledged yet."""
        waiting = [*self._flying(), *self.pending]
        coming = enumerate(waiting, len(self.records))
        return [
            *self.records.chunks(),
            *(Chunk(kind, seq, seq, body) for seq, (kind, body) in coming),
        ]

    async def settled(self) -> None:
        """Wait until Redis has everything appended. Raises `Fenced`, or the `RelayError` with
        which the store gave up."""
        if self.fenced:
            raise Fenced
        if self.has_more:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settling.append(waiter)
            await waiter

    def keep_account(self, account: Callable[[], Account]) -> None:
        """Save what `account` returns. It goes with the next round trip, in the same call as the
        waiting records, and again with each renewal of the lease."""
        if not self.fenced:
            self._account = account
            self.account_asked += 1
            self._holder.write_soon(self)

    def noted(self) -> dict[str, str | bytes]:
        """The fields with the account for Redis; empty if there is nothing to save."""
        if self._account is None or self.terminal_appended:
            return {}
        return account_fields(self._account(), self.epoch)

    def age_ms(self) -> int:
        """How long ago the chat was accepted."""
        return max(0, round((self._clock() - self.accepted) * 1000))

    @property
    def account_due(self) -> bool:
        """Whether the account has changed since it was last saved in Redis."""
        return self.account_asked != self.account_kept and not self.terminal_appended

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when a client wants the stream to end."""
        if self.cancel_wanted:
            callback()
        else:
            self._cancel_callback = callback

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when this node may not write the stream any more."""
        if self.fenced:
            callback()
        else:
            self._lost_callback = callback

    def want_cancel(self) -> None:
        """Ask the driver to end the stream; only the first call has an effect."""
        callback, self._cancel_callback = self._cancel_callback, None
        self.cancel_wanted = True
        if callback and not self.terminal_appended:
            callback()

    def stop_driver(self) -> None:
        """Make the driver close its upstream and append nothing more."""
        callback, self._lost_callback = self._lost_callback, None
        if callback:
            callback()

    def lose(self, trouble: RelayError | None = None) -> None:
        """This node may not write the stream any more: another node does, or the store gave up."""
        self.fenced = True
        self.trouble = trouble
        self.pending.clear()
        self.in_flight = None
        self._cancel_callback = self._account = None
        self.account_kept = self.account_asked
        self.stop_driver()
        self._settle(trouble or Fenced())
        if trouble:
            self.wake()
        self._holder.lost(self)

    # Records being sent

    def next_batch(self) -> Batch | None:
        """The batch to send: the one that is not answered yet, else the pending records."""
        if self.in_flight is None and self.pending:
            self.in_flight = batch_of(len(self.records), self.pending)
        return self.in_flight

    @property
    def reach(self) -> int:
        """The seq after the last record that a reader may have. Records being sent count: they may
        be in Redis, and read by other nodes, before Redis' answer arrives."""
        return self.in_flight.next if self.in_flight is not None else len(self.records)

    @property
    def has_more(self) -> bool:
        """Whether records wait to be sent or to be acknowledged."""
        return self.in_flight is not None or bool(self.pending) or self.account_due

    def whole(self) -> list[Batch]:
        """Everything acknowledged or being sent, to restore it in a Redis that lost it."""
        packed = [*self.records.each(), *self._flying()]
        batches: list[Batch] = []
        while packed:
            batches.append(batch_of(batches[-1].next if batches else 0, packed))
        return batches

    def _flying(self) -> Packed:
        return unpack(self.in_flight.payload) if self.in_flight is not None else []

    def acknowledged(self) -> None:
        """Redis has the batch that was sent: show its records."""
        batch, self.in_flight = self.in_flight, None
        self.refused_since = None
        if batch is not None:
            self._show(unpack(batch.payload))
        if self.records.ended:  # free the writer's objects
            self._cancel_callback = self._lost_callback = self._account = None
        if not self.has_more:
            self._settle(None)
        self.check_idle()

    # Records of other writers

    def read(self, next_seq: int, epoch: int, payload: bytes, *, from_start: bool) -> bool:
        """Take one entry of the log, which ends before `next_seq`. Records that are here already
        are compared: a log that was written anew has other batches, and one that Redis lost in
        part may continue differently. If records are missing or differ, all are dropped.

        An entry that can't be read ends the stream for its readers here with an error.

        Returns False if the entry is of another writer than the one before: then the caller has to
        read again from the start, which shows whether it fits.
        """
        if epoch != self.read_epoch and len(self.records) and not from_start:
            return False
        try:
            packed = read(payload)
        except UnreadableEntry:
            self.fail(unreadable())
            return True
        first = next_seq - len(packed)
        known = len(self.records) - first
        if known < 0 or not self._agrees(first, packed[:known]):
            self.let_go()
            return True
        self.read_epoch = epoch
        self.refused_since = None
        self._show(packed[known:])
        return True

    def _agrees(self, first: int, packed: Packed) -> bool:
        for seq, (kind, body) in enumerate(packed, first):
            chunk = self.records.take(seq - 1, 0)
            if chunk is None or chunk.kind is not kind or chunk.body != body:
                return False
        return True

    def _show(self, packed: Packed) -> None:
        for kind, body in packed:
            self.records.append(kind, body)
        if packed:
            self.wake()

    def fail(self, trouble: RelayError) -> None:
        """Tell the readers on this node, with `trouble`, that they get no more of the stream
        here."""
        self.trouble = trouble
        self.wake()

    def _settle(self, error: Exception | None) -> None:
        waiters, self._settling = self._settling, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    # Readers

    def entered(self, cursor: ReadCursor) -> None:
        """A reader attached on this node."""
        super().entered(cursor)
        self.unread_since = None

    def left(self, cursor: ReadCursor) -> None:
        """A reader on this node left."""
        super().left(cursor)
        self.count_readers()
        self.check_idle()

    def check_idle(self) -> None:
        """Report to the node if the stream has no reader or writer here any more."""
        if self.idle:
            self._holder.left_alone(self)

    def count_readers(self) -> None:
        """Update `unread_since` from the number of readers here and on other nodes."""
        if self.cursors or self.elsewhere:
            self.unread_since = None
        elif self.unread_since is None:
            self.unread_since = self._clock()


def unreadable() -> RelayError:
    """The error for an answer that only nodes of a later version can read."""
    return RelayError(
        Code.INTERNAL,
        "a later version of the relay wrote this answer, and this server can't read it; "
        "connect again, or send the chat again",
        retryable=True,
    )
