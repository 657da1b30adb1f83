"""OpenAI's chat.completions wire, pure: event decoder and refusals.

Compatible servers (Mistral, Groq, DeepSeek, Ollama, vLLM, llama.cpp) use it too, so the decoder
accepts what they are known to leave out or do differently. Source: the official SDK's types
(`openai.types.chat`) and recorded streams.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relay.core.events import Event, FinishReason, Reasoning, Served, Text, Usage
from relay.providers.decoding.decoder import Decoder
from relay.providers.decoding.failures import base_response, message
from relay.providers.decoding.faults import bad_event
from relay.providers.decoding.reasons import finish_of
from relay.providers.decoding.tolerant import fit, parse
from relay.providers.decoding.toolcalls import CallsInPieces, PartialCall
from relay.providers.decoding.verdicts import (
    BROKEN,
    OUT_OF_QUOTA,
    OVERLOADED,
    RATE_LIMITED,
    REFUSED,
    TIMED_OUT,
    TOO_LONG,
    UNAUTHENTIC,
    Refusal,
    Verdict,
    by_code,
    by_status,
    by_words,
)
from relay.providers.openai.types import (
    CallDelta,
    Choice,
    Function,
    OpenAIStreamChunk,
    OpenAIStreamDelta,
    OpenAIStreamUsage,
    Piece,
)

_decode = msgspec.json.Decoder(OpenAIStreamChunk).decode

_KNOWN = frozenset(
    {
        "choices",
        "usage",
        "model",
        "object",
        "created",
        "prompt_filter_results",
        "system_fingerprint",
    }
)
"""Fields of an object that is part of an answer, even if it has no text."""


class OpenAIDecoder(Decoder):
    """One chat.completions stream. It ends with a `finish_reason` or `[DONE]`. `tools` are the
    names of the tools that the model was given."""

    def __init__(self, tools: frozenset[str] = frozenset()) -> None:
        super().__init__(judge)
        self._model = ""
        self._said = False
        self._told: str | None = None
        self._refused = False
        self._calls = CallsInPieces(tools)

    def _payload(self, payload: bytes, out: list[Event]) -> None:
        if payload.startswith(b"[DONE]"):
            self._end(out)
            return
        chunk = _decode(payload)
        if _is_wordless(chunk):
            self._strange(parse(payload), out, _KNOWN)
        self._chunk(chunk, out)

    def _tolerantly(self, payload: bytes, out: list[Event]) -> None:
        if payload.strip(b" \"'[]").upper() == b"DONE":
            found: list[Event] = []
            self._end(found)
            self._join(found, out)
        else:
            super()._tolerantly(payload, out)

    def _object(self, value: dict[str, Any], out: list[Event]) -> None:
        chunk = fit(value, OpenAIStreamChunk)
        if _is_wordless(chunk):
            self._strange(value, out, _KNOWN)
        self._chunk(chunk, out)

    def _chunk(self, chunk: OpenAIStreamChunk, out: list[Event]) -> None:
        if self.ended:
            return
        if chunk.error:
            self._error(chunk.error, out)
        if chunk.base_resp is not None and (error := base_response(chunk.base_resp)):
            self._error(error, out)
        if chunk.model and not self._model:
            self._model = chunk.model
            out.append(Served(chunk.model))
        for choice in chunk.choices or ():
            if not choice.index:
                self._choice(choice, out)
        if chunk.usage is not None:
            _count(chunk.usage, out)

    def _choice(self, choice: Choice, out: list[Event]) -> None:
        if choice.delta is not None:
            self._delta(choice.delta, out)
        if choice.message is not None or choice.text:
            self._unstreamed(choice, out)
        if choice.error:
            self._error(choice.error, out)
        if choice.finish_reason and not self.finished:
            reason = finish_of(choice.finish_reason)
            if reason is not None:
                self._finish(reason, out)

    def _delta(self, delta: OpenAIStreamDelta, out: list[Event]) -> None:
        if thought := delta.reasoning_content or delta.reasoning:
            out.append(Reasoning(thought))
        if content := delta.content:
            self._said = True
            if isinstance(content, str):
                out.append(Text(content))
            else:
                _pieces(content, out)
        if delta.refusal:
            self._refused = True
        if delta.tool_calls or delta.function_call is not None:
            self._called(delta)

    def _unstreamed(self, choice: Choice, out: list[Event]) -> None:
        """Take the whole message of a server that does not stream, or a piece of text of the older
        completions wire. Add nothing if the message only repeats what was streamed."""
        if choice.text:
            self._delta(OpenAIStreamDelta(content=choice.text), out)
        elif choice.message is not None:
            if self._told is None and not self._said and not self._calls.begun:
                self._told = ""
            if self._told is not None:
                self._message(choice.message, self._told, out)

    def _message(self, message: OpenAIStreamDelta, told: str, out: list[Event]) -> None:
        """Take a message when no delta carried text: the answer, a piece of it, or all of it so
        far. `told` is the text of the earlier messages."""
        if isinstance(message.content, str):
            new = message.content.removeprefix(told)
            self._told = told + new
            message = msgspec.structs.replace(message, content=new)
        self._delta(message, out)

    def _called(self, delta: OpenAIStreamDelta) -> None:
        named: list[PartialCall] = []
        pieces = delta.tool_calls or [CallDelta(function=delta.function_call)]
        for piece in pieces:
            function = piece.function or Function(piece.name, piece.arguments)
            self._calls.add(
                piece.index, piece.id or "", function.name or "", function.arguments, named
            )

    def _finish(self, reason: FinishReason, out: list[Event]) -> None:
        if self._refused:
            reason = FinishReason.CONTENT_FILTER
        self._calls.finish(reason, out)
        self.finished = True


def _is_wordless(chunk: OpenAIStreamChunk) -> bool:
    """Whether a chunk has no text, or only the end: it is then checked for a failure in fields
    that are not read otherwise."""
    if not chunk.choices:
        return True
    choice = chunk.choices[0]
    if choice.finish_reason or choice.delta is None:
        return True
    delta = choice.delta
    return not (delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls)


def _pieces(pieces: list[Piece | str], out: list[Event]) -> None:
    """Take content that is a list of pieces, as Mistral's reasoning models send it."""
    for piece in pieces:
        if isinstance(piece, str):
            out.append(Text(piece))
            continue
        if piece.text:
            out.append(Text(piece.text))
        elif not piece.type and not piece.thinking:
            raise bad_event()
        for thought in piece.thinking or ():
            text = thought.get("text") if isinstance(thought, dict) else thought
            if isinstance(text, str) and text:
                out.append(Reasoning(text))


