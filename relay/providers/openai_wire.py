"""OpenAI's chat.completions wire, pure: event decoder and refusals.

The common wire: compatible servers (Mistral, Groq, DeepSeek, Ollama, vLLM, llama.cpp)
speak it too, so the decoder takes what they are known to leave out or do differently.
Source: the official SDK's types (`openai.types.chat`) and recorded streams.
"""

from __future__ import annotations

import msgspec

from relay.errors import Fault
from relay.events import Event, Finish, FinishReason, Reasoning, Served, Text, Usage
from relay.provider import Call, Form
from relay.providers.decoding import Decoder
from relay.providers.faults import (
    BROKEN,
    CONTEXT_PHRASES,
    INTERRUPTED,
    MALFORMED,
    MISSING,
    OUT_OF_QUOTA,
    OVERLOADED,
    POLICY_PHRASES,
    RATE_LIMITED,
    REFUSED,
    TIMED_OUT,
    TOO_LONG,
    UNAUTHENTIC,
    Reply,
    Verdict,
    by_status,
    fault,
    json_object,
    mentions,
    retry_after,
)
from relay.providers.openai_types import CallDelta, Choice, Chunk, Counts, Function, Piece
from relay.providers.toolcalls import PartialCall, reason_with, whole_calls

_decode = msgspec.json.Decoder(Chunk).decode

_REASONS: dict[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}
_FAILURES: dict[str, Verdict] = {
    "error": INTERRUPTED,
    "abort": INTERRUPTED,
    "insufficient_system_resource": OVERLOADED,
}
"""Finish reasons by which OpenRouter, vLLM and DeepSeek say that the answer broke."""


class OpenAIDecoder(Decoder):
    """One chat.completions stream. Its end is a `finish_reason` or `[DONE]`."""

    def __init__(self) -> None:
        super().__init__()
        self._model = ""
        self._refused = False
        self._calls: list[PartialCall] = []
        self._by_index: dict[int, PartialCall] = {}

    def _payload(self, payload: bytes, out: list[Event]) -> None:
        if payload.startswith(b"[DONE]"):
            if not self.finished:
                self._finish(FinishReason.STOP, out)
            self.ended = True
            return
        chunk = _decode(payload)
        if chunk.error is not None:
            self._error(chunk.error, out)
        if chunk.model and not self._model:
            self._model = chunk.model
            out.append(Served(chunk.model))
        for choice in chunk.choices or ():
            if not choice.index:
                self._choice(choice, out)
        if chunk.usage is not None:
            _count(chunk.usage, out)

    def _choice(self, choice: Choice, out: list[Event]) -> None:
        if (delta := choice.delta) is not None:
            if thought := delta.reasoning_content or delta.reasoning:
                out.append(Reasoning(thought))
            if content := delta.content:
                if isinstance(content, str):
                    out.append(Text(content))
                else:
                    _pieces(content, out)
            if delta.refusal:
                self._refused = True
            for call in delta.tool_calls or ():
                self._call(call)
        if (reason := choice.finish_reason) and not self.finished:
            if verdict := _FAILURES.get(reason):
                raise fault(verdict, marks=(reason,))
            self._finish(_REASONS.get(reason, FinishReason.STOP), out)

    def _call(self, delta: CallDelta) -> None:
        function = delta.function or Function()
        call = self._open_call(delta, function)
        if function.name and not call.name:
            call.name = function.name
        if isinstance(function.arguments, str):
            call.add(function.arguments)
        elif function.arguments is not None:
            call.given = function.arguments

    def _open_call(self, delta: CallDelta, function: Function) -> PartialCall:
        """The call that a delta adds to. Some servers leave the index out, or give every
        parallel call the same one: a fresh id with a name opens a call of its own."""
        index = delta.index if delta.index is not None else max(self._by_index, default=0)
        call = self._by_index.get(index)
        fresh = bool(delta.id and function.name) and call is not None and call.call_id != delta.id
        if call is None or fresh:
            call = PartialCall(delta.id or f"call_{len(self._calls)}", function.name or "")
            self._calls.append(call)
            self._by_index[index] = call
        return call

    def _finish(self, reason: FinishReason, out: list[Event]) -> None:
        if self._refused:
            reason = FinishReason.CONTENT_FILTER
        calls = whole_calls(self._calls, reason)
        out.extend(calls)
        out.append(Finish(reason_with(calls, reason)))
        self.finished = True

    def _error(self, error: object, out: list[Event]) -> None:
        verdict, marks, says = _judge(200, error)
        if verdict is REFUSED and not self.finished:
            out.append(Finish(FinishReason.CONTENT_FILTER))
            self.finished = self.ended = True
            return
        raise fault(MISSING if verdict is MALFORMED else verdict, marks=marks, says=says)

    def _stray(self, stray: bytes) -> None:
        body = json_object(stray[max(stray.find(b"{"), 0) :])
        if body and not self.finished:
            error = body.get("error", body if "message" in body else None)
            if error is not None:
                verdict, marks, says = _judge(200, error)
                raise fault(verdict, marks=marks, says=says)


