"""The interface of a stream log.

Every answer is an append-only log; every reader is a cursor over that log. The log also keeps what
is known of a stream beside its records: its subject, the request, which id names it in which
session, who reads it, and whether it was cancelled.

One contract suite (`tests/contract/test_stream_log.py`) holds every implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from relay.core.account import Account
from relay.core.events import Record
from relay.core.records import Chunk
from relay.core.request import ChatRequest

StreamStatus = Literal["running", "done", "error"]


class Spec(Struct, frozen=True):
    """What is fixed when a stream is created.

    `stream` is its unguessable name. `session` and `id` together are the claim: its client knows
    the stream by them. An edge without sessions makes both up. `grace` is how many seconds the
    stream runs on without a reader (0: not at all).
    """

    stream: str
    session: str
    id: str
    subject: str | None
    request: ChatRequest
    grace: float


class StreamInfo(Struct, frozen=True):
    """A stream as a session lists it. `seq` is the last record's."""

    id: str
    stream: str
    seq: int
    status: StreamStatus


class Cursor(Protocol):
    """One reader's place in one stream. Counted as a reader until it is closed."""

    @property
    def after(self) -> int:
        """The last seq taken, -1 for none."""
        ...

    @property
    def at_head(self) -> bool:
        """Whether `take` has returned all records so far; `wake` is then called once when there are
        more."""
        ...

    def take(self, limit: int) -> Chunk | None:
        """Take the next records, merged up to `limit` bytes, and move past them; None at the head.

        Call it until it is `at_head`, then wait for `wake`. Raises `StreamExpired` where the
        records were deleted (retention, erasure) before this cursor took them.
        """
        ...

    def close(self) -> None:
        """Stop reading. Idempotent; `wake` is not called again."""
        ...


class Writer(Protocol):
    """Writes one stream for its owner. Only one writer of a stream is valid at a time."""

    @property
    def stream(self) -> str:
        """The stream's name."""
        ...

    @property
    def unread_since(self) -> float | None:
        """When the last reader left, by the log's clock; None while there is one. A
        stream that never had a reader counts from its creation."""
        ...

    def append(self, records: Sequence[Record]) -> None:
        """Add records, in order. Synchronous; they are visible to cursors once they are
        safe, which in memory is at once. Raises `Fenced` when another writer took over.
        Nothing may follow a terminal record."""
        ...

    def chunks(self) -> Sequence[Chunk]:
        """Everything appended so far, from record 0, whether it is safe yet or not. For the owner
        only, which then need not keep the text itself. Do not call it once `on_lost` was called."""
        ...

    def keep_account(self, account: Callable[[], Account]) -> None:
        """Store what `account` returns, for a node that may have to take over; call this when that
        has changed. The store calls `account` when it writes: with the next records or soon, and
        again at later writes, the last time before the terminal record."""
        ...

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when a reader on any node cancels the stream, immediately where that
        has happened already."""
        ...

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when this writer may no longer write, because another node took over
        or the store gave up. The callback must cancel the upstream at once."""
        ...


class Created(Struct, frozen=True):
    """The claim was free: the caller owns the stream and has to write it."""

    writer: Writer


class Existing(Struct, frozen=True):
    """The same chat was already claimed under this id: attach to it."""

    stream: str


class Orphan(Struct, frozen=True):
    """A stream whose owner died, which this node has to finish.

    `spec` is None where the request was too large to be kept: the answer can only be ended.
    `account` is what the owner noted last. `accepted` is when the chat was accepted, by the log's
    clock on this node, though another node accepted it. `last_sign_ms` is the time from then to the
    owner's last sign of life. `late` when nobody read it for longer than its grace: it must be
    abandoned. `cancelled` when a reader cancelled it.
    """

    writer: Writer
    spec: Spec | None
    chunks: Sequence[Chunk]
    account: Account
    accepted: float
    last_sign_ms: int
    late: bool
    cancelled: bool


class StreamLog(Protocol):
    """Stores streams and sessions. Methods raise `StreamExpired` for a stream that is gone, that
    never was, or that `subject` does not own (None owns what None started)."""

    async def open_session(self, session: str, subject: str | None) -> bool:
        """Join a session, or create it; True where it existed before. Call `leave_session` once for
        each call. Raises `RelayError(FORBIDDEN)` where it belongs to another subject."""
        ...

    async def leave_session(self, session: str) -> None:
        """A connection of the session ended. After the last one the session lives on for
        the resume window."""
        ...

    async def session_streams(self, session: str) -> list[StreamInfo]:
        """The streams that the session's ids name, oldest first."""
        ...

    async def create(self, spec: Spec) -> Created | Existing:
        """Claim (session, id) for a new stream.

        Raises `RelayError(BAD_REQUEST)` where the id names a chat of other content,
        `StreamExpired` where its log is gone, `RelayError(TOO_MANY_STREAMS)` at the
        session's limit of running streams.
        """
        ...

    async def link(self, session: str, id: str, stream: str, subject: str | None) -> None:
        """Make `id` name a stream of another session too. Raises `RelayError(BAD_REQUEST)` where it
        names another one already."""
        ...

    async def find(self, session: str, id: str) -> str:
        """The stream that `id` names within the session."""
        ...

    async def newest(self, conversation: str, session: str, subject: str | None) -> str:
        """The newest stream of a conversation, searched within the subject where there is
        one, else within the session."""
        ...

    async def attach(
        self, stream: str, after: int, wake: Callable[[], None], subject: str | None
    ) -> Cursor:
        """A cursor that starts after the seq `after`. `wake` is called from the event loop,
        synchronously, whenever `take` would return records again. Raises `RelayError(BAD_REQUEST)`
        for a seq that was never reached."""
        ...

    async def info(self, stream: str, subject: str | None) -> StreamInfo:
        """A stream's state, under the id of the session that started it."""
        ...

    async def cancel(self, stream: str, subject: str | None) -> None:
        """Cancel a stream: its owner is told to end it. A finished stream stays as it is."""
        ...

    async def erase(self, stream: str, subject: str | None) -> None:
        """Cancel, then delete records, request and index once the readers that are attached have
        taken the terminal record."""
        ...

    def on_orphan(self, callback: Callable[[Orphan], None] | None) -> None:
        """Call `callback` with each stream that this node takes over; with None it takes
        over nothing. Where nobody else can write (in memory), it is never called."""
        ...

    async def hand_over(self, writer: Writer) -> bool:
        """Give up a running stream so that another node can take it at once; its `on_lost` is
        called. False where no other node can: the caller must end it."""
        ...

    def sweep(self) -> None:
        """Delete what has expired. Called about once a second."""
        ...

    async def close(self) -> None:
        """Release everything. Idempotent."""
        ...
