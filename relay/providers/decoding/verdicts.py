"""What a vendor's refusal means for the answer, by its status, codes and message; pure.

Each vendor's own types and codes are read in its `decoder` module. What they leave open is decided
here: first by the name of a code, then by the HTTP status, and if that blames the client, by the
message. Only a refusal that is surely the client's fault ends the answer: for any other the next
target is tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from relay.core.errors import Code, Remedy


class Verdict(NamedTuple):
    """What a refusal means for the answer: the contract's error code, what may still help, and
    what the message says about the provider. `quoted`: the vendor's message is shown, because the
    client can do something about it."""

    code: Code
    remedy: Remedy
    says: str
    quoted: bool = False


class Refusal(NamedTuple):
    """A classified error object of a vendor: the verdict, its status, type and code, its message,
    and the seconds that it asks to wait."""

    verdict: Verdict
    marks: tuple[object, ...] = ()
    says: object = None
    wait: float | None = None


Judge: TypeAlias = Callable[[int, dict[str, Any]], Refusal]
"""Classifies a vendor's error object, together with the HTTP status that it came with: 200 inside
a stream."""

RATE_LIMITED = Verdict(Code.PROVIDER_RATE_LIMITED, "retry", "is limiting the rate of requests")
OUT_OF_QUOTA = Verdict(
    Code.PROVIDER_RATE_LIMITED, "fallback", "says that the account's quota is used up"
)
UNAUTHENTIC = Verdict(
    Code.PROVIDER_AUTH, "fallback", "refused the API key, or the key may not use this model"
)
OVERLOADED = Verdict(Code.PROVIDER_OVERLOADED, "retry", "is overloaded")
TIMED_OUT = Verdict(Code.PROVIDER_TIMEOUT, "retry", "gave up on the request")
BROKEN = Verdict(Code.PROVIDER_ERROR, "retry", "failed")
DECLINED = Verdict(Code.PROVIDER_ERROR, "fallback", "declined the request")
MISSING = Verdict(Code.PROVIDER_ERROR, "fallback", "does not serve this model or address")
INTERRUPTED = Verdict(Code.PROVIDER_INTERRUPTED, "retry", "broke off the answer")
TOO_LONG = Verdict(
    Code.CONTEXT_LENGTH, "fallback", "finds the conversation too long for this model", quoted=True
)
REFUSED = Verdict(
    Code.CONTENT_POLICY, "none", "refused the request by its content policy", quoted=True
)
MALFORMED = Verdict(Code.BAD_REQUEST, "none", "refused the request", quoted=True)
UNSUPPORTED = Verdict(
    Code.BAD_REQUEST, "fallback", "does not support what the request asks for", quoted=True
)

_BY_STATUS: dict[int, Verdict] = {
    400: MALFORMED,
    401: UNAUTHENTIC,
    402: OUT_OF_QUOTA,
    403: UNAUTHENTIC,
    404: MISSING,
    405: MISSING,
    408: TIMED_OUT,
    409: BROKEN,
    410: MISSING,
    413: TOO_LONG,
    422: MALFORMED,
    423: OVERLOADED,
    424: BROKEN,
    425: BROKEN,
    429: RATE_LIMITED,
    498: OVERLOADED,
    499: INTERRUPTED,
    503: OVERLOADED,
    504: TIMED_OUT,
    524: TIMED_OUT,
    529: OVERLOADED,
}
"""498 is Groq's for a lack of capacity, 499 a proxy's for a connection that its other side closed,
524 Cloudflare's for a server that took too long."""

_TOO_LONG = (
    r"prompt is too long|input is too long|exceed context limit|context (?:length|window|size)"
    r"|input token count|maximum number of tokens"
    r"|exceed max message tokens"
    r"|(?:长度|上下文|输入|prompt|tokens?).{0,12}(?:超|过长)|(?:超|过长).{0,12}(?:长度|上下文)"
)
_SUBJECT = r"\b(?:prompt|inputs?|context|conversation|messages?|sequence|history|request)\b"
_MEASURE = r"\b(?:tokens?|length|long|window|size)\b"
_EXCESS = (
    r"too (?:long|large|many|big)|exceed|\boverflow|\bmax(?:imum)?\b|\blimit(?:ed)?\b|at most"
    r"|(?:longer|larger|greater|more|less|fewer) than|must be <|should be \[|reduce the length"
)
_NOT_A_LENGTH = r"\b(?:images?|files?|audio|bytes?|[kmg]b|schema|tools?|requests per|per minute)\b"
"""Patterns for a message that a conversation is too long: one of the phrases, or all three of the
thing that is too long, the unit it is measured in, and a word for too much."""

