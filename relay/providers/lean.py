"""The short way to an upstream: the SDK's request, sent and read without the SDK.

The SDK is asked once for each model what it would send: address, authentication, version
and client headers are its own. From then on only the body changes, and it is built by the
same functions that feed the SDK. What this way cannot do is left to the SDK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from relay.errors import Fault
from relay.events import Event
from relay.provider import Call, Caller, NotDirect, Sink
from relay.providers.answer import Answer
from relay.providers.decoding import Decoder
from relay.providers.exchange import Response
from relay.providers.faults import Reply
from relay.providers.http import rehearse
from relay.providers.http1 import Endpoint, TransportError, endpoint, supports
from relay.providers.transport import Client
from relay.request import ChatRequest, Message

_encode = msgspec.json.Encoder().encode


class LeanTransport:
    """One provider's connections, and what its SDK sends to each of its models.

    `classify` makes the `Fault` of a refusal; the provider's key, `secret`, is kept out of
    its words. `uds` is the path of a Unix socket to connect to. `on` False leaves every
    call to the SDK.
    """

    def __init__(
        self,
        classify: Callable[[Reply, Call | None], Fault],
        secret: str | None,
        *,
        uds: str | None = None,
        on: bool = True,
    ) -> None:
        self.secret = secret
        self._classify = classify
        self._client = Client(uds=uds)
        self._uds = uds
        self._on = on
        self._endpoints: dict[str, Endpoint | None] = {}

    def begin(
        self,
        call: Call,
        body: Callable[[], Mapping[str, Any]],
        decoder: Decoder,
        caller: Caller,
    ) -> Response | None:
        """Make one call, as `Direct.begin` does; None where it is not known yet what the SDK
        sends, or this way cannot send it. `body` makes what is sent, which nobody keeps
        while the answer streams."""
        ready = self._endpoints.get(call.model)
        if ready is None:
            return None
        answer = Answer(self, call, decoder, caller)
        return self._client.post(ready, _encode(body()), answer)

    async def run(
        self,
        call: Call,
        body: Callable[[], Mapping[str, Any]],
        send: Callable[[], Awaitable[object]],
        decoder: Decoder,
        sink: Sink,
    ) -> bool:
        """Make one call; False where it has to be made through the SDK, nothing having
        been decoded. `send` has the SDK send it: that is how its headers are learnt.

        Raises `Fault` for everything that the upstream did wrong. Cancelling closes the
        connection at once.
        """
        await self._endpoint(call.model, send)
        waiting = _Waiting(sink)
        response = self.begin(call, body, decoder, waiting)
        if response is None:
            return False
        try:
            await waiting.over
        except NotDirect:
            return False
        finally:
            response.close()
        return True

    def classify(self, reply: Reply, call: Call | None) -> Fault:
        """See `Vendor.classify`."""
        return self._classify(reply, call)

    def stand_aside(self, model: str) -> None:
        """Leave the calls of `model` to the SDK from here on."""
        self._endpoints[model] = None

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


class _Waiting:
    """A caller that awaits: `over` is done when its call is."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, events: Sequence[Event]) -> None:
        self._sink(events)

    def ended(self, error: BaseException | None) -> None:
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)


def greeting(model: str) -> Call:
    """The smallest call there is, to see what an SDK makes of it."""
    return Call(model, ChatRequest(provider="", messages=(Message("user", "Hello"),)), 1)
