"""OpenAI's Chat Completions: `POST /v1/chat/completions` and `GET /v1/models`.

Shapes follow the API reference and what the official SDKs read. An answer can't be resumed here:
when a client drops its request, the upstream is closed at once. An answer that broke ends in an
in-band `error`, never in `[DONE]`, since the SDKs take any other end for success.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from relay.access.guard import SUBJECT
from relay.answering.dispatcher import Offer
from relay.core import events
from relay.core.errors import Code, RelayError
from relay.core.events import (
    Done,
    Failed,
    Fallback,
    FinishReason,
    Kind,
    Reasoning,
    Start,
    Text,
    ToolCall,
)
from relay.core.records import Chunk, decode
from relay.edges.delivery.http_body import STREAM_HEADERS, HttpBody, HttpService, read_whole
from relay.edges.http import STATUS, HttpError, json_object, json_response, read_body
from relay.edges.openai import request as openai_request
from relay.edges.openai.request import InvalidRequest
from relay.edges.openai.response import (
    OpenAIChunk,
    OpenAIChunkChoice,
    OpenAICompletion,
    OpenAICompletionChoice,
    OpenAICompletionTokensDetails,
    OpenAIDelta,
    OpenAIError,
    OpenAIErrorDetail,
    OpenAIFinishReason,
    OpenAIFunctionCall,
    OpenAIIndexedToolCall,
    OpenAIMessage,
    OpenAIModel,
    OpenAIModels,
    OpenAIPromptTokensDetails,
    OpenAIToolCall,
    OpenAIUsage,
)
from relay.protocol.frames import STREAM_HEADER

PREFIX = "/v1/"
"""Errors on paths with this prefix have OpenAI's shape: see `http.shape_errors`."""

GRACE = 1.0
"""Seconds that an answer waits for its first reader. When a reader leaves later, this edge cancels
the stream at once, without a grace period."""

END = b"data: [DONE]\n\n"
"""What is sent after the last chunk of a complete answer."""

_CODES = {
    Code.UNAUTHORIZED: "invalid_api_key",
    Code.UNKNOWN_PROVIDER: "model_not_found",
    Code.CONTEXT_LENGTH: "context_length_exceeded",
    Code.CONTENT_POLICY: "content_policy_violation",
    Code.RATE_LIMITED: "rate_limit_exceeded",
}
"""OpenAI's own name for an error code, if it has one."""

_FINISH_REASONS: dict[FinishReason, OpenAIFinishReason] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.TOOL_CALLS: "tool_calls",
}
"""OpenAI's finish reasons. A cancelled answer has none: it ends in an error."""

_CANCELLED = RelayError(Code.CANCELLED, "the answer was cancelled")

_DELTA = b'"delta":'
_NO_DELTA = b'"delta":{}'  # never within a JSON string, where quotes are escaped


def openai_shape(error: RelayError) -> OpenAIError:
    """The error in OpenAI's shape."""
    status = error.status if isinstance(error, HttpError) else STATUS[error.code]
    param = error.param if isinstance(error, InvalidRequest) else None
    if error.code is Code.UNKNOWN_PROVIDER:
        param = "model"
    code = _CODES.get(error.code, error.code.value)
    return OpenAIError(OpenAIErrorDetail(error.message, _type_of(status), param, code))


def _type_of(status: int) -> str:
    if status >= 500:
        return "server_error"
    named = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return named.get(status, "invalid_request_error")


def _error_of(failed: Failed) -> RelayError:
    return RelayError(
        failed.code, failed.message, retryable=failed.retryable, retry_after=failed.retry_after
    )


def _event(data: OpenAIChunk | OpenAIError) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(data)


def _usage(usage: events.Usage) -> OpenAIUsage:
    return OpenAIUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=OpenAIPromptTokensDetails(usage.cached_input_tokens or 0),
        completion_tokens_details=OpenAICompletionTokensDetails(usage.reasoning_tokens or 0),
    )


def _function(call: ToolCall) -> OpenAIFunctionCall:
    return OpenAIFunctionCall(call.name, msgspec.json.encode(call.arguments).decode())


