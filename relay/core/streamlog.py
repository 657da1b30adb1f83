"""What a stream log is to the rest of the house.

Every answer is an append-only log; every reader is a cursor over that log. The log also
keeps what is known of a stream beside its records: whose it is, what was asked, which id
names it in which session, who reads it, and whether somebody wants it to end.

One contract suite (`tests/contract/stream_log.py`) holds every implementation.
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
    """What a stream is born with.

    `stream` is its unguessable name. `session` and `id` are the claim by which its client
    knows it; an edge without sessions makes both up. `grace` is how many seconds the
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
        """Whether `take` has yielded all there is: `wake` is called once when there is more."""
        ...

    def take(self, limit: int) -> Chunk | None:
        """What follows, merged up to `limit` bytes, moving on past it; None at the head.

        Call it until it is `at_head`, then wait for `wake`. Raises `StreamExpired` where
        the records were let go (retention, erasure) before this cursor had them.
        """
        ...

    def close(self) -> None:
        """Stop reading. Idempotent; `wake` is not called again."""
        ...


class Writer(Protocol):
    """By which the owner writes one stream. Exactly one is valid at a time."""

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
        """Everything appended so far, from record 0, whether it is safe yet or not. For
        the owner alone: a log keeps the text, so whoever writes it need not. Not to be
        asked of a writer that was lost."""
        ...

    def keep_account(self, account: Callable[[], Account]) -> None:
        """Keep what `account` tells, for a node that may have to take over: it told something
        new. Asked when it is written, with what is appended next or soon, and again whenever
        the store writes anyway; for the last time before the terminal record."""
        ...

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when a reader on any node wants the stream to end, at once
        where that was already so."""
        ...

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when this writer may write no more, because another node
        took over or the store gave up: cancel the upstream at once."""
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
    `account` is what the owner noted last. `accepted` is when the chat was accepted, by the
    log's clock: a moment of this node's clock, though another node saw it. `last_sign_ms` is
    how long after that the owner last gave a sign of life.
    `late` when nobody read it for longer than its grace: it must be abandoned. `cancelled`
    when a reader wanted it to end.
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
    """Where streams and sessions live. Methods raise `StreamExpired` for a stream that is
    gone, that never was, or that `subject` does not own (None owns what None started)."""

    async def open_session(self, session: str, subject: str | None) -> bool:
        """Take part in a session, made if it is new; True where it was there before.
        Each call wants a `leave_session`. Raises `RelayError(FORBIDDEN)` where it
        belongs to another subject."""
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
        """Let `id` name a stream of another session too. Raises `RelayError(BAD_REQUEST)`
        where it names another one already."""
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
        """A cursor behind `after`. `wake` is called from the event loop, synchronously,
        whenever `take` would yield again. Raises `RelayError(BAD_REQUEST)` for a seq
        that was never reached."""
        ...

    async def info(self, stream: str, subject: str | None) -> StreamInfo:
        """A stream's state, under the id of the session that started it."""
        ...

    async def cancel(self, stream: str, subject: str | None) -> None:
        """Want a stream to end; its owner is told. A finished one stays as it is."""
        ...

    async def erase(self, stream: str, subject: str | None) -> None:
        """Cancel, then let go of records, request and index, once readers now attached
        have had the terminal record."""
        ...

    def on_orphan(self, callback: Callable[[Orphan], None] | None) -> None:
        """Call `callback` with each stream that this node takes over; with None it takes
        over nothing. Where nobody else can write (in memory), it is never called."""
        ...

    async def hand_over(self, writer: Writer) -> bool:
        """Give up a running stream so that another node can take it at once; its
        `on_lost` is called. False where no other node could: the caller must end it."""
        ...

    def sweep(self) -> None:
        """Time passed: let go of what is past it. Called about once a second."""
        ...

    async def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...
