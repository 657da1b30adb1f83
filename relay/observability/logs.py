"""Where log lines go: three files and the console, written by a thread of their own.

`app.log` holds INFO and above, `error.log` ERROR, `debug.log` everything. Code logs with
`from loguru import logger`; what it says of a connection, a session or a stream stands on
every line that is written within `context`. `relay.observability.loglines` decides what a line may hold.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import sys
import threading
from contextlib import AbstractContextManager
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loguru import logger

from relay.events import Attempt, Done, Failed, Target
from relay.observability.loglines import Redactor, digest, fold, one_line

if TYPE_CHECKING:
    from loguru import Record

Format = Literal["text", "json"]

FILES: dict[str, str] = {"app.log": "INFO", "error.log": "ERROR", "debug.log": "DEBUG"}
"""The tiers: each file with its lowest level."""

ROTATION = "50 MB"
"""A file that reaches this size is closed, compressed and replaced."""

RETENTION = 10
"""So many closed files of each tier are kept; older ones are deleted."""

COMPRESSION = "gz"

STREAM_PREFIX = 8
"""Characters of a stream's name that are logged; the others keep it unguessable."""

MAX_QUEUED = 100_000
"""Lines that wait for a disk which does not keep up. Further ones are dropped and counted,
rather than fill the memory or stop the answers."""

CLOSE_TIMEOUT = 5.0
"""Seconds that the end of the process waits for the last lines to be written."""

SDK_LOGGERS = ("openai", "anthropic", "google_genai", "httpx2", "httpcore2", "aiohttp.access")
"""Loggers that would write requests, prompts included, at their lower levels."""

_SDK_SWITCHES = ("OPENAI_LOG", "ANTHROPIC_LOG")
_CONTEXT = ("connection", "session", "stream")
_NOT_ERRORS = frozenset({"cancelled", "abandoned", "content_policy", "bad_request"})


class LineQueue(queue.SimpleQueue[Any]):
    """The lines on their way to the writing thread: `put` never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a line, unless too many wait. Commands to the writer always pass."""
        if isinstance(item, str) and self.qsize() >= MAX_QUEUED:
            self.dropped += 1
        else:
            super().put(item)


class _ThreadContext(BaseContext):
    """What loguru's `enqueue` is built on, without processes: its own choice is a pipe,
    on which a log call waits (and with it the event loop) when the disk is slow."""

    def __init__(self) -> None:
        self.queues: list[LineQueue] = []

    def SimpleQueue(self) -> Any:
        self.queues.append(LineQueue())
        return self.queues[-1]

    def Event(self) -> Any:
        return threading.Event()

    def Lock(self) -> Any:
        return threading.Lock()


class _Lines:
    """Makes each record's line, once for all sinks, before any sink sees it."""

    def __init__(self, format: Format, redact: Redactor, content: bool) -> None:
        self._redact = redact
        self._content = content
        self._render = _json_line if format == "json" else _text_line

    def __call__(self, record: Record) -> None:
        extra = record["extra"]
        clean = self._redact
        fields = {key: clean(str(value)) for key, value in extra.items()}
        source = fields.pop("source", None) or record["name"] or "-"
        error = record["exception"]
        trace = ""
        if error is not None and error.value is not None:
            trace = clean(fold(error.value, content=self._content))
        record["exception"] = None
        record["message"] = clean(record["message"])
        extra.clear()
        extra["line"] = self._render(record, source, fields, trace)


def _text_line(record: Record, source: str, fields: dict[str, str], trace: str) -> str:
    time = record["time"].isoformat(timespec="milliseconds")
    where = " ".join(f"{name}={fields.pop(name, '-')}" for name in _CONTEXT)
    said = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
    tail = f" | {trace}" if trace else ""
    level = record["level"].name
    return one_line(f"{time} {level:<8} {source} {where} | {record['message']}{said}{tail}")


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if " " in value else value


def _json_line(record: Record, source: str, fields: dict[str, str], trace: str) -> str:
    line: dict[str, Any] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "source": source,
        "message": record["message"],
        **{name: fields.pop(name, None) for name in _CONTEXT},
    }
    if fields:
        line["fields"] = fields
    if trace:
        line["traceback"] = trace
    return json.dumps(line).replace("\x7f", "\\u007f")  # ASCII only: nothing left to escape


class _FromStandardLibrary(logging.Handler):
    """Takes in what libraries log through the standard library."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # a library's format string and arguments don't fit
            message = "a log call whose arguments do not fit its message"
        level = record.levelname if record.levelname in _LEVELS else record.levelno
        logger.bind(source=record.name).opt(exception=record.exc_info).log(level, message)


_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_threads = _ThreadContext()
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

    `directory` None writes no files. `level` is the console's. `content` lets message
    text pass `log_content` and the messages of exceptions. `secrets` are taken out
    wherever they appear. A directory that can't be written costs a warning, not the start.
    """
    global _content
    close_logging()
    _content = content
    logger.configure(patcher=_Lines(format, Redactor(secrets), content))
    _add_sink(sys.stderr, level, colorize=None)
    _route_standard_library()
    if directory is not None:
        _add_files(Path(directory))
    atexit.unregister(logger.remove)  # it would wait for ever for a disk that hangs
    atexit.unregister(close_logging)
    atexit.register(close_logging)


