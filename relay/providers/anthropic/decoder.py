"""Anthropic's Messages wire, pure: event decoder and refusals.

Source: the official SDK's types (`anthropic.types.raw_message_stream_event`), the vendor's
list of error types, and recorded streams.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relay.core.events import Event, FinishReason, Reasoning, Served, Text, Usage
from relay.providers.anthropic.types import (
    AnthropicDelta,
    AnthropicMessage,
    AnthropicUsage,
    Block,
    StreamEvent,
)
from relay.providers.decoding.decoder import Decoder
from relay.providers.decoding.failures import message
from relay.providers.decoding.faults import bad_arguments, bad_event
from relay.providers.decoding.reasons import finish_of
from relay.providers.decoding.tolerant import fit, parse, parse_arguments
from relay.providers.decoding.toolcalls import CallsInPieces
from relay.providers.decoding.verdicts import (
    BROKEN,
    MALFORMED,
    MISSING,
    OUT_OF_QUOTA,
    OVERLOADED,
    RATE_LIMITED,
    TIMED_OUT,
    TOO_LONG,
    UNAUTHENTIC,
    Refusal,
    Verdict,
    by_code,
    by_status,
    by_words,
)

_decode = msgspec.json.Decoder(StreamEvent).decode

_SILENT = frozenset({"ping", "content_block_stop"})
_TYPED = frozenset({"type"})
_NONE: frozenset[str] = frozenset()


class AnthropicDecoder(Decoder):
    """One Messages stream. It ends with a `stop_reason` or `message_stop`.

    Signatures of thinking blocks are dropped, since only a request that turns thinking on has to
    send them back; they still count as a sign of life. Unknown event types are ignored, as the
    vendor asks of its clients, unless they report a failure.
    """

    def __init__(self) -> None:
        super().__init__(judge)
        self._calls = CallsInPieces()
        self._said = False
        self._passed_over: set[int | None] = set()
        self._input = 0
        self._cached: int | None = None

    def _payload(self, payload: bytes, out: list[Event]) -> None:
        event = _decode(payload)
        if not self._event(event, out):
            self._other(parse(payload), out)

    def _object(self, value: dict[str, Any], out: list[Event]) -> None:
        if not self._event(fit(value, StreamEvent), out):
            self._other(value, out)

    def _event(self, event: StreamEvent, out: list[Event]) -> bool:
        """Take an event; False if its type is unknown."""
        if event.error:
            self._error(event.error, out)
            return True
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    self._delta(event.index, event.delta, out)
            case "content_block_start":
                if event.content_block is not None:
                    self._block(event.index, event.content_block, out)
            case "message_start":
                self._started(event.message or AnthropicMessage(), out)
            case "message_delta":
                self._message_delta(event, out)
            case "message_stop":
                self._end(out)
            case "error":
                self._error(event.error, out)
            case _:
                return event.type in _SILENT
        return True

    def _other(self, value: object, out: list[Event]) -> None:
        if isinstance(value, dict) and value.get("type") == "message":
            self._unstreamed(value, out)
        else:
            typed = isinstance(value, dict) and isinstance(value.get("type"), str)
            self._strange(value, out, _TYPED if typed else _NONE)

    def _unstreamed(self, whole: dict[str, Any], out: list[Event]) -> None:
        """Take the whole message of a server that does not stream. Add nothing if it only repeats
        what was streamed."""
        if self._said or self._calls.begun:
            whole = {**whole, "content": None}
        content = whole.get("content") or []
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for event in (
            {"type": "message_start", "message": whole},
            *(
                {"type": "content_block_start", "index": index, "content_block": block}
                for index, block in enumerate(blocks)
            ),
            {"type": "message_delta", "delta": whole, "usage": whole.get("usage")},
        ):
            self._object(event, out)

    def _delta(self, index: int | None, delta: AnthropicDelta, out: list[Event]) -> None:
        if delta.text:
            self._said = True
            out.append(Text(delta.text))
        elif delta.thinking:
            out.append(Reasoning(delta.thinking))
        elif delta.partial_json and index not in self._passed_over:
            self._grow(index, delta.partial_json)

    def _grow(self, index: int | None, arguments: str | dict[str, Any]) -> None:
        if not self._calls.grow(index, arguments):
            raise bad_event()

    def _block(self, index: int | None, block: Block, out: list[Event]) -> None:
        self._passed_over.discard(index)
        if block.type == "tool_use":
            self._calls.open(index, block.id or "", block.name, _given(block.input))
        elif block.type == "text":
            if block.text:
                self._said = True
                out.append(Text(block.text))
        elif block.type == "thinking":
            if block.thinking:
                out.append(Reasoning(block.thinking))
        else:
            self._passed_over.add(index)

    def _started(self, message: AnthropicMessage, out: list[Event]) -> None:
        if message.model:
            out.append(Served(message.model))
        if message.usage is not None:
            self._count_input(message.usage)

    def _message_delta(self, event: StreamEvent, out: list[Event]) -> None:
        if event.delta is not None and event.delta.error:
            self._error(event.delta.error, out)
        usage = event.usage
        if usage is not None and usage.output_tokens is not None:
            self._count_input(usage)
            details = usage.output_tokens_details
            out.append(
                Usage(
                    self._input,
                    usage.output_tokens,
                    estimated=False,
                    cached_input_tokens=self._cached,
                    reasoning_tokens=details.thinking_tokens if details else None,
                )
            )
        if event.delta is not None and not self.finished:
            reason = finish_of(event.delta.stop_reason)
            if reason is not None:
                self._finish(reason, out)

    def _count_input(self, usage: AnthropicUsage) -> None:
        """Input tokens as one sum. The vendor counts tokens read from or written to its cache
        separately."""
        if usage.input_tokens is None:
            return
        self._cached = usage.cache_read_input_tokens
        written = usage.cache_creation_input_tokens or 0
        self._input = usage.input_tokens + written + (self._cached or 0)

    def _finish(self, reason: FinishReason, out: list[Event]) -> None:
        self._calls.finish(reason, out)
        self.finished = True


def _given(value: object) -> dict[str, Any] | None:
    """A tool call's arguments that come with the start of its block; usually they follow later."""
    if isinstance(value, str) and value:
        value = parse_arguments(value)
    elif not value:
        return None
    if not isinstance(value, dict):
        raise bad_arguments()
    return value


_BY_TYPE: dict[str, Verdict] = {
    "authentication_error": UNAUTHENTIC,
    "permission_error": UNAUTHENTIC,
    "billing_error": OUT_OF_QUOTA,
    "not_found_error": MISSING,
    "request_too_large": TOO_LONG,
    "rate_limit_error": RATE_LIMITED,
    "timeout_error": TIMED_OUT,
    "overloaded_error": OVERLOADED,
    "api_error": BROKEN,
    "invalid_request_error": MALFORMED,
}


def judge(status: int, error: dict[str, Any]) -> Refusal:
    """Classify an error object by its type, then by its status. The vendor has no type of its own
    for a conversation that is too long, or one that its policy forbids."""
    mark, says = error.get("type"), message(error)
    verdict = _BY_TYPE.get(mark) if isinstance(mark, str) else None
    verdict = verdict or by_code(mark) or by_code(error.get("code")) or by_status(status)
    if verdict is BROKEN and status >= 500:
        verdict = by_status(status)
    return Refusal(by_words(verdict, says), (mark,), says)