_POLICY = (
    r"content (?:policy|filter|management policy)|usage polic(?:y|ies)|safety policy"
    r"|\bmoderation\b|\bsensitive\b|inappropriate"
)

_BY_CODE_WORD: Sequence[tuple[re.Pattern[str], Verdict]] = [
    (re.compile(pattern), verdict)
    for pattern, verdict in (
        (r"contextlength|contextwindow|prompttoo|inputtoo|toolong", TOO_LONG),
        (r"sensitive|inspection|moderation|contentfilter|contentpolicy|safety", REFUSED),
        (r"quotaexceeded|insufficientquota|balance|arrear|billing|insufficientfunds", OUT_OF_QUOTA),
        (r"throttl|ratelimit|ratequota|toomanyrequests|limitreached", RATE_LIMITED),
        (r"apikey|unauthori[sz]ed|authentication|accessdenied|permission|forbidden", UNAUTHENTIC),
        (r"overload|capacity|unavailable|busy", OVERLOADED),
        (r"timeout|timedout|deadline", TIMED_OUT),
        (r"notfound|notexist|nosuch|unsupportedmodel|modelnotsupported", MISSING),
    )
]
"""What the name of a code or type means. Compared are its letters only, in lower case."""

_BY_WORDS: Sequence[tuple[re.Pattern[str], Verdict]] = [
    (re.compile(pattern), verdict)
    for pattern, verdict in (
        (
            r"credit balance|insufficient (?:balance|credit|funds|quota)|out of credits"
            r"|\bbilling\b",
            OUT_OF_QUOTA,
        ),
        (r"\bapi[- ]?key\b|unauthori[sz]ed|not authenticated", UNAUTHENTIC),
        (r"rate limit|too many requests|requests per|tokens per", RATE_LIMITED),
        (r"overloaded|at capacity|temporarily|try again later|\bbusy\b|unavailable", OVERLOADED),
        (
            r"\bmodel\b.*(?:not found|not exist|not supported|no longer|not a valid|not available"
            r"|deprecated|retired|decommissioned|unknown)"
            r"|(?:unknown|invalid|unsupported|no such|not a valid) model",
            MISSING,
        ),
        (r"\bmax (?:completion |output |new )?tokens\b", UNSUPPORTED),
        (
            r"(?:not|n't|no|un|only) ?support(?!.*prefill)|must alternate|requires --"
            r"|not (?:permitted|allowed|enabled|implemented)"
            r"|(?:unrecognized|unknown|unexpected|extra) .*(?:argument|parameter|field|input|key)",
            UNSUPPORTED,
        ),
    )
]
"""What the message of a status 400 may mean. Checked last, since no vendor guarantees its
messages."""


def by_status(status: int) -> Verdict:
    """The verdict for an HTTP status alone. The other statuses below 500 are about the address,
    proxies or the server's own rules, so another target may answer."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500 or status < 300:
        return BROKEN
    return MISSING if status < 400 else DECLINED


def by_code(code: object) -> Verdict | None:
    """The verdict that the name of a code or type allows, such as `Throttling.RateQuota` or
    `data_inspection_failed`; None if it tells nothing."""
    if not isinstance(code, str):
        return None
    letters = re.sub(r"[^a-z]", "", code.lower())
    return next((verdict for word, verdict in _BY_CODE_WORD if word.search(letters)), None)


def by_words(verdict: Verdict, message: object) -> Verdict:
    """`verdict`, unless it blames the client and the vendor's `message` shows another cause: a
    conversation that is too long, a content policy, a model that is missing or lacks a capability.
    The relay has checked the request, so a field that the vendor does not know was not the
    client's choice."""
    if verdict is not MALFORMED or not isinstance(message, str):
        return verdict
    words = message.lower().replace("_", " ")
    if _is_about_length(words):
        return TOO_LONG
    if re.search(_POLICY, words):
        return REFUSED
    return next((found for word, found in _BY_WORDS if word.search(words)), MALFORMED)


def _is_about_length(words: str) -> bool:
    if re.search(_TOO_LONG, words):
        return True
    told = all(re.search(pattern, words) for pattern in (_SUBJECT, _MEASURE, _EXCESS))
    return told and not re.search(_NOT_A_LENGTH, words)


def refusal_of(judge: Judge, status: int, error: object) -> Refusal:
    """Classify an error: an object as the vendor's `judge` does, anything else by its status and
    text."""
    if isinstance(error, dict):
        return judge(status, error)
    return Refusal(by_words(by_status(status), error), says=error)


def in_band(verdict: Verdict) -> Verdict:
    """`verdict` for an error inside a stream. A request whose answer has begun was well formed,
    whatever the error's code says."""
    return MISSING if verdict is MALFORMED else verdict
