"""Splits a `text/event-stream` body into its events' payloads and the text outside its events.

Bytes in, bytes out: payloads are cut at line ends only, so a UTF-8 character that was split
between two reads is whole again before it is decoded. Source: the WHATWG HTML standard,
"Server-sent events", parsing an event stream.
"""

from __future__ import annotations

import re
from typing import Any

from relay.core.errors import Code, Fault
from relay.providers.decoding.tolerant import Unreadable, parse

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Bytes that one event may hold. The largest real ones carry Gemini's thought signatures and stay
under a megabyte; a body with longer ones is not an event stream."""

MAX_PARSES = 8
"""How often the kept lines that belong to no event are checked for being complete, before an event
or the body's end decides it."""

MAX_LOOSE_LINES = 1024
"""Lines of one event that are kept separately until it ends."""

_BOM = b"\xef\xbb\xbf"
_FIELD = re.compile(rb"[A-Za-z][\w.-]*")
_IGNORED = (b"id", b"retry")
_FAILURES = (b"error", b"exception", b"fail", b"fatal")
"""Parts of an event's or a field's name that mean a failure."""
_IN_WORDS = re.compile(
    rb"(?i)error|exception|fail|fatal|traceback|time.?out|unavailable|bad gateway"
)
"""Parts of a line without a name that mean a failure, as proxies write it into a body that they
break off."""
_STRUCTURED = (b"{", b"[", b"<")
"""The characters that JSON and HTML pages begin with."""
_USUAL = frozenset(
    b"event: " + name
    for name in (
        b"content_block_delta",
        b"content_block_start",
        b"content_block_stop",
        b"message_delta",
        b"message_start",
        b"message_stop",
        b"ping",
    )
)
"""Lines that need no check: the event names of the one vendor that names all of its events."""


class Aside:
    """Text that an upstream sends outside its events, or in an event whose name means a failure.

    `text` is that text; `value` its JSON value, None if it is not JSON. `named`: the name of the
    event or field means a failure, or the text does if it has no name. `bare`: it has no name,
    like the whole answer of a server that does not stream.
    """

    __slots__ = ("bare", "named", "text", "value")

    def __init__(self, name: bytes, text: bytes) -> None:
        self.bare = not name
        self.text = text
        self.value = _value(text)
        self.named = _tells_of_failure(name) or (self.bare and _is_failure_in_words(text))

    @property
    def whole(self) -> bool:
        """Whether it is complete, so that no following line can belong to it."""
        return self.value is not None or (self.named and self.text[:1] not in (b"{", b"["))

    @property
    def broken(self) -> bool:
        """Whether it looks like JSON that can't be read, or is an HTML page."""
        return self.bare and self.value is None and self.text[:1] in _STRUCTURED


