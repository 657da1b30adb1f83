"""What every vendor's refusals share: the reply, Retry-After, and messages without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, NamedTuple

from relay.core.errors import Code, Fault, Remedy
from relay.core.provider import Call, Form
from relay.core.redaction import hide_shapes
from relay.providers.decoding.failures import failure
from relay.providers.decoding.tolerant import Unreadable, parse
from relay.providers.decoding.verdicts import (
    INTERRUPTED,
    MALFORMED,
    UNSUPPORTED,
    Judge,
    Refusal,
    Verdict,
    in_band,
    refusal_of,
)

MAX_VENDOR_WORDS = 300
"""Characters of a vendor's own message that are shown."""

MAX_WORDS_READ = 4096
"""Characters of that message that are searched for secrets: an error's body may be a whole page."""

_TOKEN = re.compile(r"[\w.\-]{1,64}")


class Reply(NamedTuple):
    """An HTTP response that is not a stream: `status`, headers by lower-case name, body. `now` is
    seconds since the epoch, for a Retry-After that is a date."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    now: float


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that the headers ask to wait; None if they don't ask.

    `Retry-After` is seconds or an HTTP date (RFC 9110 §10.2.3). `retry-after-ms` is OpenAI's finer
    one and takes precedence.
    """
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    return seconds if seconds is not None else _until(text, now)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


def _until(date: str, now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def seconds(duration: object) -> float | None:
    """A protobuf JSON duration such as `"2.5s"` (google.protobuf.Duration) in seconds."""
    if not isinstance(duration, str) or not duration.endswith("s"):
        return None
    return _number(duration[:-1])


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`: the body itself, the only element of an array (as Google sends
    it), or the data of a single event; empty for anything else."""
    begin, end = body.find(b"{"), body.rfind(b"}")
    try:
        value = parse(body[begin : end + 1])
    except Unreadable:
        return {}
    return value if isinstance(value, dict) else {}


def word(value: object) -> str:
    """A vendor's type or code if it is one short token; else empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else ""


def redact(text: str) -> str:
    """A vendor's message in a form that is safe to show: one line, of limited length, without
    keys, tokens or credentials in URLs."""
    words = text[:MAX_WORDS_READ]
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    line = hide_shapes(line)
    return line if len(line) <= MAX_VENDOR_WORDS else line[: MAX_VENDOR_WORDS - 1] + "…"


def fault(
    verdict: Verdict,
    *,
    marks: tuple[object, ...] = (),
    says: object = None,
    wait: float | None = None,
    prefill_refused: bool = False,
    recurs: bool = False,
) -> Fault:
    """The `Fault` for a verdict. `marks` are the vendor's status, type and code. `says` is its
    message, quoted only if the client can do something about it."""
    text = f"the provider {verdict.says}"
    if known := [token for token in map(word, marks) if token]:
        text += f" ({' '.join(dict.fromkeys(known))})"
    if verdict.quoted and isinstance(says, str) and says:
        text += f": {redact(says)}"
    remedy: Remedy = "fallback" if prefill_refused else verdict.remedy
    return Fault(
        verdict.code,
        text,
        remedy=remedy,
        retry_after=wait,
        prefill_refused=prefill_refused,
        recurs=recurs,
    )


def refused(judge: Judge, reply: Reply, call: Call | None = None) -> Fault:
    """The `Fault` to raise for an HTTP refusal. `judge` is the vendor's; `call` is the call that
    was refused."""
    body = json_object(reply.body)
    verdict, marks, says, wait = refusal_of(judge, reply.status, failure(body) or body)
    prefilled = call is not None and call.form is Form.PREFILL
    return fault(
        verdict,
        marks=(reply.status, *marks),
        says=says,
        wait=wait if wait is not None else retry_after(reply.headers, reply.now),
        prefill_refused=prefilled and verdict in (MALFORMED, UNSUPPORTED),
    )


def broken_by(refusal: Refusal) -> Fault:
    """The `Fault` for an error inside a stream."""
    verdict, marks, says, wait = refusal
    return fault(in_band(verdict), marks=marks, says=says, wait=wait)


def closed_early() -> Fault:
    """The fault of a body that ended, or broke, before the vendor's end was seen."""
    return Fault(
        Code.PROVIDER_INTERRUPTED, "the provider's answer ended before its end marker came"
    )


def bad_event() -> Fault:
    """The fault of an event that may have carried text and can't be read."""
    return _recurring("the provider sent an event that cannot be read")


def unknown_object() -> Fault:
    """The fault of an object that is no part of an answer and may report a failure."""
    return _recurring("the provider sent an object that is no part of an answer")


def unknown_reason(reason: str) -> Fault:
    """The fault of an answer with a finish reason that is not known to be a good one."""
    return fault(INTERRUPTED, marks=(reason,), recurs=True)


def bad_arguments() -> Fault:
    """The fault of a tool call whose arguments are not a JSON object."""
    return _recurring("the provider sent a tool call whose arguments are not JSON")


def _recurring(message: str) -> Fault:
    return Fault(Code.PROVIDER_INTERRUPTED, message, recurs=True)
