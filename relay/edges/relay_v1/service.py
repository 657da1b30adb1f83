"""What a WebSocket of `relay.v1` stands on: its limits, its observer, log and dispatcher."""

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
    """Bytes, counts and seconds; the settings of the same names."""

    max_frame_bytes: int
    max_streams_per_session: int
    resume_window: float
    heartbeat: float
    write_timeout: float
    hello_timeout: float = 10.0


class SocketObserver(Protocol):
    """Who is told what happens on connections: logs and metrics. Never per frame that
    goes out. `connection` is a short name made for the purpose."""

    def naming(self, connection: str, session: str) -> AbstractContextManager[None]:
        """A chat is started within: what its tasks log is to carry these names."""
        ...

    def connected(self, connection: str, client: str) -> None:
        """A WebSocket was accepted from the address `client`."""
        ...

    def greeted(self, connection: str, subject: str | None, *, resumed: bool) -> None:
        """Its session is open."""
        ...

    def refused(self, connection: str, code: Code) -> None:
        """It was sent an `error` that is no record."""
        ...

    def disconnected(self, connection: str, code: int | None) -> None:
        """It is gone. `code` is the close code, None where there was none."""
        ...

    def unexpected(self, connection: str, error: BaseException) -> None:
        """Something raised that is no `RelayError`: a defect, to be logged with its trace."""
        ...


@dataclass(frozen=True, slots=True)
class SocketService:
    """What a socket stands on. `wheel` keeps its deadlines. `authenticate` takes a token, or
    None for none, and returns the subject or raises `RelayError(UNAUTHORIZED)`;
    `token_required` is whether it refuses None."""

    log: StreamLog
    dispatcher: Dispatcher
    limits: SocketLimits
    pace: Pace
    wheel: TimerWheel
    authenticate: Callable[[str | None], str | None]
    observer: SocketObserver
    token_required: bool