class Splitter:
    """One body's events. Feed it each read, then call `eof` once the body has ended."""

    __slots__ = ("_after_cr", "_failed", "_held", "_lines", "_parses", "_partial", "_stray")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._lines: list[bytes] = []
        self._held = 0
        self._after_cr = False
        self._failed = False
        self._stray: list[bytes] = []
        self._parses = 0

    def feed(self, data: bytes) -> list[bytes | Aside]:
        """The payloads that `data` completes, in order; `data:` lines of one event are joined by
        line feeds. An empty payload is a comment or an event without data: only a sign of life. An
        `Aside` is text that is no event, or an event whose name means a failure.

        Raises `Fault` (PROVIDER_INTERRUPTED) for an event beyond `MAX_EVENT_BYTES`.
        """
        if self._after_cr or b"\r" in data:
            data = self._with_line_feeds(data)
        if not self._held and not self._failed and (payload := _whole_event(data)):
            return [payload]
        if b"\n" not in data:
            self._hold(data)
            return []
        lines = data.split(b"\n")
        if self._partial:
            lines[0] = b"".join((*self._partial, lines[0]))
        rest = lines.pop()
        self._partial = [rest] if rest else []
        payloads = self._events(lines)
        self._held = len(rest)
        if self._lines or self._stray:
            self._held += _size(self._lines) + _size(self._stray)
        self._check(self._held - len(b"data: "))
        return payloads

    def eof(self) -> list[bytes | Aside]:
        """The payloads that the end of the body completes: an event that no blank line closed, and
        lines that are no event, if any.

        The standard drops them, but some servers close without that blank line, and some do not
        stream at all. The last event may be cut off: the caller notices that when it decodes it.
        """
        payloads = self.feed(b"\n\n") if self._held or self._failed else []
        if self._stray:
            payloads.append(self._aside())
        return payloads

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, data: bytes) -> None:
        if data:
            self._partial.append(data)
            self._held += len(data)
            self._check(self._held - len(b"data: "))

    def _events(self, lines: list[bytes]) -> list[bytes | Aside]:
        payloads: list[bytes | Aside] = []
        pending = self._lines
        for line in lines:
            if line.startswith(b"data:"):
                pending.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if self._failed or self._stray:
                    self._settle(payloads)
                if pending:
                    payload = pending[0] if len(pending) == 1 else b"\n".join(pending)
                    self._check(len(payload))
                    payloads.append(payload)
                    pending.clear()
            elif line not in _USUAL:
                self._other(line, payloads)
        return payloads

    def _other(self, line: bytes, payloads: list[bytes | Aside]) -> None:
        name, _, text = line.partition(b":")
        if not name:
            payloads.append(b"")
        elif name == b"event":
            self._failed = _tells_of_failure(text)
        elif line.startswith(_BOM):
            payloads.extend(self._events([line[len(_BOM) :]]))
        elif name == b"data":
            self._lines.append(b"")
        elif name not in _IGNORED:
            self._lay_aside(line, payloads)

    def _lay_aside(self, line: bytes, payloads: list[bytes | Aside]) -> None:
        """Keep a line that belongs to no event. A line that is complete in itself is returned at
        once."""
        first = not self._stray
        self._stray.append(line)
        if first and (aside := _aside([line])).whole:
            self._stray.clear()
            payloads.append(aside)

    def _settle(self, payloads: list[bytes | Aside]) -> None:
        """Handle a blank line: return the text kept so far, and an event whose name means a
        failure as that failure. Lines that may be incomplete stay, unless an event follows them."""
        if self._stray:
            self._parses += 1
            last = bool(self._lines) or self._failed
            if last or (self._parses <= MAX_PARSES and _aside(self._stray).whole):
                payloads.append(self._aside())
        if self._failed:
            payloads.append(Aside(b"error", b"\n".join(self._lines)))
            self._lines.clear()
            self._failed = False

    def _aside(self) -> Aside:
        """The text kept so far, which is then forgotten."""
        stray, self._stray, self._parses = self._stray, [], 0
        return _aside(stray)

    @staticmethod
    def _check(size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise Fault(
                Code.PROVIDER_INTERRUPTED,
                f"an event of the answer is longer than {MAX_EVENT_BYTES} bytes",
            )


def _aside(lines: list[bytes]) -> Aside:
    """The text of `lines`, without the name of a field if they begin with one."""
    text = b"\n".join(lines).strip()
    name, colon, rest = text.partition(b":")
    if colon and _FIELD.fullmatch(name):
        return Aside(name, rest.strip())
    return Aside(b"", text)


def _value(text: bytes) -> Any:
    try:
        return parse(text)
    except Unreadable:
        return None


def _tells_of_failure(name: bytes) -> bool:
    name = name.lower()
    return name.strip() == b"err" or any(word in name for word in _FAILURES)


def _is_failure_in_words(text: bytes) -> bool:
    return text[:1] not in _STRUCTURED and _IN_WORDS.search(text) is not None


def _size(lines: list[bytes]) -> int:
    """Bytes in the kept lines. Many small lines are joined first, since an object for each line
    would take many times the memory."""
    if len(lines) > MAX_LOOSE_LINES:
        lines[:] = [b"\n".join(lines)]
    return sum(map(len, lines)) + len(lines)


def _whole_event(data: bytes) -> bytes:
    """The payload if `data` is exactly one event, with or without a name and with one line of
    data: what most reads of a paced answer bring. Else empty."""
    if data.startswith(b"event: "):
        name, _, data = data.partition(b"\n")
        if name not in _USUAL:
            return b""
    size = len(data)
    if (
        data.startswith(b"data: ")
        and data.endswith(b"\n\n")
        and data.find(b"\n") == size - 2
        and size <= MAX_EVENT_BYTES
    ):
        return data[6:-2]
    return b""
