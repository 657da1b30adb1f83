"""Splits a `text/event-stream` body into its events' payloads.

Bytes in, bytes out: payloads are cut at line ends only, so a UTF-8 character that was
split between two reads is whole again before anybody decodes it. Source: the WHATWG HTML
standard, "Server-sent events", parsing an event stream.
"""

from __future__ import annotations

from relay.errors import Code, Fault

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Bytes that one event may hold. The largest real ones carry Gemini's thought signatures
and stay under a megabyte; what is longer is not an event stream."""

MAX_STRAY_BYTES = 64 * 1024
"""Bytes kept of lines that belong to no field: enough for any error object."""

MAX_LOOSE_LINES = 1024
"""Lines of one event that are kept apart until it ends."""

_BOM = b"\xef\xbb\xbf"
_IGNORED = (b"event", b"id", b"retry")


class Splitter:
    """One body's events. Feed it each read, then call `eof` once the body has ended."""

    __slots__ = ("_after_cr", "_held", "_lines", "_partial", "_stray")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._lines: list[bytes] = []
        self._held = 0
        self._after_cr = False
        self._stray = b""

    @property
    def stray(self) -> bytes:
        """Lines that were no event field, joined by line feeds, at most `MAX_STRAY_BYTES`.

        Gemini writes an error that comes in mid-stream as a bare JSON object, and servers
        that do not stream at all answer with one.
        """
        return self._stray

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes, in order; `data:` lines of one event joined
        by line feeds. An empty payload is a comment or an event without data: nothing but
        a sign of life.

        Raises `Fault` (PROVIDER_INTERRUPTED) for an event beyond `MAX_EVENT_BYTES`.
        """
        if self._after_cr or b"\r" in data:
            data = self._with_line_feeds(data)
        if not self._partial and not self._lines and (payload := _whole_event(data)):
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
        self._held = len(rest) + (self._pending_size() if self._lines else 0)
        self._check(self._held - len(b"data: "))
        return payloads

    def eof(self) -> list[bytes]:
        """What the end of the body leaves: the event that no blank line closed, if any.

        The standard drops it, but some servers close without that blank line. It may also
        be half an event: the caller finds out by decoding it.
        """
        return self.feed(b"\n\n") if self._partial or self._lines else []

    def _pending_size(self) -> int:
        """Bytes in the event under way. Many small lines are joined first: an object a line
        would weigh many times what it holds."""
        if len(self._lines) > MAX_LOOSE_LINES:
            self._lines = [b"\n".join(self._lines)]
        return sum(map(len, self._lines)) + len(self._lines)

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

    def _events(self, lines: list[bytes]) -> list[bytes]:
        payloads: list[bytes] = []
        pending = self._lines
        for line in lines:
            if line.startswith(b"data:"):
                pending.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if pending:
                    payload = pending[0] if len(pending) == 1 else b"\n".join(pending)
                    self._check(len(payload))
                    payloads.append(payload)
                    pending.clear()
            else:
                self._other(line, payloads)
        return payloads

    def _other(self, line: bytes, payloads: list[bytes]) -> None:
        name = line.partition(b":")[0]
        if not name:
            payloads.append(b"")
        elif line.startswith(_BOM):
            payloads.extend(self._events([line[len(_BOM) :]]))
        elif name == b"data":
            self._lines.append(b"")
        elif name not in _IGNORED and len(self._stray) < MAX_STRAY_BYTES:
            self._stray = (self._stray + line + b"\n")[:MAX_STRAY_BYTES]

    @staticmethod
    def _check(size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise Fault(
                Code.PROVIDER_INTERRUPTED,
                f"an event of the answer is longer than {MAX_EVENT_BYTES} bytes",
            )


def _whole_event(data: bytes) -> bytes:
    """The payload where `data` is just one event, its name perhaps and one line of data:
    what most reads of a paced answer bring. Empty where it is anything else."""
    if data.startswith(b"event: "):
        data = data.partition(b"\n")[2]
    size = len(data)
    if (
        data.startswith(b"data: ")
        and data.endswith(b"\n\n")
        and data.find(b"\n") == size - 2
        and size <= MAX_EVENT_BYTES
    ):
        return data[6:-2]
    return b""
