"""What a finish reason means for the answer, in any vendor's spelling; pure.

One table for every wire, because gateways send one vendor's reasons on another vendor's wire.
"""

from __future__ import annotations

import re

from relay.core.events import FinishReason
from relay.providers.decoding.faults import fault, unknown_reason
from relay.providers.decoding.verdicts import INTERRUPTED, OVERLOADED, Verdict

REASONS: dict[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "complete": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "max_length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "max_output_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "sensitive": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "recitation": FinishReason.CONTENT_FILTER,
    "language": FinishReason.CONTENT_FILTER,
    "blocklist": FinishReason.CONTENT_FILTER,
    "prohibited_content": FinishReason.CONTENT_FILTER,
    "spii": FinishReason.CONTENT_FILTER,
    "model_armor": FinishReason.CONTENT_FILTER,
    "image_safety": FinishReason.CONTENT_FILTER,
    "image_prohibited_content": FinishReason.CONTENT_FILTER,
    "image_recitation": FinishReason.CONTENT_FILTER,
    "blocked": FinishReason.CONTENT_FILTER,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "token_limit": FinishReason.LENGTH,
}
"""Finish reasons that are no failure, in lower case: those of OpenAI, Anthropic and Gemini, TGI's
`eos_token`, Mistral's `model_length`, Z.AI's `sensitive`."""

_FAILURES: dict[str, Verdict] = {
    "error": INTERRUPTED,
    "abort": INTERRUPTED,
    "network_error": INTERRUPTED,
    "insufficient_system_resource": OVERLOADED,
}
"""Finish reasons with which OpenRouter, vLLM, Z.AI and DeepSeek report a broken answer."""

_SEAM = re.compile(r"[-\s]+|(?<=[a-z])(?=[A-Z])")
_NONE = frozenset({"", "null", "none", "finish_reason_unspecified", "blocked_reason_unspecified"})


def finish_of(reason: str | None) -> FinishReason | None:
    """How the answer ended; None if `reason` means that it goes on. Raises `Fault` for a reason
    that reports a failure or is unknown."""
    word = _words(reason)
    if word in _NONE:
        return None
    if word in REASONS:
        return REASONS[word]
    if verdict := _FAILURES.get(word):
        raise fault(verdict, marks=(word,))
    raise unknown_reason(reason or "")


def is_given(reason: str | None) -> bool:
    """Whether there is a reason."""
    return _words(reason) not in _NONE


def _words(reason: str | None) -> str:
    """The reason in one spelling: `contentFilter`, `content-filter` and `CONTENT_FILTER` become
    `content_filter`."""
    return _SEAM.sub("_", (reason or "").strip()).lower()