def _tool_call(call: ToolCall) -> OpenAIToolCall:
    return OpenAIToolCall(call.call_id, "function", _function(call), _signature(call))


def _signature(call: ToolCall) -> dict[str, Any] | None:
    """A Gemini thought signature, placed as in Google's own OpenAI-compatible API."""
    return {"google": {"thought_signature": call.state}} if call.state is not None else None


class ChunkEncoder:
    """A stream's chunks as `chat.completion.chunk` events; start at record 0. `id` is the
    answer's, `created` in seconds since the epoch."""

    def __init__(self, id: str, created: int, *, include_usage: bool) -> None:
        self._id = id
        self._created = created
        self._include_usage = include_usage
        self._calls = 0
        self._name_model("")

    def encode(self, chunk: Chunk) -> bytes:
        """The chunk's events. Text is inserted unchanged, since it is JSON already."""
        if chunk.kind is Kind.TOKEN:
            return self._open + b'{"content":"' + chunk.body + b'"}' + self._close
        if chunk.kind is Kind.REASONING:
            return self._open + b'{"reasoning_content":"' + chunk.body + b'"}' + self._close
        match decode(chunk.kind, chunk.body):
            case Start(model=model):
                self._name_model(model)
                return self._added(OpenAIDelta(role="assistant", content=""))
            case Fallback(to=target):
                self._name_model(target.model)
            case ToolCall() as call:
                return self._call(call)
            case Done() as done:
                return self._done(done)
            case Failed() as failed:
                return self.fault(_error_of(failed))
            case _:
                pass
        return b""

    def fault(self, error: RelayError) -> bytes:
        """The in-band error, which makes the SDKs raise."""
        return _event(openai_shape(error))

    def _name_model(self, model: str) -> None:
        """Set the model's name for all further chunks. The JSON around a delta is encoded once, so
        that a token's chunk is made by joining three pieces."""
        self._model = model
        self._open, self._close = self._added(OpenAIDelta()).split(_NO_DELTA)
        self._open += _DELTA

    def _added(self, delta: OpenAIDelta, finish_reason: OpenAIFinishReason | None = None) -> bytes:
        return _event(self._chunk([OpenAIChunkChoice(0, delta, None, finish_reason)]))

    def _chunk(
        self, choices: list[OpenAIChunkChoice], usage: OpenAIUsage | None = None
    ) -> OpenAIChunk:
        return OpenAIChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage,
        )

    def _call(self, call: ToolCall) -> bytes:
        index, self._calls = self._calls, self._calls + 1
        shown = OpenAIIndexedToolCall(
            index, call.call_id, "function", _function(call), _signature(call)
        )
        return self._added(OpenAIDelta(tool_calls=[shown]))

    def _done(self, done: Done) -> bytes:
        reason = _FINISH_REASONS.get(done.finish_reason)
        if reason is None:
            return self.fault(_CANCELLED)
        self._model = done.model
        last = self._added(OpenAIDelta(), reason)
        if self._include_usage:
            last += _event(self._chunk([], _usage(done.usage)))
        return last + END


@dataclass(slots=True)
class Completion:
    """An answer in one piece: pass it all chunks from record 0, then call `body`."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    end: Done | Failed | None = None

    def fold(self, chunk: Chunk) -> None:
        """Add one chunk."""
        match decode(chunk.kind, chunk.body):
            case Text(piece):
                self.text.append(piece)
            case Reasoning(piece):
                self.reasoning.append(piece)
            case ToolCall() as call:
                self.calls.append(call)
            case Fallback(keep=False):
                self.text.clear()
                self.reasoning.clear()
            case (Done() | Failed()) as end:
                self.end = end
            case _:
                pass

    def body(self, id: str, created: int) -> OpenAICompletion:
        """The answer in OpenAI's shape. Raises `RelayError` for an answer that broke."""
        end = self.end
        if isinstance(end, Failed):
            raise _error_of(end)
        if end is None or (reason := _FINISH_REASONS.get(end.finish_reason)) is None:
            raise _CANCELLED
        return OpenAICompletion(
            id=id,
            object="chat.completion",
            created=created,
            model=end.model,
            choices=[OpenAICompletionChoice(0, self._message(), None, reason)],
            usage=_usage(end.usage),
        )

    def _message(self) -> OpenAIMessage:
        text = "".join(self.text)
        return OpenAIMessage(
            role="assistant",
            content=text if text or not self.calls else None,
            refusal=None,
            reasoning_content="".join(self.reasoning) or None,
            tool_calls=[_tool_call(call) for call in self.calls] or None,
        )


