"""The short way to an upstream: the SDK's request, sent and read without the SDK.

The SDK is asked once for each model what it would send: address, authentication, version
and client headers are its own. From then on only the body changes, and it is built by the
same functions that feed the SDK. What this way cannot do is left to the SDK.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from relay.errors import Code, Fault
from relay.provider import Call, Sink
from relay.providers.decoding import Decoder
from relay.providers.exchange import Response
from relay.providers.faults import Reply, closed_early
from relay.providers.http import CONNECT_TIMEOUT, rehearse
from relay.providers.http1 import (
    ConnectTimeout,
    Endpoint,
    TransportError,
    Unreachable,
    Unsupported,
    endpoint,
    supports,
)
from relay.providers.transport import Client
from relay.request import ChatRequest, Message

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Answer:
    """Where one upstream call's answer goes: its body to `decoder`, the events to `sink`,
    one call a read. `refused` makes the `Fault` for a status of 400 and above."""

    decoder: Decoder
    sink: Sink
    refused: Callable[[Reply], Fault]

    def take(self, body: bytes) -> bool:
        """What one read brought; whether more is wanted. Raises the decoder's `Fault`."""
        decoder = self.decoder
        if events := decoder.feed(body):
            self.sink(events)
        if decoder.fault:
            raise decoder.fault
        return not decoder.ended

    def end(self) -> None:
        """The body is over. Raises the decoder's `Fault` where the answer is not whole."""
        if events := self.decoder.eof():
            self.sink(events)
        if self.decoder.fault:
            raise self.decoder.fault


class LeanTransport:
    """One provider's connections, and what its SDK sends to each of its models.

    `uds` is the path of a Unix socket to connect to. `on` False leaves every call to the
    SDK.
    """

    def __init__(self, *, uds: str | None = None, on: bool = True) -> None:
        self._client = Client(uds=uds, connect_timeout=CONNECT_TIMEOUT)
        self._uds = uds
        self._on = on
        self._endpoints: dict[str, Endpoint | None] = {}

    async def run(
        self,
        model: str,
        body: Callable[[], Mapping[str, Any]],
        send: Callable[[], Awaitable[object]],
        answer: Answer,
    ) -> bool:
        """Make one call; False where it has to be made through the SDK, nothing having
        been decoded. `body` makes what is sent, which nobody keeps while the answer streams;
        `send` has the SDK send it to `model`: that is how its headers are learnt.

        Raises `Fault` for everything that the upstream did wrong. Cancelling closes the
        connection at once.
        """
        ready = await self._endpoint(model, send)
        if ready is None:
            return False
        try:
            response = await self._client.post(ready, _encode(body()), answer.take)
            await response.ended()
            if response.status >= 400:
                raise answer.refused(_reply_of(response))
            answer.end()
        except Unsupported:
            self._endpoints[model] = None
            return False
        except TransportError as error:
            if not answer.decoder.finished:
                raise _fault(error) from None
        return True

    async def warm(self, model: str, send: Callable[[], Awaitable[object]]) -> None:
        """Learn what the SDK sends to `model` and open a connection, so that the first
        call need not. What fails shows in the calls."""
        ready = await self._endpoint(model, send)
        if ready is not None:
            with suppress(TransportError):
                await self._client.warm(ready.origin)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self._client.close()

    async def _endpoint(self, model: str, send: Callable[[], Awaitable[object]]) -> Endpoint | None:
        if not self._on:
            return None
        if model not in self._endpoints:
            self._endpoints[model] = await self._learn(send)
        return self._endpoints[model]

    async def _learn(self, send: Callable[[], Awaitable[object]]) -> Endpoint | None:
        """What the SDK sends, None where that is more than this way can send. It is asked
        twice: a header that changes from request to request cannot be learnt."""
        first, second = await rehearse(send), await rehearse(send)
        if first is None or second is None or first.headers != second.headers:
            return None
        try:
            url = str(first.url)
            return endpoint(url, first.headers) if supports(url, uds=self._uds) else None
        except ValueError:
            return None


def greeting(model: str) -> Call:
    """The smallest call there is, to see what an SDK makes of it."""
    return Call(model, ChatRequest(provider="", messages=(Message("user", "Hello"),)), 1)


def _reply_of(response: Response) -> Reply:
    return Reply(response.status, response.headers, response.content, time.time())


def _fault(error: TransportError) -> Fault:
    """What a failure below HTTP means. Its text is dropped: it may hold an address."""
    if isinstance(error, ConnectTimeout):
        seconds = f"{CONNECT_TIMEOUT:g} s"
        return Fault(Code.PROVIDER_TIMEOUT, f"no connection to the provider within {seconds}")
    if isinstance(error, Unreachable):
        return Fault(Code.PROVIDER_ERROR, "the provider cannot be reached")
    return closed_early()
