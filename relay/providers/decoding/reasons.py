"""What a finish reason means for the answer, in any vendor's words; pure.

One table for every wire, because gateways send the words of one vendor on the wire of another.
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
"""Ends that are no failure, in words of lower case: OpenAI's, Anthropic's and Gemini's own, TGI's
`eos_token`, Mistral's `model_length`, Z.AI's `sensitive`."""

_FAILURES: dict[str, Verdict] = {
    "error": INTERRUPTED,
    "abort": INTERRUPTED,
    "network_error": INTERRUPTED,
    "insufficient_system_resource": OVERLOADED,
}
"""By which OpenRouter, vLLM, Z.AI and DeepSeek say that the answer broke."""

_SEAM = re.compile(r"[-\s]+|(?<=[a-z])(?=[A-Z])")
_NONE = frozenset({"", "null", "none", "finish_reason_unspecified", "blocked_reason_unspecified"})


def finish_of(reason: str | None) -> FinishReason | None:
    """What the answer ended with; None where `reason` says that it goes on. Raises `Fault`
    for a reason that tells of a failure, and for one that is not known to be a good end."""
    word = _words(reason)
    if word in _NONE:
        return None
    if word in REASONS:
        return REASONS[word]
    if verdict := _FAILURES.get(word):
        raise fault(verdict, marks=(word,))
    raise unknown_reason(reason or "")


def is_given(reason: str | None) -> bool:
    """Whether `reason` says anything."""
    return _words(reason) not in _NONE


def _words(reason: str | None) -> str:
    """`contentFilter`, `content-filter` and `CONTENT_FILTER` as `content_filter`."""
    return _SEAM.sub("_", (reason or "").strip()).lower()
