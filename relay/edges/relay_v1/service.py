"""What a WebSocket of `relay.v1` needs: limits, observer, log and dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from relay.answering.dispatcher import Dispatcher
from relay.answering.timerwheel import TimerWheel
from relay.core.errors import Code
from relay.core.streamlog import StreamLog
from relay.edges.delivery.outlet import Pace


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """In bytes, counts and seconds; the settings of the same names."""

    max_frame_bytes: int
    max_streams_per_session: int
    resume_window: float
    heartbeat: float
    write_timeout: float
    hello_timeout: float = 10.0


class SocketObserver(Protocol):
    """Is notified of what happens on connections, for logs and metrics; never per frame sent.
    `connection` is a short name, used for this purpose only."""

    def naming(self, connection: str, session: str) -> AbstractContextManager[None]:
        """A context in which a chat is started, so that its tasks log these names."""
        ...

    def connected(self, connection: str, client: str) -> None:
        """A WebSocket was accepted from the address `client`."""
        ...

    def greeted(self, connection: str, subject: str | None, *, resumed: bool) -> None:
        """The connection's session was opened."""
        ...

    def refused(self, connection: str, code: Code) -> None:
        """The client was sent an `error` that is no record."""
        ...

    def disconnected(self, connection: str, code: int | None) -> None:
        """The connection ended. `code` is the close code, None if there was none."""
        ...

    def unexpected(self, connection: str, error: BaseException) -> None:
        """An exception other than `RelayError`: a programming error, to be logged with its
        traceback."""
        ...


@dataclass(frozen=True, slots=True)
class SocketService:
    """What a socket needs. `wheel` keeps its deadlines. `authenticate` takes a token, or None for
    none, and returns the subject or raises `RelayError(UNAUTHORIZED)`; `token_required`: it
    refuses None."""

    log: StreamLog
    dispatcher: Dispatcher
    limits: SocketLimits
    pace: Pace
    wheel: TimerWheel
    authenticate: Callable[[str | None], str | None]
    observer: SocketObserver
    token_required: bool
