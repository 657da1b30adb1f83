"""`relay.v1` over HTTP: the frames of a stream as server-sent events.

An event's name is the frame's type, its id the seq, its data the frame. The format follows the
HTML standard (§9.2); a browser's EventSource can read and resume it.
"""

from __future__ import annotations

import secrets

from aiohttp import web
from pydantic import ValidationError

from relay.access.guard import SUBJECT
from relay.core.errors import Code, RelayError
from relay.core.records import Chunk
from relay.edges.delivery.http_body import STREAM_HEADERS, HttpBody, HttpService
from relay.edges.http import json_object, read_body
from relay.protocol.chat import ChatBody, to_request
from relay.protocol.codec import FrameEncoder, explain
from relay.protocol.frames import STREAM_HEADER
from relay.protocol.plainchat import ReadChat, read_plain_body

MAX_SEQ_DIGITS = 15
"""The most digits of a seq that is accepted."""


class SseEncoder:
    """Encodes chunks as events. Has no state, so it may begin at any chunk. `id` is the stream's
    name for its client."""

    def __init__(self, id: str) -> None:
        self._frames = FrameEncoder(id)

    def encode(self, chunk: Chunk) -> bytes:
        """One event."""
        return b"event: %b\nid: %d\ndata: %b\n\n" % (
            chunk.kind.encode(),
            chunk.last,
            self._frames.encode(chunk),
        )

    def fault(self, error: RelayError) -> bytes:
        """An `error` event without an id, since it is no record."""
        return b"event: error\ndata: %b\n\n" % self._frames.fault(error)


class SseEdge:
    """`POST /chat/{provider}`; `GET` and `DELETE /streams/{stream}`."""

    def __init__(self, service: HttpService) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the application."""
        return [
            web.post("/chat/{provider}", self.chat),
            web.get("/streams/{stream}", self.attach, allow_head=False),
            web.delete("/streams/{stream}", self.erase),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Start a stream and send it. Raises for every error before the stream starts."""
        service = self._service
        body, provider = await read_body(request, service.max_body), request.match_info["provider"]
        asked = read_plain_body(body, provider) or _read_by_schema(body, provider)
        subject = request.get(SUBJECT)
        id = asked.id or secrets.token_urlsafe(12)
        stream = await service.dispatcher.start(
            asked.request,
            session=secrets.token_urlsafe(24),
            id=id,
            subject=subject,
        )
        return await self._send(request, stream, id, -1, subject)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Send a stream after the seq that the client names; 204 if the client has all of it."""
        stream, subject = request.match_info["stream"], request.get(SUBJECT)
        after = _after_of(request)
        info = await self._service.log.info(stream, subject)
        if info.status != "running" and after == info.seq:
            return web.Response(status=204)
        return await self._send(request, stream, info.id, after, subject)

    async def erase(self, request: web.Request) -> web.StreamResponse:
        """Cancel a stream and delete it."""
        await self._service.log.erase(request.match_info["stream"], request.get(SUBJECT))
        return web.Response(status=204)

    async def _send(
        self, request: web.Request, stream: str, id: str, after: int, subject: str | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**STREAM_HEADERS, STREAM_HEADER: stream})
        body = HttpBody(request, response, SseEncoder(id), self._service)
        return await body.deliver(
            lambda wake: self._service.log.attach(stream, after, wake, subject)
        )


def _read_by_schema(body: bytes, provider: str) -> ReadChat:
    try:
        chat = ChatBody.model_validate(json_object(body))
    except ValidationError as error:
        _, message = explain(error)
        raise RelayError(Code.BAD_REQUEST, message) from None
    return ReadChat(chat.id, to_request(chat, provider))


def _after_of(request: web.Request) -> int:
    """The last seq that the client has. A browser's `Last-Event-ID` is newer than the URL that it
    started with, so it takes precedence."""
    last_event = request.headers.get("Last-Event-ID", "").strip()
    name, text = (
        ("Last-Event-ID", last_event) if last_event else ("after", request.query.get("after", "-1"))
    )
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_SEQ_DIGITS):
        raise RelayError(Code.BAD_REQUEST, f"{name}: expected the seq of an event, or -1 for all")
    return int(sign + digits)
