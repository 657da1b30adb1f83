"""Where log lines go: three files and the console, written by a thread of their own.

`app.log` holds INFO and above, `error.log` ERROR, `debug.log` everything. Code logs with `from
loguru import logger`; the connection, session and stream given to `context` are on every line that
is logged within it. Each log call becomes a `LogEntry` in the writer's queue: `logwriter` writes
it, `loglayout` makes the line, `loglines` removes what it may not hold.

The lines of answers and connections are logged by the functions below: loguru would look up frame,
process and thread for each of them, which no line shows.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp.http_exceptions import HttpProcessingError
from loguru import logger

from relay.core.errors import OF_THE_REQUEST, Code
from relay.core.events import Done, EndedAttempt, Failed
from relay.core.records import Shown
from relay.core.request import ChatRequest
from relay.observability.content import answered, asked
from relay.observability.loglayout import (
    NO_FIELDS,
    About,
    Format,
    Layout,
    LineFields,
    LogEntry,
    Values,
)
from relay.observability.loglines import Redactor, fold
from relay.observability.logwriter import Console, LogFile, LogWriter, Output

if TYPE_CHECKING:
    from loguru import Message, Record

FILES: dict[str, str] = {"app.log": "INFO", "error.log": "ERROR", "debug.log": "DEBUG"}
"""The tiers: each file with its lowest level."""

ROTATION = 50_000_000
"""Bytes: a file that reaches this size is closed, compressed and replaced."""

RETENTION = 10
"""So many closed files of each tier are kept; older ones are deleted."""

MAX_QUEUED = 100_000
"""Lines that wait for a disk that is too slow. Further ones are dropped and counted, so that
neither memory fills nor answers stop."""

CLOSE_TIMEOUT = 5.0
"""Seconds that the end of the process waits for the last lines to be written."""

SDK_LOGGERS = ("openai", "anthropic", "google_genai", "httpx2", "httpcore2")
"""Loggers that would write requests, prompts included, at their lower levels."""

_SDK_SWITCHES = ("OPENAI_LOG", "ANTHROPIC_LOG")
_NOBODY = About()
_FINE = frozenset({"ok", Code.CANCELLED, Code.DRAINING})
_NOT_ERRORS = OF_THE_REQUEST | {Code.CANCELLED, Code.ABANDONED, Code.DRAINING}
_PROBES = frozenset({"/livez", "/readyz"})
_DEBUG, _INFO, _WARNING, _ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


class _FromLoguru:
    """Takes the records of loguru, and removes secrets from them before sinks get them."""

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact

    def __call__(self, record: Record) -> None:
        error, text, extra = record["exception"], record["message"], record["extra"]
        level, source = record["level"].no, record["name"] or "-"
        _note(level, source, text, {**extra}, error and error.value)
        record["exception"] = None
        record["message"] = self._redact(text)
        for key, value in extra.items():
            extra[key] = self._redact(str(value))


class _FromStandardLibrary(logging.Handler):
    """Takes the records that libraries log through the standard library."""

    def emit(self, record: logging.LogRecord) -> None:
        level, error = record.levelno, record.exc_info and record.exc_info[1]
        try:
            text = record.getMessage()
        except Exception:  # a library's format string and arguments don't fit
            text = "a log call whose arguments do not fit its message"
        if _is_noise(record):
            level, text, error = _INFO, "refused a request that is not HTTP", None
        _note(level, record.name, text, NO_FIELDS, error)


def _is_noise(record: logging.LogRecord) -> bool:
    """Whether a client sent something that is not HTTP: a scan or TLS on a plain port must not fill
    the errors."""
    error = record.exc_info[1] if record.exc_info else None
    return record.name == "aiohttp.server" and isinstance(error, HttpProcessingError)


_about: ContextVar[About] = ContextVar("about", default=_NOBODY)
_writer: LogWriter | None = None
_lowest = 0
_content = False


def configure_logging(
    *,
    directory: str | Path | None = "logs",
    level: str = "INFO",
    format: Format = "text",
    content: bool = False,
    secrets: tuple[str, ...] = (),
) -> None:
    """Set up all logging of this process; called again, it replaces what was set up.

    `directory` None writes no files. `level` is the console's. `content` lets the text of chats and
    answers in, and the messages of exceptions. `secrets` are taken out wherever they appear. Where
    the directory can't be written a warning is logged, and only the console is used.
    """
    global _content, _lowest, _writer
    close_logging()
    _content = content
    outputs: list[Output] = [Console(_number(level))]
    if directory is not None:
        outputs += (files := _files(Path(directory)))
    _lowest = min(output.level for output in outputs)
    redact = Redactor(secrets)
    _writer = LogWriter(outputs, MAX_QUEUED, Layout(format, redact).line)
    logger.configure(patcher=_FromLoguru(redact))
    logger.add(_pass, level=_lowest, format="")  # without a sink loguru makes no records
    _route_standard_library()
    if directory is not None and not files:
        logger.warning("no log files, the console only: {} can't be written", directory)
    atexit.unregister(logger.remove)  # it would wait for ever for a disk that hangs
    atexit.unregister(close_logging)
    atexit.register(close_logging)


def _pass(message: Message) -> None:
    """Do nothing: the writer has the line already."""


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level]


def _files(directory: Path) -> list[Output]:
    """The tiers; none where one of them can't be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [
            LogFile(directory / name, _number(level), rotation=ROTATION, retention=RETENTION)
            for name, level in FILES.items()
        ]
    except OSError:
        return []


def _route_standard_library() -> None:
    for switch in _SDK_SWITCHES:  # read when an SDK is first imported
        os.environ.pop(switch, None)
    logging.root.handlers[:] = [_FromStandardLibrary()]
    logging.root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in (*SDK_LOGGERS, "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of the subprotocols that a client offers, which may hold the client's token.
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)


