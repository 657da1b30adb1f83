"""Gemini's streamGenerateContent wire, pure: event decoder and refusals.

Source: the official SDK's types (`google.genai.types`), `google.rpc.Status` and its
details, and recorded streams.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relay.core.events import Event, Finish, FinishReason, Reasoning, Served, Text, ToolCall, Usage
from relay.providers.decoding.decoder import Decoder
from relay.providers.decoding.failures import message
from relay.providers.decoding.faults import seconds
from relay.providers.decoding.reasons import finish_of, is_given
from relay.providers.decoding.tolerant import characters, fit, parse
from relay.providers.decoding.toolcalls import reason_with, unused
from relay.providers.decoding.verdicts import (
    BROKEN,
    INTERRUPTED,
    MALFORMED,
    MISSING,
    OUT_OF_QUOTA,
    OVERLOADED,
    RATE_LIMITED,
    TIMED_OUT,
    UNAUTHENTIC,
    Refusal,
    Verdict,
    by_code,
    by_status,
    by_words,
)
from relay.providers.gemini.body import STATE_TAG
from relay.providers.gemini.types import Candidate, GeminiChunk, GeminiPart, GeminiUsage

_decode = msgspec.json.Decoder(GeminiChunk).decode

_KNOWN = frozenset(
    {"candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime"}
)
"""Fields of a chunk that is part of an answer, even if it has no text."""


class GeminiDecoder(Decoder):
    """One streamGenerateContent stream. It has no end marker: it ends with a finish reason, then
    the end of the body.

    Some streams carry a finish reason on every chunk, so text may follow a `Finish`, which that
    text cancels. After that a finish reason proves nothing on this stream: the next `Finish` comes
    only with the clean end of the body.
    """

    def __init__(self, call_prefix: str = "call") -> None:
        super().__init__(judge)
        self._call_prefix = call_prefix
        self._model = ""
        self._reason: FinishReason | None = None
        self._handed = 0
        self._unreliable = False
        self._calls: list[ToolCall] = []
        self._usage: GeminiUsage | None = None

    def _payload(self, payload: bytes, out: list[Event]) -> None:
        chunk = _decode(payload)
        if not chunk.candidates:
            self._strange(parse(payload), out, _KNOWN)
        self._counted(chunk, out)

    def _object(self, value: dict[str, Any], out: list[Event]) -> None:
        chunk = fit(value, GeminiChunk)
        if not chunk.candidates:
            self._strange(value, out, _KNOWN)
        self._counted(chunk, out)

    def _counted(self, chunk: GeminiChunk, out: list[Event]) -> None:
        try:
            if not self.ended:
                self._chunk(chunk, out)
        finally:
            self._count(out)

    def _chunk(self, chunk: GeminiChunk, out: list[Event]) -> None:
        if chunk.error:
            self._error(chunk.error, out)
        if chunk.model_version and not self._model:
            self._model = chunk.model_version
            out.append(Served(chunk.model_version))
        if chunk.usage_metadata is not None:
            self._usage = chunk.usage_metadata
        if (feedback := chunk.prompt_feedback) and is_given(feedback.block_reason):
            self._finish(FinishReason.CONTENT_FILTER, out)
        for candidate in chunk.candidates or ():
            if not candidate.index:
                self._candidate(candidate, chunk.response_id, out)

    def _candidate(self, candidate: Candidate, response_id: str | None, out: list[Event]) -> None:
        parts = candidate.content.parts if candidate.content is not None else None
        said = [self._part(part, response_id or self._call_prefix, out) for part in parts or ()]
        if self._reason is not None and any(said):
            self._take_back()
        if candidate.error:
            self._error(candidate.error, out)
        if candidate.finish_reason:
            reason = finish_of(candidate.finish_reason)
            if reason is not None:
                self._finish(reason, out)

    def _part(self, part: GeminiPart, prefix: str, out: list[Event]) -> bool:
        """Take one part; returns whether it had content."""
        if part.text:
            out.append(Reasoning(part.text) if part.thought else Text(part.text))
        if (call := part.function_call) is not None:
            taken = {each.call_id for each in self._calls}
            call_id = unused(call.id or f"{prefix}-{len(self._calls)}", taken)
            state = STATE_TAG + part.thought_signature if part.thought_signature else None
            self._calls.append(ToolCall(call_id, characters(call.name), call.args or {}, state))
        return bool(part.text or part.function_call)

    def _take_back(self) -> None:
        self._reason = None
        self._unreliable = True
        self.finished = False

    def _finish(self, reason: FinishReason, out: list[Event]) -> None:
        self._reason = reason
        if not self._unreliable and not self.finished:
            self._announce(reason, out)

    def _announce(self, reason: FinishReason, out: list[Event]) -> None:
        """Emit the tool calls that were not emitted yet, and the finish."""
        if reason is not FinishReason.CONTENT_FILTER:
            out.extend(self._calls[self._handed :])
            self._handed = len(self._calls)
            reason = reason_with(self._calls, reason)
        out.append(Finish(reason))
        self.finished = True

    def _close(self, out: list[Event]) -> None:
        if self._unreliable and self._reason is not None:
            self._announce(self._reason, out)
        super()._close(out)

    def _count(self, out: list[Event]) -> None:
        usage, self._usage = self._usage, None
        if usage is None or usage.prompt_token_count is None:
            return
        if usage.candidates_token_count is None and self._reason is None:
            return
        thoughts = usage.thoughts_token_count
        out.append(
            Usage(
                usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0),
                (usage.candidates_token_count or 0) + (thoughts or 0),
                estimated=False,
                cached_input_tokens=usage.cached_content_token_count,
                reasoning_tokens=thoughts,
            )
        )


_BY_STATUS: dict[str, Verdict] = {
    "INVALID_ARGUMENT": MALFORMED,
    "OUT_OF_RANGE": MALFORMED,
    "FAILED_PRECONDITION": MISSING,
    "UNAUTHENTICATED": UNAUTHENTIC,
    "PERMISSION_DENIED": UNAUTHENTIC,
    "NOT_FOUND": MISSING,
    "UNIMPLEMENTED": MISSING,
    "RESOURCE_EXHAUSTED": RATE_LIMITED,
    "CANCELLED": INTERRUPTED,
    "ABORTED": BROKEN,
    "INTERNAL": BROKEN,
    "UNKNOWN": BROKEN,
    "DATA_LOSS": BROKEN,
    "UNAVAILABLE": OVERLOADED,
    "DEADLINE_EXCEEDED": TIMED_OUT,
}
"""By the error's `status`, a `google.rpc.Code`."""

