"""The one error tree: what can go wrong, told by the contract's codes.

Two families share it. A `RelayError` is what a client is told. A `Fault` is what one
upstream attempt died of; the failover policy reads its `remedy`, and only when no
remedy is left does it become a client's error.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Remedy = Literal["retry", "fallback", "none"]
"""What may still help after a fault: the same target again (or another), only another
target, or nothing at all."""


class Code(StrEnum):
    """Error codes of `relay.v1`, as they stand in `error.code` and `attempts[].outcome`."""

    BAD_FRAME = "bad_frame"
    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNKNOWN_PROVIDER = "unknown_provider"
    STREAM_EXPIRED = "stream_expired"
    TOO_LARGE = "too_large"
    TOO_MANY_STREAMS = "too_many_streams"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXCEEDED = "budget_exceeded"
    CONTENT_POLICY = "content_policy"
    CONTEXT_LENGTH = "context_length"
    PROVIDER_AUTH = "provider_auth"
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_OVERLOADED = "provider_overloaded"
    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_INTERRUPTED = "provider_interrupted"
    PROVIDER_ERROR = "provider_error"
    PROVIDERS_EXHAUSTED = "providers_exhausted"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    DRAINING = "draining"
    INTERNAL = "internal"


OF_THE_REQUEST = frozenset({Code.BAD_REQUEST, Code.CONTENT_POLICY, Code.CONTEXT_LENGTH})
"""What says something of a request, and nothing of the provider that refused it."""


class RelayError(Exception):
    """An error that a client may be told.

    `message` is shown as it is: it never holds a key, a header, a URL with credentials
    or a stack trace. `retry_after` is in seconds.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after


class StreamExpired(RelayError):
    """The stream is gone, was never there, or is not the asker's: all three look alike."""

    def __init__(self) -> None:
        super().__init__(Code.STREAM_EXPIRED, "this stream is not available; send the chat again")


class Fault(Exception):
    """What one upstream attempt died of.

    Raised by `Provider.run`. `code` is one of the `provider_*` codes, `context_length`,
    `content_policy` or `bad_request`. `remedy` says what may still help; `retry_after`
    (seconds) is the vendor's own wish. `message` is free of secrets.
    `prefill_refused` is set when the vendor refused a conversation that ends in an
    assistant turn: the next form of continuation may then be tried on the same target.
    `recurs` is set for what a server that does it once does each time: it is not asked for
    ever.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        remedy: Remedy = "retry",
        retry_after: float | None = None,
        prefill_refused: bool = False,
        recurs: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.retry_after = retry_after
        self.prefill_refused = prefill_refused
        self.recurs = recurs


class Fenced(Exception):
    """A writer's epoch is no longer the stream's: another node owns it. Stop at once."""
