"""Shared by every HTTP edge: reads bodies, answers errors."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError
from aiohttp.typedefs import Handler
from loguru import logger

from relay.core.errors import Code, RelayError
from relay.protocol.codec import NotAFrame, decode_object

BODY_SECONDS = 30.0
"""Seconds within which a request's body has to arrive."""

STATUS: dict[Code, int] = {
    Code.BAD_FRAME: 400,
    Code.BAD_REQUEST: 422,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.UNKNOWN_PROVIDER: 404,
    Code.STREAM_EXPIRED: 404,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY_STREAMS: 429,
    Code.RATE_LIMITED: 429,
    Code.BUDGET_EXCEEDED: 429,
    Code.CONTENT_POLICY: 400,
    Code.CONTEXT_LENGTH: 400,
    Code.PROVIDER_AUTH: 502,
    Code.PROVIDER_RATE_LIMITED: 429,
    Code.PROVIDER_OVERLOADED: 503,
    Code.PROVIDER_TIMEOUT: 504,
    Code.PROVIDER_INTERRUPTED: 502,
    Code.PROVIDER_ERROR: 502,
    Code.PROVIDERS_EXHAUSTED: 503,
    Code.CANCELLED: 409,
    Code.ABANDONED: 409,
    Code.DRAINING: 503,
    Code.INTERNAL: 500,
}
"""The HTTP status for each error code, as long as no stream has started."""

Shape: TypeAlias = Callable[[RelayError], object]
"""Makes of an error the JSON object that one dialect's clients expect."""

CLIENT_GONE = 499
"""The status that logs show for a request whose client disconnected. It is never sent."""


class _Shapes(dict[str, Shape]):
    """Error shapes by path prefix."""


_SHAPES = web.AppKey("shapes", _Shapes)

_Bytes = TypeVar("_Bytes", bytes, bytearray)

NO_HEADERS: Mapping[str, str] = {}


class HttpError(RelayError):
    """An error with another status than its code's. `headers` are added to the response."""

    def __init__(
        self, status: int, code: Code, message: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.headers = headers


def shape_errors(app: web.Application, prefix: str, shape: Shape) -> None:
    """Give errors on paths that begin with `prefix` a dialect's shape. Other paths have
    `house_shape`. Call it before the application starts."""
    app[_SHAPES] = _Shapes(app.get(_SHAPES, {}) | {prefix: shape})


def house_shape(error: RelayError) -> dict[str, Any]:
    """`{"error": {"code", "message"}}`, the shape of every route of the relay's own."""
    return {"error": {"code": error.code, "message": error.message}}


def error_response(error: RelayError, shape: Shape = house_shape) -> web.Response:
    """The response that reports `error`."""
    status = error.status if isinstance(error, HttpError) else STATUS[error.code]
    response = json_response(shape(error), status)
    if isinstance(error, HttpError):
        response.headers.update(error.headers)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def json_response(body: Any, status: int = 200) -> web.Response:
    """`body` as JSON, never to be cached."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever a handler raises into JSON. Right inside the access log.

    An unexpected exception is logged and answered as `internal`, without its text.
    """
    try:
        return await handler(request)
    except RelayError as error:
        return error_response(error, shape_for(request))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return from_http_exception(error, shape_for(request))
    except Exception as error:
        if isinstance(error, ConnectionError) and _is_gone(request):
            return web.Response(status=CLIENT_GONE)
        logger.exception("request failed: {} {}", request.method, request.path)
        if request.writer.output_size:
            raise
        return error_response(RelayError(Code.INTERNAL, "internal error"), shape_for(request))


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def shape_for(request: web.Request) -> Shape:
    """The error shape for a request's path."""
    shapes = request.app.get(_SHAPES, _Shapes())
    found = [prefix for prefix in shapes if request.path.startswith(prefix)]
    return shapes[max(found, key=len)] if found else house_shape


_REASONS = {
    404: (Code.BAD_REQUEST, "there is nothing at this path"),
    405: (Code.BAD_REQUEST, "this path does not take this method"),
    413: (Code.TOO_LARGE, "the body is too large"),
    417: (Code.BAD_REQUEST, "the only Expect that is met is 100-continue"),
}


def from_http_exception(error: web.HTTPException, shape: Shape) -> web.StreamResponse:
    """The response for an error of aiohttp's, of status 400 and above."""
    code, message = _REASONS.get(error.status, (Code.BAD_REQUEST, error.reason))
    response = error_response(HttpError(error.status, code, message), shape)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


async def read_body(request: web.Request, limit: int) -> bytes:
    """The request's whole body, of at most `limit` bytes.

    Raises `RelayError(TOO_LARGE)`, and `HttpError` for a body that does not arrive in time or
    whose encoding is broken.
    """
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    try:
        if request.content.is_eof():  # it came with the head, as most bodies do
            return _within(request.content.read_nowait(), limit)
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_up_to(request, limit)
    except TimeoutError:
        message = f"the body did not arrive within {BODY_SECONDS:g} s"
        raise HttpError(408, Code.BAD_REQUEST, message) from None
    except (web.RequestPayloadError, PayloadEncodingError):
        raise HttpError(400, Code.BAD_REQUEST, "the body could not be read") from None


async def _read_up_to(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        _within(body, limit)
    return bytes(body)


def _within(body: _Bytes, limit: int) -> _Bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> RelayError:
    return RelayError(Code.TOO_LARGE, f"the body is larger than {limit} bytes (MAX_FRAME_BYTES)")


def json_object(body: bytes) -> dict[str, Any]:
    """A request's body as a JSON object, whatever its content type says.

    Raises `HttpError`: 400 for a body that is not JSON, 422 for JSON that is not an object.
    """
    try:
        return decode_object(body)
    except NotAFrame as error:
        status = 422 if error.is_json else 400
        raise HttpError(status, Code.BAD_REQUEST, f"the body: {error.message}") from None
