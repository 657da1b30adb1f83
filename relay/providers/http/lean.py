"""The lean way to an upstream: the SDK's request, sent and read without the SDK.

The SDK is asked once for each model what it would send: address, authentication, version and
client headers are its own. After that only the body changes, and the same functions build it that
build the SDK's. Calls that this way can't make are left to the SDK.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from relay.core.provider import Call
from relay.core.request import ChatRequest, Turn
from relay.providers.http.client import Client
from relay.providers.http.exchange import BodyReader, Response
from relay.providers.http.http1 import Endpoint, TransportError, endpoint, supports
from relay.providers.http.sdk_client import rehearse

_encode = msgspec.json.Encoder().encode


class LeanTransport:
    """One provider's connections, and what its SDK sends for each of its models.

    `send` makes the SDK send a call, which shows its headers. `uds` is the path of a Unix socket
    to connect to. `on` False leaves every call to the SDK.
    """

    def __init__(
        self, send: Callable[[Call], Awaitable[object]], *, uds: str | None = None, on: bool = True
    ) -> None:
        self._send = send
        self._client = Client(uds=uds)
        self._uds = uds
        self._on = on
        self._endpoints: dict[str, Endpoint | None] = {}

    def endpoint(self, model: str) -> Endpoint | None:
        """Where the calls of `model` go; None if that is not known yet, or if this way can't make
        them."""
        return self._endpoints.get(model)

    def post(self, endpoint: Endpoint, body: Mapping[str, Any], reader: BodyReader) -> Response:
        """Send `body`. `reader` gets the response, never from within this call."""
        return self._client.post(endpoint, _encode(body), reader)

    async def learn(self, model: str) -> Endpoint | None:
        """Learn what the SDK sends for `model`, unless that was done; returns `endpoint(model)`."""
        if not self._on:
            return None
        if model not in self._endpoints:
            self._endpoints[model] = await self._rehearsed(greeting(model))
        return self._endpoints[model]

    def leave_to_sdk(self, model: str) -> None:
        """Leave every later call of `model` to the SDK."""
        self._endpoints[model] = None

    async def warm(self, model: str) -> None:
        """Learn what the SDK sends for `model` and open a connection, so that the first call saves
        that time. Failures are ignored; the calls will report them."""
        if (ready := await self.learn(model)) is not None:
            with suppress(TransportError):
                await self._client.warm(ready.origin)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self._client.close()

    async def _rehearsed(self, call: Call) -> Endpoint | None:
        """What the SDK sends; None if this way can't send it. The SDK is asked twice: a header
        that changes from request to request can't be learnt."""
        first = await rehearse(lambda: self._send(call))
        second = await rehearse(lambda: self._send(call))
        if first is None or second is None or first.headers != second.headers:
            return None
        try:
            url = str(first.url)
            return endpoint(url, first.headers) if supports(url, uds=self._uds) else None
        except ValueError:
            return None


def greeting(model: str) -> Call:
    """The smallest possible call, used to see what an SDK sends."""
    return Call(model, ChatRequest(provider="", messages=(Turn("user", "Hello"),)), 1)
