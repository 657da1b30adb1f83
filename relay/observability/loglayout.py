"""The layout of a log line, as text and as JSON. Pure.

A log call makes a `LogEntry`: a message and its values. The thread that writes the line makes it,
not the caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import asdict

from relay.observability.loglines import digest, one_line

Format = Literal["text", "json"]

STREAM_PREFIX = 8
"""Characters of a stream's name that are logged; the others stay secret."""

MAX_REMEMBERED = 1_024
"""How many cleaned values, and how many digests, are cached: the lines of answers have few
different ones."""

MAX_REMEMBERED_LENGTH = 256
"""Characters of a value that is cached; longer ones are cleaned each time."""

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
"""The names of the levels in use."""

Values: TypeAlias = tuple[object, ...]
LineFields: TypeAlias = Mapping[str, object]
NO_FIELDS: LineFields = MappingProxyType({})

_NUMBERS = (int, float)
_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000


class About(Struct, frozen=True, gc=False):
    """The connection, session and stream that a line is about. Their names are secrets: they are in
    full here, and lines show only what `shown` returns."""

    connection: str | None = None
    session: str | None = None
    stream: str | None = None

    def shown(self) -> About:
        """The same as lines show it: a digest of the session, the beginning of the stream's
        name."""
        return About(
            self.connection or None,
            _digest(self.session) if self.session else None,
            self.stream[:STREAM_PREFIX] if self.stream else None,
        )

    def within(self, outer: About) -> About:
        """These names, with those of `outer` where one is missing."""
        return About(
            self.connection or outer.connection,
            self.session or outer.session,
            self.stream or outer.stream,
        )


_digest = lru_cache(MAX_REMEMBERED)(digest)


class Parts(Struct, frozen=True):
    """A line's parts, without secrets; `about` is what `About.shown` returns."""

    time: str
    level: str
    source: str
    about: About
    message: str
    fields: Mapping[str, str]
    trace: str


class LogEntry(Struct, frozen=True, gc=False):
    """One log call, as it was made. `message` is a constant with a placeholder for each of
    `values`. Values that are not numbers may hold a secret and are cleaned when the line is made,
    as fields and traceback are. `moment` is in nanoseconds since the epoch. `source` is the module
    that logs. `outer` has the names for which `about` has none."""

    level: int
    moment: int
    source: str
    about: About
    outer: About
    message: str
    values: Values
    fields: LineFields
    trace: str = ""


class Layout:
    """Makes lines, each with its end, in one of the two formats. `clean` removes secrets from a
    text."""

    def __init__(self, format: Format, clean: Callable[[str], str]) -> None:
        self._line = _json_line if format == "json" else _text_line
        self._clean = clean
        self._remembered = lru_cache(MAX_REMEMBERED)(clean)
        self._moments = _Moments()

    def line(self, entry: LogEntry) -> str:
        """The line of an entry. Where it can't be made, a line in the same format says so, because
        programs that read the lines must not break."""
        time = self._moments.written(entry.moment)
        level = LEVELS.get(entry.level) or f"Level {entry.level}"
        try:
            return self._line(self._parts(time, level, entry))
        except Exception as error:
            message = f"this line could not be made: {type(error).__name__}"
            return self._line(Parts(time, level, entry.source, About(), message, {}, ""))

    def _parts(self, time: str, level: str, entry: LogEntry) -> Parts:
        values = [
            each if isinstance(each, _NUMBERS) else self._shown(each) for each in entry.values
        ]
        return Parts(
            time,
            level,
            entry.source,
            entry.about.within(entry.outer).shown(),
            entry.message.format(*values),
            {key: self._shown(value) for key, value in entry.fields.items()},
            self._clean(entry.trace) if entry.trace else "",
        )

    def _shown(self, value: object) -> str:
        text = str(value)
        clean = self._remembered if len(text) <= MAX_REMEMBERED_LENGTH else self._clean
        return clean(text)


class _Moments:
    """Writes moments as ISO 8601 in local time. The part that changes once a second is made once a
    second."""

    def __init__(self) -> None:
        self._last = (-1, "", "")

    def written(self, moment: int) -> str:
        second, rest = divmod(moment, _SECOND)
        last, head, offset = self._last
        if second != last:
            whole = datetime.fromtimestamp(second).astimezone().isoformat(timespec="seconds")
            head, offset = whole[:19], whole[19:]
            self._last = (second, head, offset)
        return f"{head}.{rest // _MILLISECOND:03d}{offset}"


def _text_line(parts: Parts) -> str:
    about = parts.about
    names = f"connection={about.connection or '-'} session={about.session or '-'}"
    where = f"{parts.source} {names} stream={about.stream or '-'}"
    said = "".join([f" {key}={_quoted(value)}" for key, value in parts.fields.items()])
    tail = f" | {parts.trace}" if parts.trace else ""
    line = f"{parts.time} {parts.level:<8} {where} | {parts.message}{said}{tail}"
    return f"{one_line(line)}\n"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if " " in value else value


def _json_line(parts: Parts) -> str:
    line: dict[str, Any] = {
        "time": parts.time,
        "level": parts.level,
        "source": parts.source,
        "message": parts.message,
        **asdict(parts.about),
    }
    if parts.fields:
        line["fields"] = parts.fields
    if parts.trace:
        line["traceback"] = parts.trace
    # ASCII only: nothing left to escape
    return json.dumps(line).replace("\x7f", "\\u007f") + "\n"
