"""Anthropic's Messages wire, pure: event decoder and refusals.

Source: the official SDK's types (`anthropic.types.raw_message_stream_event`), the vendor's
list of error types, and recorded streams.
"""

from __future__ import annotations

import msgspec

from relay.errors import Fault
from relay.events import Event, Finish, FinishReason, Reasoning, Served, Text, Usage
from relay.provider import Call, Form
from relay.providers.anthropic_types import Block, Counts, Delta, Message, StreamEvent
from relay.providers.decoding import Decoder
from relay.providers.faults import (
    BROKEN,
    CONTEXT_PHRASES,
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
from relay.providers.toolcalls import PartialCall, reason_with, whole_calls

_decode = msgspec.json.Decoder(StreamEvent).decode

_REASONS: dict[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


class AnthropicDecoder(Decoder):
    """One Messages stream. Its end is a `stop_reason` or `message_stop`.

    Signatures of thinking blocks count as life and are not kept: only a request that
    turns thinking on has to send them back. Unknown event types are passed over, as the
    vendor asks of its clients.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, PartialCall] = {}
        self._input = 0
        self._cached: int | None = None

    def _payload(self, payload: bytes, out: list[Event]) -> None:
        event = _decode(payload)
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    self._delta(event.index, event.delta, out)
            case "content_block_start":
                if event.content_block is not None:
                    self._block(event.index, event.content_block, out)
            case "message_start":
                self._started(event.message or Message(), out)
            case "message_delta":
                self._message_delta(event, out)
            case "message_stop":
                if not self.finished:
                    self._finish(FinishReason.STOP, out)
                self.ended = True
            case "error":
                self._error(event.error, out)

    def _delta(self, index: int, delta: Delta, out: list[Event]) -> None:
        if delta.text:
            out.append(Text(delta.text))
        elif delta.thinking:
            out.append(Reasoning(delta.thinking))
        elif delta.partial_json and (call := self._calls.get(index)):
            call.add(delta.partial_json)

    def _block(self, index: int, block: Block, out: list[Event]) -> None:
        if block.type == "tool_use":
            given = block.input if isinstance(block.input, dict) else None
            self._calls[index] = PartialCall(block.id, block.name, given)
        elif block.type == "text" and block.text:
            out.append(Text(block.text))
        elif block.type == "thinking" and block.thinking:
            out.append(Reasoning(block.thinking))

    def _started(self, message: Message, out: list[Event]) -> None:
        if message.model:
            out.append(Served(message.model))
        if message.usage is not None:
            self._count_input(message.usage)

    def _message_delta(self, event: StreamEvent, out: list[Event]) -> None:
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
        if event.delta is not None and event.delta.stop_reason and not self.finished:
            self._finish(_REASONS.get(event.delta.stop_reason, FinishReason.STOP), out)

    def _count_input(self, usage: Counts) -> None:
        """Input as one sum: the vendor counts what it read from or wrote to its cache apart."""
        if usage.input_tokens is None:
            return
        self._cached = usage.cache_read_input_tokens
        written = usage.cache_creation_input_tokens or 0
        self._input = usage.input_tokens + written + (self._cached or 0)

    def _finish(self, reason: FinishReason, out: list[Event]) -> None:
        calls = whole_calls(list(self._calls.values()), reason)
        out.extend(calls)
        out.append(Finish(reason_with(calls, reason)))
        self.finished = True

    def _error(self, error: object, out: list[Event]) -> None:
        verdict, mark, says = _judge(200, error)
        if verdict is REFUSED and not self.finished:
            out.append(Finish(FinishReason.CONTENT_FILTER))
            self.finished = self.ended = True
            return
        raise fault(MISSING if verdict is MALFORMED else verdict, marks=(mark,), says=says)

    def _stray(self, stray: bytes) -> None:
        body = json_object(stray)
        if "error" in body and not self.finished:
            verdict, mark, says = _judge(200, body["error"])
            raise fault(verdict, marks=(mark,), says=says)


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


def classify(reply: Reply, call: Call | None = None) -> Fault:
    """The `Fault` that an HTTP refusal stands for, to be raised. `call` is what was asked."""
    verdict, mark, says = _judge(reply.status, json_object(reply.body).get("error"))
    prefilled = call is not None and call.form is Form.PREFILL
    return fault(
        verdict,
        marks=(reply.status, mark),
        says=says,
        wait=retry_after(reply.headers, reply.now),
        prefill_refused=verdict is MALFORMED and prefilled,
    )


def _judge(status: int, error: object) -> tuple[Verdict, object, object]:
    """Verdict, type and message of an error object, by its type before its status. A
    conversation that is too long, or not allowed, has no type of its own."""
    if not isinstance(error, dict):
        return by_status(status), None, None
    mark, says = error.get("type"), error.get("message")
    verdict = _BY_TYPE.get(mark, by_status(status)) if isinstance(mark, str) else by_status(status)
    if verdict is BROKEN and status >= 500:
        verdict = by_status(status)
    if verdict is MALFORMED and mentions(says, CONTEXT_PHRASES):
        verdict = TOO_LONG
    elif verdict is MALFORMED and mentions(says, POLICY_PHRASES):
        verdict = REFUSED
    elif verdict is MALFORMED and mentions(says, ("credit balance",)):
        verdict = OUT_OF_QUOTA
    return verdict, mark, says