def _pieces(pieces: list[Piece], out: list[Event]) -> None:
    """Mistral's reasoning models send content as a list of pieces."""
    for piece in pieces:
        if piece.text:
            out.append(Text(piece.text))
        for thought in piece.thinking or ():
            text = thought.get("text") if isinstance(thought, dict) else thought
            if isinstance(text, str) and text:
                out.append(Reasoning(text))


def _count(usage: Counts, out: list[Event]) -> None:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return
    cached, reasoning = usage.prompt_tokens_details, usage.completion_tokens_details
    out.append(
        Usage(
            usage.prompt_tokens,
            usage.completion_tokens,
            estimated=False,
            cached_input_tokens=cached.cached_tokens if cached else None,
            reasoning_tokens=reasoning.reasoning_tokens if reasoning else None,
        )
    )


_BY_CODE: dict[str, Verdict] = {
    "context_length_exceeded": TOO_LONG,
    "exceed_context_size_error": TOO_LONG,
    "content_policy_violation": REFUSED,
    "content_filter": REFUSED,
    "invalid_prompt": REFUSED,
    "moderation_blocked": REFUSED,
    "ResponsibleAIPolicyViolation": REFUSED,
    "insufficient_quota": OUT_OF_QUOTA,
    "billing_hard_limit_reached": OUT_OF_QUOTA,
    "billing_not_active": OUT_OF_QUOTA,
    "invalid_api_key": UNAUTHENTIC,
    "authentication_error": UNAUTHENTIC,
    "permission_error": UNAUTHENTIC,
    "model_not_found": MISSING,
    "not_found_error": MISSING,
    "rate_limit_exceeded": RATE_LIMITED,
    "rate_limit_error": RATE_LIMITED,
    "rate_limit_reached": RATE_LIMITED,
    "overloaded_error": OVERLOADED,
    "unavailable_error": OVERLOADED,
    "service_unavailable": OVERLOADED,
    "server_overloaded": OVERLOADED,
    "timeout": TIMED_OUT,
    "server_error": BROKEN,
    "api_error": BROKEN,
    "internal_server_error": BROKEN,
}


def classify(reply: Reply, call: Call | None = None) -> Fault:
    """The `Fault` that an HTTP refusal stands for, to be raised. `call` is what was asked."""
    body = json_object(reply.body)
    verdict, marks, says = _judge(reply.status, body.get("error", body))
    prefilled = call is not None and call.form is Form.PREFILL
    return fault(
        verdict,
        marks=(reply.status, *marks),
        says=says,
        wait=retry_after(reply.headers, reply.now),
        prefill_refused=verdict is MALFORMED and prefilled,
    )


def _judge(status: int, error: object) -> tuple[Verdict, tuple[object, ...], object]:
    """Verdict, marks and message of an error object, by its codes before its status."""
    if not isinstance(error, dict):
        return _by_words(by_status(status), error), (), error
    inner = error.get("innererror")
    marks = (error.get("type"), error.get("code"))
    codes = (inner.get("code") if isinstance(inner, dict) else None, marks[1], marks[0])
    says = error.get("message")
    for code in codes:
        if isinstance(code, str) and code in _BY_CODE:
            return _BY_CODE[code], marks, says
    own = marks[1] if isinstance(marks[1], int) else status
    return _by_words(by_status(own if status == 200 else status), says), marks, says


def _by_words(verdict: Verdict, says: object) -> Verdict:
    if verdict is not MALFORMED:
        return verdict
    if mentions(says, CONTEXT_PHRASES):
        return TOO_LONG
    return REFUSED if mentions(says, POLICY_PHRASES) else MALFORMED
