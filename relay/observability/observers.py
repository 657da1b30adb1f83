"""Reports what happens to streams and connections to logs, metrics and health."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from loguru import logger

from relay.core.errors import Code
from relay.core.events import Done, EndedAttempt, Failed, Target
from relay.core.records import Shown
from relay.core.request import ChatRequest
from relay.observability import logs
from relay.observability.health import Health
from relay.observability.metrics import Metrics


class StreamObserver:
    """An `AnswerObserver`: one line, and a few counters, for each attempt and each stream. `clock`
    gives seconds since the epoch."""

    def __init__(self, health: Health, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._health = health
        self._metrics = metrics
        self._clock = clock

    def started(self, stream: str, route: str, request: ChatRequest, *, taken_over: bool) -> None:
        """Count and log a stream that this process writes."""
        self._metrics.stream_started()
        logs.log_stream_start(stream, route, taken_over=taken_over)
        logs.log_asked(stream, request)

    def answering(self, stream: str, target: Target, seconds: float) -> None:
        """Count the first event of an upstream call."""
        self._metrics.observe_first_event(target, seconds)

    def attempt_ended(self, stream: str, attempt: EndedAttempt) -> None:
        """Count and log an upstream call that ended."""
        self._metrics.observe_attempt(attempt)
        self._health.attempt(
            attempt.provider, attempt.model, attempt.outcome, attempt.ms, self._clock()
        )
        logs.log_attempt(stream, attempt)

    def ended(
        self, stream: str, route: str, record: Done | Failed | None, final: Callable[[], Shown]
    ) -> None:
        """Count and log a stream that ended here."""
        self._metrics.observe_stream_end(record, route)
        if record is not None:
            logs.log_answered(stream, final)
            logs.log_stream_end(stream, record)

    def unexpected(self, stream: str, error: BaseException) -> None:
        """Log a defect in a stream with its traceback."""
        with logs.context(stream=stream):
            logger.opt(exception=error).error("unexpected error in a stream")


class ConnectionObserver:
    """A `SocketObserver`. `clock` gives seconds, monotonic."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._open: dict[str, tuple[str, float]] = {}  # by connection, its client and start

    def naming(self, connection: str, session: str) -> AbstractContextManager[None]:
        """Put the connection's and session's names on all lines logged within."""
        return logs.context(connection=connection, session=session)

    def connected(self, connection: str, client: str) -> None:
        """Count a connection, and note its client and start for `disconnected`."""
        self._open[connection] = (client, self._clock())
        self._metrics.connection_opened("websocket")

    def greeted(self, connection: str, subject: str | None, *, resumed: bool) -> None:
        """Log a connection that has its session."""
        logs.log_greeting(connection, resumed=resumed)

    def refused(self, connection: str, code: Code) -> None:
        """Log a connection whose request was refused."""
        logs.log_refusal(connection, code)

    def disconnected(self, connection: str, code: int | None) -> None:
        """Count and log a connection that ended."""
        self._metrics.connection_closed("websocket")
        client, since = self._open.pop(connection)
        logs.log_disconnection(connection, code, self._clock() - since, client)

    def unexpected(self, connection: str, error: BaseException) -> None:
        """Log a defect in a connection with its traceback."""
        with logs.context(connection=connection):
            logger.opt(exception=error).error("unexpected error in a connection")