def _count(usage: OpenAIStreamUsage, out: list[Event]) -> None:
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
    "1261": TOO_LONG,
    "content_policy_violation": REFUSED,
    "content_filter": REFUSED,
    "invalid_prompt": REFUSED,
    "ResponsibleAIPolicyViolation": REFUSED,
    "1301": REFUSED,
    "base_resp_1026": REFUSED,
    "base_resp_1027": REFUSED,
    "insufficient_quota": OUT_OF_QUOTA,
    "billing_hard_limit_reached": OUT_OF_QUOTA,
    "billing_not_active": OUT_OF_QUOTA,
    "1113": OUT_OF_QUOTA,
    "base_resp_1008": OUT_OF_QUOTA,
    "permission_error": UNAUTHENTIC,
    "base_resp_1004": UNAUTHENTIC,
    "rate_limit_exceeded": RATE_LIMITED,
    "1302": RATE_LIMITED,
    "1303": RATE_LIMITED,
    "1305": RATE_LIMITED,
    "base_resp_1002": RATE_LIMITED,
    "base_resp_1039": RATE_LIMITED,
    "base_resp_1001": TIMED_OUT,
    "unavailable_error": OVERLOADED,
    "server_error": BROKEN,
    "api_error": BROKEN,
    "internal_server_error": BROKEN,
}
"""By `error.code` or `type`: those of OpenAI and llama.cpp, Z.AI's numbers, and MiniMax' under the
name that `base_response` gives them. Other codes are classified by their name (`by_code`)."""


def judge(status: int, error: dict[str, Any]) -> Refusal:
    """Classify an error object by its codes, then by its status."""
    inner = error.get("innererror")
    marks = (error.get("type"), error.get("code"))
    codes = (inner.get("code") if isinstance(inner, dict) else None, marks[1], marks[0])
    says = message(error)
    for look in (_BY_CODE.get, by_code):
        for code in codes:
            if isinstance(code, str) and (verdict := look(code)) is not None:
                return Refusal(verdict, marks, says)
    own = _status(marks[1]) if status == 200 else None
    return Refusal(by_words(by_status(own or status), says), marks, says)


def _status(code: object) -> int | None:
    """The HTTP status in an error's code, as OpenRouter and llama.cpp send it."""
    number = (
        int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else 0
    )
    return number if 100 <= number < 600 else None
