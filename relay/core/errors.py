"""All errors, identified by the contract's codes.

There are two families. A `RelayError` is shown to a client. A `Fault` says why one upstream attempt
failed; the failover policy reads its `remedy`, and turns it into a client's error only when no
remedy is left.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Remedy = Literal["retry", "fallback", "none"]
"""What may still help after a fault: the same target again (or another), only another
target, or nothing at all."""


class Code(StrEnum):
    """Error codes of `relay.v1`, as in `error.code` and `attempts[].outcome`."""

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
"""Codes that the request itself causes: they say nothing about the provider that refused it."""


class RelayError(Exception):
    """An error that may be shown to a client.

    `message` is shown as it is: it never holds a key, a header, a URL with credentials or a stack
    trace. `retry_after` is in seconds.
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
    """The stream is gone, never existed, or belongs to somebody else: the client can't tell
    which."""

    def __init__(self) -> None:
        super().__init__(Code.STREAM_EXPIRED, "this stream is not available; send the chat again")


class Fault(Exception):
    """Why one upstream attempt failed.

    Given to `Caller.ended`; `Provider.probe` raises it. `code` is one of the `provider_*` codes,
    `context_length`, `content_policy` or `bad_request`. `remedy` says what may still help;
    `retry_after` is what the vendor asks for, in seconds. `message` is free of secrets.
    `prefill_refused` is set when the vendor refused a conversation that ends in an assistant turn:
    the next form of continuation may then be tried on the same target. `recurs` is set for a fault
    that its server is likely to repeat at every try: the tries are limited then.
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
    """This writer is no longer valid: another node has taken the stream over. Stop at once."""
