"""The three vendors' bytes. Shapes follow recorded streams; a test compares them."""

from __future__ import annotations

import json
from typing import Any, Protocol

from lab.upstreams.steps import (
    Call,
    Counts,
    End,
    Finish,
    Garbage,
    InBandError,
    Refuse,
    Thought,
    Token,
)
from lab.upstreams.troubles import reply

Said = Token | Thought | Call | Finish | Counts | End | InBandError | Garbage


class Wire(Protocol):
    """One answer on one vendor's wire."""

    def opening(self) -> bytes:
        """The first bytes of the body."""
        ...

    def say(self, step: Said) -> bytes:
        """One step as bytes of the body."""
        ...


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // pieces))
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class OpenAIWire:
    """chat.completions, as OpenAI streams it."""

    def __init__(self, model: str, body: dict[str, Any]) -> None:
        options = body.get("stream_options") or {}
        self._counted = bool(options.get("include_usage"))
        self._obfuscated = options.get("include_obfuscation", True)
        self._model = model
        self._calls = 0
        self._counts: Counts | None = None

    def opening(self) -> bytes:
        """The first bytes of the body."""
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def say(self, step: Said) -> bytes:
        """One step as bytes of the body."""
        match step:
            case Token(text):
                return self._delta({"content": text})
            case Thought(text):
                return self._delta({"reasoning_content": text})
            case Call():
                return self._call(step)
            case Counts():
                self._counts = step
                return b""
            case Finish("refusal"):
                refusal = self._delta({"refusal": "I can't help with that."})
                return refusal + self._delta({}, "stop") + self._usage()
            case Finish(reason):
                return self._delta({}, reason) + self._usage()
            case End():
                return b"data: [DONE]\n\n"
            case InBandError(trouble):
                body = json.loads(reply("openai", Refuse(trouble)).body)
                return _data(_compact(body))
            case Garbage(data):
                return _data(data)

    def _call(self, call: Call) -> bytes:
        index, self._calls = self._calls, self._calls + 1
        function = {"name": call.name, "arguments": ""}
        head = {"index": index, "id": call.call_id, "type": "function", "function": function}
        out = self._delta({"tool_calls": [head]})
        for piece in _cut(call.arguments, call.pieces):
            more = {"index": index, "function": {"arguments": piece}}
            out += self._delta({"tool_calls": [more]})
        return out

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._chunk([choice], None)

    def _usage(self) -> bytes:
        counts = self._counts
        if counts is None or not self._counted:
            return b""
        usage = {
            "prompt_tokens": counts.input,
            "completion_tokens": counts.output,
            "total_tokens": counts.input + counts.output,
            "prompt_tokens_details": {"cached_tokens": counts.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": counts.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
        return self._chunk([], usage)

    def _chunk(self, choices: list[Any], usage: dict[str, Any] | None) -> bytes:
        chunk: dict[str, Any] = {
            "id": "chatcmpl-D8Z5oo6uDh67AD85p73ksdT1KxhE0",
            "object": "chat.completion.chunk",
            "created": 1770933892,
            "model": self._model,
            "service_tier": "default",
            "system_fingerprint": "fp_de604bd877",
            "choices": choices,
        }
        if self._counted:
            chunk["usage"] = usage
        if self._obfuscated:
            chunk["obfuscation"] = "Qup1BsQ3"
        return _data(_compact(chunk))


class AnthropicWire:
    """Messages, as Anthropic streams it: named events, padded data."""

    _REASONS = {  # noqa: RUF012
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "refusal": "refusal",
        "content_filter": "refusal",
    }

    def __init__(self, model: str, body: dict[str, Any]) -> None:
        self._model = model
        self._counts = Counts(11, 1)
        self._index = -1
        self._open = ""

    def opening(self) -> bytes:
        """The first bytes of the body."""
        message: dict[str, Any] = {
            "model": self._model,
            "id": "msg_01XMATm4UFnjP841TckVuNF4",
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": {
                "input_tokens": self._counts.input,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 0,
                    "ephemeral_1h_input_tokens": 0,
                },
                "output_tokens": 1,
                "service_tier": "standard",
                "inference_geo": "not_available",
            },
        }
        return _named("message_start", message=message) + _named("ping")

    def say(self, step: Said) -> bytes:
        """One step as bytes of the body."""
        match step:
            case Token(text):
                block = {"type": "text", "text": ""}
                return self._in(block) + self._delta({"type": "text_delta", "text": text})
            case Thought(text):
                block = {"type": "thinking", "thinking": "", "signature": ""}
                return self._in(block) + self._delta({"type": "thinking_delta", "thinking": text})
            case Call():
                return self._call(step)
            case Counts():
                self._counts = step
                return b""
            case Finish(reason):
                return self._finish(self._REASONS[reason])
            case End():
                return _named("message_stop")
            case InBandError(trouble):
                body = json.loads(reply("anthropic", Refuse(trouble)).body)
                error = {"details": None, **body["error"]}
                return _named("error", error=error)
            case Garbage(data):
                return b"event: content_block_delta\n" + _data(data)

    def _in(self, block: dict[str, Any]) -> bytes:
        if self._open == block["type"]:
            return b""
        closing = self._stop()
        self._index += 1
        self._open = block["type"]
        return closing + _named("content_block_start", index=self._index, content_block=block)

    def _stop(self) -> bytes:
        signed = b""
        if self._open == "thinking":
            signed = self._delta({"type": "signature_delta", "signature": "EuYDCmMIDBgC"})
        return signed + _named("content_block_stop", index=self._index) if self._open else b""

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _named("content_block_delta", index=self._index, delta=delta)

    def _call(self, call: Call) -> bytes:
        self._open, closing = "", self._stop()
        block = {
            "type": "tool_use",
            "id": call.call_id,
            "name": call.name,
            "input": {},
            "caller": {"type": "direct"},
        }
        out = closing + self._in(block)
        for piece in _cut(call.arguments, call.pieces):
            out += self._delta({"type": "input_json_delta", "partial_json": piece})
        return out

    def _finish(self, reason: str) -> bytes:
        closing, self._open = self._stop(), ""
        usage = {
            "input_tokens": self._counts.input - self._counts.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self._counts.cached,
            "output_tokens": self._counts.output,
        }
        delta = {"stop_reason": reason, "stop_sequence": None, "stop_details": None}
        return closing + _named("message_delta", delta=delta, usage=usage)


