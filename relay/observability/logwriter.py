"""Writes log lines in the background: one queue and one thread for all outputs.

A log call appends to a queue and returns, so neither it nor the event loop ever waits for a disk.
The first line after a pause wakes the thread, which waits a moment for more and writes them to each
output at once. While lines keep coming it checks the queue at intervals instead, because a wake-up,
a thread switch and a `write` cost more than a line does. Where none come, it sleeps.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from typing_extensions import override

from relay.observability.loglayout import LogEntry

GATHER = 0.05
"""Seconds that the thread waits for further lines once it was woken."""

LOOK = 0.25
"""Seconds from one batch to the next while lines keep coming."""


class Line(NamedTuple):
    """One line, its end included, and its level's number."""

    level: int
    text: str


class Output(Protocol):
    """A destination for lines of at least its `level`."""

    level: int

    def write(self, lines: Sequence[Line]) -> None:
        """Write them all. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class LogWriter:
    """The queue and its thread. At most `limit` lines wait for outputs that do not keep up; further
    ones are dropped and counted, rather than fill the memory.

    `compose` makes the line of an entry, its end included. It is called on the thread and must not
    raise.
    """

    def __init__(
        self, outputs: Sequence[Output], limit: int, compose: Callable[[LogEntry], str]
    ) -> None:
        self.dropped = 0
        self._compose = compose
        self._outputs = outputs
        self._limit = limit
        self._lines: deque[LogEntry] = deque()
        self._awake = False
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="logs", daemon=True)
        self._thread.start()

    @property
    def awake(self) -> bool:
        """Whether the thread checks the queue at intervals; asleep it costs nothing."""
        return self._awake

    def put(self, entry: LogEntry) -> None:
        """Add an entry, unless too many wait. Never blocks; may be called from any thread."""
        if len(self._lines) >= self._limit:
            self.dropped += 1
            return
        self._lines.append(entry)
        if not self._awake:
            self._wake()

    def close(self, timeout: float | None = None) -> bool:
        """Write what is queued, then close the outputs. Waits for that at most `timeout` seconds
        (None: without limit) and returns whether it was done. Starts no thread, which Python 3.12
        does not allow while the interpreter ends."""
        self._closing.set()
        self._some.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(GATHER)
            while self._lines and not self._closing.is_set():
                self._write()
                self._closing.wait(LOOK)
            self._some.clear()
            self._awake = False
            if self._lines:  # one came just before, and did not wake the thread
                self._wake()
        self._write()
        for output in self._outputs:
            with suppress(OSError):
                output.close()

    def _wake(self) -> None:
        self._awake = True
        self._some.set()

    def _write(self) -> None:
        waiting = [self._lines.popleft() for _ in range(len(self._lines))]
        lines = [Line(entry.level, self._compose(entry)) for entry in waiting]
        for output in self._outputs:
            wanted = [line for line in lines if line.level >= output.level]
            try:
                if wanted:
                    output.write(wanted)
            except (OSError, ValueError):  # a full disk, a console that is gone
                self.dropped += len(wanted)


class Console(Output):
    """Standard error, with a colour for each level on a terminal."""

    def __init__(self, level: int) -> None:
        self.level = level
        self._stream = sys.stderr
        terminal = getattr(self._stream, "isatty", bool)()
        self._coloured = terminal and not os.getenv("NO_COLOR")

    @override
    def write(self, lines: Sequence[Line]) -> None:
        self._stream.write("".join(map(_coloured, lines) if self._coloured else _texts(lines)))
        with suppress(AttributeError):  # a replacement of standard error may lack it
            self._stream.flush()

    @override
    def close(self) -> None:
        """Do nothing: standard error stays open."""


def _texts(lines: Sequence[Line]) -> Sequence[str]:
    return [line.text for line in lines]


def _coloured(line: Line) -> str:
    colour = next((code for level, code in _COLOURS if line.level >= level), "34")
    return f"\x1b[{colour}m{line.text[:-1]}\x1b[0m\n"


_COLOURS = ((40, "1;31"), (30, "1;33"), (20, "1"))


class LogFile(Output):
    """A file that is closed, compressed and replaced when it reaches `rotation` bytes.
    `retention` closed ones are kept. Only its owner and group may read it."""

    def __init__(self, path: Path, level: int, *, rotation: int, retention: int) -> None:
        """Raises `OSError` where the file can't be written."""
        self.level = level
        self._path = path
        self._rotation = rotation
        self._retention = retention
        self._open()

    @override
    def write(self, lines: Sequence[Line]) -> None:
        left = "".join(_texts(lines)).encode("utf-8", "backslashreplace")
        while left:
            whole = self._room(left)
            self._file.write(left[:whole])
            self._size += whole
            left = left[whole:]
            if self._size >= self._rotation or left:
                self._rotate()

    @override
    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        self._file = open(self._path, "ab", buffering=0, opener=_opened)  # noqa: SIM115
        self._size = self._file.tell()

    def _room(self, data: bytes) -> int:
        """The bytes of whole lines that still fit; an empty file takes a line of any length."""
        room = self._rotation - self._size
        if len(data) <= room:
            return len(data)
        whole = data.rfind(b"\n", 0, max(room, 0)) + 1
        return whole or (0 if self._size else data.index(b"\n") + 1)

    def _rotate(self) -> None:
        self._file.close()
        closed = self._path.with_name(f"{self._path.stem}.{_now()}{self._path.suffix}")
        self._path.rename(closed)
        self._open()
        _compress(closed)
        for old in self._closed()[: -self._retention]:
            old.unlink(missing_ok=True)

    def _closed(self) -> list[Path]:
        """The closed files, the oldest first: their names hold their times."""
        return sorted(self._path.parent.glob(f"{self._path.stem}.*{self._path.suffix}*"))


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")


def _compress(path: Path) -> None:
    packed = path.with_name(f"{path.name}.gz")
    with (
        open(path, "rb") as plain,
        open(packed, "xb", opener=_opened) as file,
        gzip.GzipFile(fileobj=file, mode="wb") as archive,
    ):
        shutil.copyfileobj(plain, archive)
    path.unlink()


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)  # other users of this machine may not read it