def _add_sink(sink: Any, level: str, **options: Any) -> None:
    logger.add(
        sink,
        level=level,
        format=_formatted,
        enqueue=True,
        context=_threads,
        backtrace=False,
        diagnose=False,
        **options,
    )


def _formatted(record: Record) -> str:
    return "<level>{extra[line]}</level>\n"


def _add_files(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            open(directory / name, "a", opener=_opened).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        logger.warning("no log files, the console only: {} ({})", directory, reason)
        return
    for name, level in FILES.items():
        _add_sink(
            directory / name,
            level,
            rotation=ROTATION,
            retention=RETENTION,
            compression=COMPRESSION,
            encoding="utf-8",
            opener=_opened,
        )


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)  # others on this machine have no business in it


def _route_standard_library() -> None:
    for switch in _SDK_SWITCHES:  # read when an SDK is first imported
        os.environ.pop(switch, None)
    logging.root.handlers[:] = [_FromStandardLibrary()]
    logging.root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in SDK_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def close_logging(timeout: float = CLOSE_TIMEOUT) -> None:
    """Write what is queued and stop: call it last, also on SIGTERM. Waits `timeout`
    seconds at most."""
    closing = threading.Thread(target=logger.remove, name="logs-closing", daemon=True)
    closing.start()
    closing.join(timeout)
    if closing.is_alive():
        sys.stderr.write("the last log lines could not be written in time\n")
    if lost := dropped_lines():
        sys.stderr.write(f"{lost} log lines were dropped: the disk did not keep up\n")
    _threads.queues.clear()


def dropped_lines() -> int:
    """How many lines were dropped because the disk did not keep up."""
    return sum(each.dropped for each in _threads.queues)


def context(
    *, connection: str | None = None, session: str | None = None, stream: str | None = None
) -> AbstractContextManager[None]:
    """Names that every line within carries, tasks started within included.

    Sessions and streams are capabilities: of a session a digest is shown, of a stream the
    first eight characters, by which an operator who knows the name finds it.
    """
    return logger.contextualize(**names(connection=connection, session=session, stream=stream))


def names(
    *, connection: str | None = None, session: str | None = None, stream: str | None = None
) -> dict[str, str]:
    """The same names for one line: `logger.bind(**names(stream=…))`."""
    said = {
        "connection": connection,
        "session": digest(session) if session else None,
        "stream": stream[:STREAM_PREFIX] if stream else None,
    }
    return {name: value for name, value in said.items() if value}


def log_content(what: str, text: str) -> None:
    """Log message text at DEBUG, if the operator asked for it; else nothing."""
    if _content:
        logger.bind(text=text).debug(what)


def log_request(method: str, route: str, status: int, seconds: float, peer: str) -> None:
    """One line for an HTTP request that ended. `route` is the pattern that matched, such
    as `/streams/{stream}`: the path itself may hold a stream's name, the query a token."""
    logger.bind(peer=peer).info("{} {} {} in {:.0f} ms", method, route, status, seconds * 1e3)


def log_connection(route: str, close_code: int, seconds: float, peer: str) -> None:
    """One line for a WebSocket connection that ended."""
    logger.bind(peer=peer).info("{} closed {} after {:.1f} s", route, close_code, seconds)


def log_attempt(stream: str, attempt: Attempt) -> None:
    """One line for an upstream call that ended: WARNING where it failed."""
    fine = attempt.outcome in ("ok", "cancelled")
    said = logger.bind(
        **names(stream=stream), target=_target(Target(attempt.provider, attempt.model))
    )
    hedge = " (hedge)" if attempt.hedge else ""
    level = "DEBUG" if fine else "WARNING"
    said.log(level, "attempt {}{} after {} ms", attempt.outcome, hedge, attempt.ms)


def log_stream_end(stream: str, record: Done | Failed) -> None:
    """One line for an answer that ended: ERROR where the relay could not give one."""
    said = logger.bind(**names(stream=stream))
    if isinstance(record, Done):
        usage, timing = record.usage, record.timing
        said.bind(target=_target(Target(record.provider, record.model))).info(
            "done {}: {} + {} tokens, first after {} ms, all after {} ms, {} attempts",
            record.finish_reason,
            usage.input_tokens,
            usage.output_tokens,
            timing.first_token_ms,
            timing.total_ms,
            len(record.attempts),
        )
    else:
        level = "INFO" if record.code in _NOT_ERRORS else "ERROR"
        said.log(level, "failed {} after {} attempts", record.code, len(record.attempts or ()))


def _target(target: Target) -> str:
    return f"{target.provider}:{target.model}"