def close_logging(timeout: float = CLOSE_TIMEOUT) -> None:
    """Write what is queued and stop: call it last, also on SIGTERM. Waits `timeout`
    seconds at most."""
    global _writer
    logger.remove()
    if _writer is not None and not _writer.close(timeout):
        sys.stderr.write("the last log lines could not be written in time\n")
    if lost := dropped_lines():
        sys.stderr.write(f"{lost} log lines were dropped: the disk did not keep up\n")
    _writer = None


def dropped_lines() -> int:
    """How many lines were dropped because the disk did not keep up, or took none."""
    return _writer.dropped if _writer else 0


def context(
    *, connection: str | None = None, session: str | None = None, stream: str | None = None
) -> AbstractContextManager[None]:
    """Put these names on every line that is logged within, also by tasks started within.

    Names of sessions and streams are secrets: lines show a digest of a session's, and the first
    eight characters of a stream's, by which an operator who knows the name finds it.
    """
    return _Context(About(connection, session, stream))


class _Context(AbstractContextManager[None]):
    __slots__ = ("_inner", "_token")

    def __init__(self, about: About) -> None:
        self._inner = about

    def __enter__(self) -> None:
        outer = _about.get()
        named = self._inner if outer is _NOBODY else self._inner.within(outer)
        self._token = _about.set(named)

    def __exit__(self, *error: object) -> None:
        _about.reset(self._token)


def log_request(method: str, route: str, status: int, seconds: float, client: str) -> None:
    """One line for an HTTP request that ended, at DEBUG for an orchestrator's probes, which
    come every few seconds. `route` is the pattern that matched, such as
    `/streams/{stream}`: the path itself may hold a stream's name, the query a token.
    `client` is the address of who asked."""
    level = _DEBUG if route in _PROBES else _INFO
    values = (method, route, status, seconds * 1e3)
    _say(level, _NOBODY, "{} {} {} in {:.0f} ms", values, {"client": client})


def log_greeting(connection: str, *, resumed: bool) -> None:
    """One line for a connection that has its session."""
    message = "session resumed" if resumed else "session opened"
    _say(_DEBUG, About(connection), message)


def log_refusal(connection: str, code: Code) -> None:
    """One line for a connection whose request was refused."""
    _say(_INFO, About(connection), "refused: {}", (code,))


def log_disconnection(connection: str, code: int | None, seconds: float, client: str) -> None:
    """One line for a WebSocket of the address `client` that ended with `code` after so many
    seconds."""
    values = (code or "without a close frame", seconds)
    _say(_INFO, About(connection), "/ws closed {} after {:.1f} s", values, {"client": client})


def log_stream_start(stream: str, route: str, *, taken_over: bool = False) -> None:
    """One line for an answer that this process writes, by which an operator finds the node that
    owns it."""
    message = "took over an answer for {}" if taken_over else "accepted a chat for {}"
    _say(_INFO, About(None, None, stream), message, (route or "an unknown route",))


def log_asked(stream: str, request: ChatRequest) -> None:
    """One line for the text of an accepted chat, if the operator wants text; else nothing."""
    if _content:
        _say(_INFO, About(None, None, stream), "asked {}", (asked(request),))


def log_answered(stream: str, final: Callable[[], Shown]) -> None:
    """One line for the text that readers see of an answer at its end, if the operator wants text;
    else nothing, and `final` is not called."""
    if _content:
        _say(_INFO, About(None, None, stream), "answered {}", (answered(final()),))


def log_attempt(stream: str, attempt: EndedAttempt) -> None:
    """One line for an upstream call that ended: WARNING where it failed."""
    level = _DEBUG if attempt.outcome in _FINE else _WARNING
    if level < _lowest:
        return
    values = (attempt.outcome, " (hedge)" if attempt.hedge else "", attempt.ms)
    target = {"target": f"{attempt.provider}:{attempt.model}"}
    _say(level, About(None, None, stream), "attempt {}{} after {} ms", values, target)


def log_stream_end(stream: str, record: Done | Failed) -> None:
    """One line for an answer that ended: ERROR where the relay could not give one."""
    about = About(None, None, stream)
    if isinstance(record, Done):
        _log_done(about, record)
    else:
        level = _INFO if record.code in _NOT_ERRORS else _ERROR
        values = (record.code, len(record.attempts or ()))
        _say(level, about, "failed {} after {} attempts", values)


def _log_done(about: About, record: Done) -> None:
    usage, timing = record.usage, record.timing
    values = (
        record.finish_reason,
        usage.input_tokens,
        usage.output_tokens,
        timing.first_token_ms,
        timing.total_ms,
        len(record.attempts),
    )
    message = "done {}: {} + {} tokens, first after {} ms, all after {} ms, {} attempts"
    _say(_INFO, about, message, values, {"target": f"{record.provider}:{record.model}"})


def _note(
    level: int, source: str, text: str, fields: LineFields, error: BaseException | None
) -> None:
    """Log a line of another module, as `_say` does for this module."""
    if level >= _lowest and _writer is not None:
        trace = fold(error, content=_content) if error is not None else ""
        outer = _about.get()
        entry = LogEntry(
            level, time.time_ns(), source, _NOBODY, outer, "{}", (text,), fields, trace
        )
        _writer.put(entry)


def _say(
    level: int, about: About, message: str, values: Values = (), fields: LineFields = NO_FIELDS
) -> None:
    """Log a line of this module. A line that no output takes costs only a comparison; before
    `configure_logging` there are no outputs."""
    if level >= _lowest and _writer is not None:
        outer = _about.get()
        _writer.put(
            LogEntry(level, time.time_ns(), __name__, about, outer, message, values, fields)
        )
