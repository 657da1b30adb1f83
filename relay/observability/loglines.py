"""Cleans what goes into a log line: removes secrets, escapes line ends, folds tracebacks.

Pure: no file, no clock, no logger. `relay.observability.logs` applies it to every record.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterable, Iterator
from hashlib import sha256
from urllib.parse import quote

from relay.core.errors import Fault, RelayError
from relay.core.redaction import HIDDEN, MIN_SECRET_LENGTH, hide_shapes

MAX_MESSAGE = 8_192
"""Characters of a line's message, and of its traceback, at most; the rest is counted."""

LONGEST_WORD = 1_000
"""Characters: a longer piece of text without a space is not taken for a word."""

_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_BREAKING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\x1b", "\x00": "\\x00"}
_TELLING = (
    OSError,
    ImportError,
    AttributeError,
    NameError,
    TypeError,
    ArithmeticError,
    RelayError,
    Fault,
)
"""Exceptions whose message describes the program, not its input."""


def one_line(text: str) -> str:
    """`text` with everything escaped that could end a line, move a cursor or reorder what is shown:
    C0, C1, U+2028, U+2029, bidirectional controls, lone surrogates."""
    return text if text.isprintable() else _BREAKING.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    point = ord(character)
    return _SHORT.get(character) or (f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}")


def cut(text: str, limit: int) -> str:
    """`text` if it is no longer than `limit`, else its whole words within it and a count of what
    was left out. Half a word could be half a secret, which would not be recognised. Text without
    spaces, such as Chinese, is cut after its last character beyond ASCII, because secrets are
    ASCII."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    kept = head[: max(head.rfind(" "), head.rfind("\n"), 0)]
    if len(kept) < limit - LONGEST_WORD:
        kept = head.rstrip(_VISIBLE)
    return f"{kept}… ({len(text) - len(kept)} more characters)"


def digest(secret: str) -> str:
    """Eight characters that stand for a session: equal names have equal digests, and the name can't
    be recovered."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class Redactor:
    """Removes the configured secrets from text, then everything that looks like one.

    Secrets contain no spaces."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _written_forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        """`text` without secrets, cut at `MAX_MESSAGE`. It is cut first, so that the work is
        bounded."""
        short = cut(text, MAX_MESSAGE)
        known = self._known.sub(HIDDEN, short) if self._known else short
        return hide_shapes(known)


def _written_forms(secret: str) -> Iterator[str]:
    """The secret as it is, in a URL, in JSON and in Python's `repr`."""
    if len(secret) < MIN_SECRET_LENGTH:
        return
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]


def fold(error: BaseException, *, content: bool) -> str:
    """An exception's traceback with those of its causes, as Python prints it but without any
    variable's value.

    Unless `content`, the message of an exception that may quote its input (a `ValueError`, say, or
    a vendor's own) is left out: only its type and place are shown.
    """
    return "\n".join(_chain(error, content, set()))


def _chain(error: BaseException, content: bool, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _chain(before, content, seen)
        yield "Which led to:"
    yield "Traceback (most recent call last):"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
    yield _headline(error, content)
    for inner in getattr(error, "exceptions", ()):
        if isinstance(inner, BaseException) and id(inner) not in seen:
            yield "Which holds:"
            yield from _chain(inner, content, seen)


def _headline(error: BaseException, content: bool) -> str:
    name = type(error).__qualname__
    try:
        message = str(error)
    except Exception:  # a defect in the exception's own __str__ must not lose the line
        return f"{name} (its message can't be shown)"
    if not message:
        return name
    if content or isinstance(error, _TELLING):
        return f"{name}: {message}"
    return f"{name} (message of {len(message)} characters left out)"