class GeminiWire:
    """streamGenerateContent with `alt=sse`: CRLF, no end marker, a running total."""

    _REASONS = {  # noqa: RUF012
        "stop": "STOP",
        "length": "MAX_TOKENS",
        "tool_calls": "STOP",
        "content_filter": "SAFETY",
        "refusal": "SAFETY",
    }

    def __init__(self, model: str, body: dict[str, Any]) -> None:
        self._model = model
        self._counts: Counts | None = None
        self._thinks = False
        self._said = 0

    def opening(self) -> bytes:
        """The first bytes of the body."""
        return b""

    def say(self, step: Said) -> bytes:
        """One step as bytes of the body."""
        match step:
            case Token(text):
                return self._chunk([{"text": text}])
            case Thought(text):
                self._thinks = True
                return self._chunk([{"text": text, "thought": True}])
            case Call():
                arguments = json.loads(step.arguments or "{}")
                function = {"name": step.name, "args": arguments, "id": step.call_id}
                part: dict[str, Any] = {"functionCall": function}
                if step.state:
                    part["thoughtSignature"] = step.state
                return self._chunk([part])
            case Counts():
                self._counts = step
                return b""
            case Finish("refusal"):
                return _crlf({"promptFeedback": {"blockReason": "SAFETY", "safetyRatings": []}})
            case Finish(reason):
                return self._chunk([{"text": ""}], self._REASONS[reason])
            case End():
                return b""
            case InBandError(trouble):
                body = json.loads(reply("gemini", Refuse(trouble)).body)
                return json.dumps(body, indent=2).encode()
            case Garbage(data):
                return f"data: {data}\r\n\r\n".encode()

    def _chunk(self, parts: list[Any], reason: str | None = None) -> bytes:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
        if reason:
            candidate["finishReason"] = reason
        if self._thinks:
            candidate["index"] = 0
        thought = any("thought" in part for part in parts)
        return _crlf(
            {
                "candidates": [candidate],
                "usageMetadata": self._usage(thought, bool(reason)),
                "modelVersion": self._model,
                "responseId": "w1peaMz6INOvnvgPgYfPiQY",
            }
        )

    def _usage(self, thought: bool, last: bool) -> dict[str, Any]:
        """The running total. A thinking model counts from its first piece of text on, any other
        only in its last chunk."""
        counts = self._counts or Counts(11, 0)
        self._said += not thought
        told = counts.output - counts.reasoning if last and self._counts else self._said
        usage: dict[str, Any] = {"promptTokenCount": counts.input}
        if (last and self._counts) or (self._thinks and not thought):
            usage["candidatesTokenCount"] = told
        usage["totalTokenCount"] = counts.input + counts.reasoning + told
        usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": counts.input}]
        if self._thinks:
            usage["thoughtsTokenCount"] = counts.reasoning
        elif last and self._counts:
            usage["candidatesTokensDetails"] = [{"modality": "TEXT", "tokenCount": told}]
        if last and counts.cached:
            usage["cachedContentTokenCount"] = counts.cached
        return usage


WIRES: dict[str, type[OpenAIWire] | type[AnthropicWire] | type[GeminiWire]] = {
    "openai": OpenAIWire,
    "anthropic": AnthropicWire,
    "gemini": GeminiWire,
}


def _data(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def _named(event: str, **fields: Any) -> bytes:
    body = _compact({"type": event, **fields})
    padded = f"{body[:-1]}{' ' * (len(body) % 14)}}}"
    return f"event: {event}\ndata: {padded}\n\n".encode()


def _crlf(chunk: dict[str, Any]) -> bytes:
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ": "))
    return f"data: {text}\r\n\r\n".encode()
