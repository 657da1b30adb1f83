"""Where log lines go: three files and the console, written by a thread of their own.

`app.log` holds INFO and above, `error.log` ERROR, `debug.log` everything. Code logs with
`from loguru import logger`; what it says of a connection, a session or a stream stands on
every line that is written within `context`. `loglines` decides what a line may hold,
`logwriter` writes it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aiohttp.http_exceptions import HttpProcessingError
from loguru import logger

from relay.events import Attempt, Done, Failed
from relay.observability.loglines import Redactor, digest, fold, one_line
from relay.observability.logwriter import Console, Line, LogFile, LogWriter, Output

if TYPE_CHECKING:
    from loguru import Message, Record

Format = Literal["text", "json"]

FILES: dict[str, str] = {"app.log": "INFO", "error.log": "ERROR", "debug.log": "DEBUG"}
"""The tiers: each file with its lowest level."""

ROTATION = 50_000_000
"""Bytes: a file that reaches this size is closed, compressed and replaced."""

RETENTION = 10
"""So many closed files of each tier are kept; older ones are deleted."""

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
        if _is_noise(record):
            logger.bind(source=record.name).info("a request that is no HTTP was refused")
            return
        try:
            message = record.getMessage()
        except Exception:  # a library's format string and arguments don't fit
            message = "a log call whose arguments do not fit its message"
        level = record.levelname if record.levelname in _LEVELS else record.levelno
        logger.bind(source=record.name).opt(exception=record.exc_info).log(level, message)


def _is_noise(record: logging.LogRecord) -> bool:
    """Whether a client sent something that is no HTTP: a scan or TLS on a plain port must
    not fill the errors."""
    error = record.exc_info[1] if record.exc_info else None
    return record.name == "aiohttp.server" and isinstance(error, HttpProcessingError)


_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_writer: LogWriter | None = None
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
    global _content, _writer
    close_logging()
    _content = content
    outputs: list[Output] = [Console(_number(level))]
    if directory is not None:
        outputs += (files := _files(Path(directory)))
    _writer = LogWriter(outputs, MAX_QUEUED)
    logger.configure(patcher=_Lines(format, Redactor(secrets), content))
    logger.add(
        _Sink(_writer),
        level=min(output.level for output in outputs),
        format=_formatted,
        backtrace=False,
        diagnose=False,
    )
    _route_standard_library()
    if directory is not None and not files:
        logger.warning("no log files, the console only: {} can't be written", directory)
    atexit.unregister(logger.remove)  # it would wait for ever for a disk that hangs
    atexit.unregister(close_logging)
    atexit.register(close_logging)


class _Sink:
    """The one sink: loguru makes each line once, whatever number of outputs takes it."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def write(self, message: Message) -> None:
        self._writer.put(Line(message.record["level"].no, str(message)))

    def stop(self) -> None:
        self._writer.close()


def _formatted(record: Record) -> str:
    return "{extra[line]}\n"


def _number(level: str) -> int:
    return logger.level(level).no


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
    for name in SDK_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of the subprotocols that a client offers, which may hold the client's token.
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)


def close_logging(timeout: float = CLOSE_TIMEOUT) -> None:
    """Write what is queued and stop: call it last, also on SIGTERM. Waits `timeout`
    seconds at most."""
    global _writer
    closing = threading.Thread(target=logger.remove, name="logs-closing", daemon=True)
    closing.start()
    closing.join(timeout)
    if closing.is_alive():
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


def log_attempt(stream: str, attempt: Attempt) -> None:
    """One line for an upstream call that ended: WARNING where it failed."""
    fine = attempt.outcome in ("ok", "cancelled")
    said = logger.bind(**names(stream=stream), target=f"{attempt.provider}:{attempt.model}")
    hedge = " (hedge)" if attempt.hedge else ""
    level = "DEBUG" if fine else "WARNING"
    said.log(level, "attempt {}{} after {} ms", attempt.outcome, hedge, attempt.ms)


def log_stream_end(stream: str, record: Done | Failed) -> None:
    """One line for an answer that ended: ERROR where the relay could not give one."""
    said = names(stream=stream)
    if isinstance(record, Done):
        usage, timing = record.usage, record.timing
        logger.bind(**said, target=f"{record.provider}:{record.model}").info(
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
        count = len(record.attempts or ())
        logger.bind(**said).log(level, "failed {} after {} attempts", record.code, count)