_BY_REASON: dict[str, Verdict] = {
    "API_KEY_INVALID": UNAUTHENTIC,
    "API_KEY_SERVICE_BLOCKED": UNAUTHENTIC,
    "SERVICE_DISABLED": UNAUTHENTIC,
    "CONSUMER_SUSPENDED": UNAUTHENTIC,
    "BILLING_DISABLED": OUT_OF_QUOTA,
    "RATE_LIMIT_EXCEEDED": RATE_LIMITED,
}
"""By `google.rpc.ErrorInfo.reason`, which takes precedence: the status of a wrong key is
INVALID_ARGUMENT."""


def judge(status: int, error: dict[str, Any]) -> Refusal:
    """Classify an error object by its reason, then its status, then the HTTP status."""
    says, details = message(error), _details(error)
    reason, own = details.get("reason"), error.get("status")
    verdict = _BY_REASON.get(str(reason)) or _BY_STATUS.get(str(own)) or _by_code(status, error)
    if verdict is RATE_LIMITED and _is_daily(details):
        verdict = OUT_OF_QUOTA
    verdict = by_words(verdict, says)
    return Refusal(verdict, (own, reason), says, seconds(details.get("retryDelay")))


def _by_code(status: int, error: dict[str, Any]) -> Verdict:
    code = error.get("code")
    named = by_code(code) or by_code(error.get("type"))
    return named or by_status(code if isinstance(code, int) and status == 200 else status)


def _details(error: dict[str, Any]) -> dict[str, Any]:
    """The fields of all `details` of an error (ErrorInfo, QuotaFailure, RetryInfo) in one object.
    The names that are read here do not overlap."""
    merged: dict[str, Any] = {}
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            merged |= detail
    return merged


def _is_daily(details: dict[str, Any]) -> bool:
    """Whether the exhausted quota is a daily one: its id says so."""
    violations = details.get("violations")
    return isinstance(violations, list) and any(
        "PerDay" in str(v.get("quotaId", "")) for v in violations if isinstance(v, dict)
    )