class OpenAIChatEdge:
    """The routes. `clock` gives seconds since the epoch."""

    def __init__(self, service: HttpService, clock: Callable[[], float] = time.time) -> None:
        self._service = service
        self._clock = clock
        self._started = int(clock())

    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the application."""
        return [
            web.post(PREFIX + "chat/completions", self.complete),
            web.get(PREFIX + "models", self.models),
            web.get(PREFIX + "models/{model}", self.model),
        ]

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, streamed or in one piece."""
        data = await read_body(request, self._service.max_body)
        body, asked = openai_request.read_plain_completion(data) or openai_request.read(
            json_object(data)
        )
        subject, streamed = request.get(SUBJECT), bool(body.stream)
        if streamed:
            asked = msgspec.structs.replace(asked, can_unsay=False)
        try:
            stream = await self._service.dispatcher.start(
                asked,
                session=secrets.token_urlsafe(24),
                id=secrets.token_urlsafe(12),
                subject=subject,
                grace=GRACE,
            )
        except RelayError as error:
            raise _as_openai_answers(error) from None
        if streamed:
            return await self._stream(request, stream, subject, body.include_usage)
        return await self._whole(request, stream, subject)

    async def _stream(
        self, request: web.Request, stream: str, subject: str | None, include_usage: bool
    ) -> web.StreamResponse:
        encoder = ChunkEncoder(
            f"chatcmpl-{stream}", int(self._clock()), include_usage=include_usage
        )
        response = web.StreamResponse(headers={**STREAM_HEADERS, STREAM_HEADER: stream})
        body = HttpBody(request, response, encoder, self._service)
        try:
            return await body.deliver(
                lambda wake: self._service.log.attach(stream, -1, wake, subject)
            )
        finally:
            if not body.whole:
                await self._cancel(stream, subject)

    async def _whole(
        self, request: web.Request, stream: str, subject: str | None
    ) -> web.StreamResponse:
        completion, whole = Completion(), False
        try:
            whole = await read_whole(
                request,
                lambda wake: self._service.log.attach(stream, -1, wake, subject),
                completion.fold,
            )
        finally:
            if not whole:
                await self._cancel(stream, subject)
        if not whole:
            raise ConnectionResetError("the client is gone")
        return json_response(completion.body(f"chatcmpl-{stream}", int(self._clock())))

    async def _cancel(self, stream: str, subject: str | None) -> None:
        with suppress(RelayError):  # the client is gone, so nobody can be told
            await self._service.log.cancel(stream, subject)

    async def models(self, request: web.Request) -> web.Response:
        """The models that `model` may name, the default first."""
        offers = self._service.dispatcher.offers()
        data = [self._shown(offer) for offer in offers]
        return json_response(OpenAIModels("list", data))

    async def model(self, request: web.Request) -> web.Response:
        """One of these models. Raises `RelayError(UNKNOWN_PROVIDER)`."""
        name = request.match_info["model"]
        for offer in self._service.dispatcher.offers():
            if offer.name == name:
                return json_response(self._shown(offer))
        raise RelayError(Code.UNKNOWN_PROVIDER, "model: there is no model of this name")

    def _shown(self, offer: Offer) -> OpenAIModel:
        return OpenAIModel(offer.name, "model", self._started, "relay")


def _as_openai_answers(error: RelayError) -> RelayError:
    """OpenAI answers 400 to an invalid field, the relay elsewhere 422."""
    return InvalidRequest(error.message) if error.code is Code.BAD_REQUEST else error
