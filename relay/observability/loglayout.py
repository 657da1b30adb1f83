"""What a log line looks like, as text and as JSON; pure.

What the code says is noted as `LogEntry`: a sentence and the values in it. The thread that writes
the line puts it together, not the code that says it.
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
"""Characters of a stream's name that are logged; the others keep it unguessable."""

MAX_REMEMBERED = 1_024
"""So many cleaned values, and so many digests, are kept: those of an answer's lines are few
and come again and again."""

MAX_REMEMBERED_LENGTH = 256
"""Characters of a value that is kept; longer ones are cleaned each time."""

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
"""The names of the levels that the house uses."""

Values: TypeAlias = tuple[object, ...]
LineFields: TypeAlias = Mapping[str, object]
NO_FIELDS: LineFields = MappingProxyType({})

_NUMBERS = (int, float)
_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000


class About(Struct, frozen=True, gc=False):
    """Whom a line is about. Sessions and streams are capabilities: they stand here in full,
    and no line shows them so."""

    connection: str | None = None
    session: str | None = None
    stream: str | None = None

    def shown(self) -> About:
        """The same as lines show it: of a session a digest, of a stream the beginning."""
        return About(
            self.connection or None,
            _digest(self.session) if self.session else None,
            self.stream[:STREAM_PREFIX] if self.stream else None,
        )

    def within(self, outer: About) -> About:
        """These names, and for those that are not given the ones of `outer`."""
        return About(
            self.connection or outer.connection,
            self.session or outer.session,
            self.stream or outer.stream,
        )


_digest = lru_cache(MAX_REMEMBERED)(digest)


class Parts(Struct, frozen=True):
    """A line's parts, free of secrets. `about` as it is shown."""

    time: str
    level: str
    source: str
    about: About
    message: str
    fields: Mapping[str, str]
    trace: str


class LogEntry(Struct, frozen=True, gc=False):
    """What the code says, noted as it is. `message` is a constant of the code's with a place
    for each of `values`. What is no number among them may hold a secret, and is cleaned
    when the line is put together, as fields and traceback are. `moment` is in nanoseconds
    since the epoch. `source` is the module that speaks. `outer` has the names that `about`
    does not give."""

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
    """Puts lines together, each with its end, in one of the two formats. `clean` takes
    secrets out of a text."""

    def __init__(self, format: Format, clean: Callable[[str], str]) -> None:
        self._line = _json_line if format == "json" else _text_line
        self._clean = clean
        self._remembered = lru_cache(MAX_REMEMBERED)(clean)
        self._moments = _Moments()

    def line(self, entry: LogEntry) -> str:
        """The line of what the code says. One that can't be put together says so, in the same
        format: a defect in it must not break who reads the lines."""
        time = self._moments.written(entry.moment)
        level = LEVELS.get(entry.level) or f"Level {entry.level}"
        try:
            return self._line(self._parts(time, level, entry))
        except Exception as error:
            message = f"a line could not be put together: {type(error).__name__}"
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
    """Writes moments as ISO 8601 in local time. What changes once a second is made once."""

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
