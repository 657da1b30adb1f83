"""What every vendor's refusals have in common: HTTP status, Retry-After, safe wording.

Each vendor's own types and codes are read in its `*_wire` module; what they leave open is
decided here by the HTTP status alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from relay.errors import Code, Fault, Remedy

MAX_VENDOR_WORDS = 300
"""Characters of a vendor's own message that are passed on."""

_SECRETS = re.compile(
    r"(?i)\b(?:sk|pk|rk|key|gsk|xai|hf|ghp)[-_][\w.*-]{4,}"
    r"|\bAIza[\w-]{10,}|\beyJ[\w-]+\.[\w.-]+|\bbearer\s+\S+"
    r"|(?<=://)[^/\s@]+@|(?<=[?&])(?:api_?key|key|token)=[^&\s]+"
)
_TOKEN = re.compile(r"[\w.\-]{1,64}")


class Reply(NamedTuple):
    """An HTTP answer that is not a stream: `status`, headers by lower-case name, body.
    `now` is seconds since the epoch, for a Retry-After that names a date."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    now: float


class Verdict(NamedTuple):
    """What a refusal means for the answer: the contract's code, and what may still help."""

    code: Code
    remedy: Remedy


RATE_LIMITED = Verdict(Code.PROVIDER_RATE_LIMITED, "retry")
OUT_OF_QUOTA = Verdict(Code.PROVIDER_RATE_LIMITED, "fallback")
UNAUTHENTIC = Verdict(Code.PROVIDER_AUTH, "fallback")
OVERLOADED = Verdict(Code.PROVIDER_OVERLOADED, "retry")
TIMED_OUT = Verdict(Code.PROVIDER_TIMEOUT, "retry")
BROKEN = Verdict(Code.PROVIDER_ERROR, "retry")
MISSING = Verdict(Code.PROVIDER_ERROR, "fallback")
INTERRUPTED = Verdict(Code.PROVIDER_INTERRUPTED, "retry")
TOO_LONG = Verdict(Code.CONTEXT_LENGTH, "fallback")
REFUSED = Verdict(Code.CONTENT_POLICY, "none")
MALFORMED = Verdict(Code.BAD_REQUEST, "none")

_BY_STATUS: dict[int, Verdict] = {
    400: MALFORMED,
    401: UNAUTHENTIC,
    402: OUT_OF_QUOTA,
    403: UNAUTHENTIC,
    404: MISSING,
    408: TIMED_OUT,
    409: BROKEN,
    413: TOO_LONG,
    422: MALFORMED,
    429: RATE_LIMITED,
    503: OVERLOADED,
    504: TIMED_OUT,
    529: OVERLOADED,
}

_SAYING: dict[Verdict, str] = {
    RATE_LIMITED: "is limiting the rate of requests",
    OUT_OF_QUOTA: "says that the account's quota is used up",
    UNAUTHENTIC: "refused the API key, or the key may not use this model",
    OVERLOADED: "is overloaded",
    TIMED_OUT: "gave up on the request",
    BROKEN: "failed",
    MISSING: "does not serve this model or address",
    INTERRUPTED: "broke off the answer",
    TOO_LONG: "finds the conversation too long for this model",
    REFUSED: "refused the request by its content policy",
    MALFORMED: "refused the request",
}
_QUOTES_VENDOR = frozenset({TOO_LONG, REFUSED, MALFORMED})


def by_status(status: int) -> Verdict:
    """The verdict that an HTTP status alone allows."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500 or status < 300:
        return BROKEN
    return MISSING if status < 400 else MALFORMED


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the headers ask to wait, None where they ask nothing.

    `Retry-After` is seconds or an HTTP date (RFC 9110 §10.2.3); `retry-after-ms` is
    OpenAI's finer one and goes first.
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
    """The JSON object that `body` is, or the only element of an array (Google's habit);
    empty for anything else."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else {}


def word(value: object) -> str:
    """A vendor's type or code where it is one short token; else empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else ""


def redact(text: str) -> str:
    """A vendor's message, safe to show: one line, bounded, without keys, tokens or
    credentials in URLs."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = _SECRETS.sub("***", line)
    return line if len(line) <= MAX_VENDOR_WORDS else line[: MAX_VENDOR_WORDS - 1] + "…"


def fault(
    verdict: Verdict,
    *,
    marks: tuple[object, ...] = (),
    says: object = None,
    wait: float | None = None,
    prefill_refused: bool = False,
) -> Fault:
    """The `Fault` for a verdict. `marks` are the vendor's status, type and code; `says` is
    its message, quoted only where the client can do something about it."""
    text = f"the provider {_SAYING[verdict]}"
    if known := [token for token in map(word, marks) if token]:
        text += f" ({' '.join(dict.fromkeys(known))})"
    if verdict in _QUOTES_VENDOR and isinstance(says, str) and says:
        text += f": {redact(says)}"
    remedy: Remedy = "fallback" if prefill_refused else verdict.remedy
    return Fault(
        verdict.code, text, remedy=remedy, retry_after=wait, prefill_refused=prefill_refused
    )


def mentions(message: object, phrases: tuple[str, ...]) -> bool:
    """Whether a vendor's message holds one of `phrases` (lower case): the last resort,
    where the vendor gives no code for what it means."""
    return isinstance(message, str) and any(phrase in message.lower() for phrase in phrases)


CONTEXT_PHRASES = (
    "prompt is too long",
    "input is too long",
    "exceed context limit",
    "context length",
    "context window",
    "context size",
    "input token count",
    "maximum number of tokens",
)
"""How Anthropic, Gemini and several compatible servers, which have no code for it, say
that a conversation does not fit."""

POLICY_PHRASES = (
    "content policy",
    "content filter",
    "content management policy",
    "usage policy",
    "usage policies",
    "safety policy",
)
"""How servers without a code for it say that the request's content is not allowed."""


def closed_early() -> Fault:
    """The fault of a body that ended, or broke, before the vendor's end was seen."""
    return Fault(
        Code.PROVIDER_INTERRUPTED, "the provider's answer ended before its end marker came"
    )


def bad_event() -> Fault:
    """The fault of an event that is not the JSON it has to be."""
    return Fault(Code.PROVIDER_INTERRUPTED, "the provider sent an event that cannot be read")


def bad_arguments() -> Fault:
    """The fault of a tool call whose arguments are not a JSON object."""
    return Fault(
        Code.PROVIDER_INTERRUPTED, "the provider sent a tool call whose arguments are not JSON"
    )
