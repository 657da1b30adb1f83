"""A provider that uses a vendor's own wire and official SDK.

The lean way sends what the SDK would; calls that it can't make go through the SDK. Both read the
raw body, because an SDK's typed events cost thirty times as much as the decoders here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple, Protocol

import httpx2

from relay.core.errors import Fault
from relay.core.provider import Call, Caller, Form, Take, UpstreamCall
from relay.providers.awaited import AwaitedCalls, begin_and_wait
from relay.providers.decoding.decoder import Decoder, pump
from relay.providers.decoding.faults import Reply, refused
from relay.providers.decoding.verdicts import Judge
from relay.providers.http.call import LeanCall
from relay.providers.http.lean import LeanTransport
from relay.providers.http.sdk_client import reply_of, secret_kept, transport_faults


class Wire(NamedTuple):
    """How requests to a vendor are built and its answers read; pure."""

    forms: Callable[[str], tuple[Form, ...]]
    """The ways that a model can continue an unfinished answer, best first; ends in RESTART."""
    body: Callable[[Call], dict[str, Any]]
    """The JSON body of a call's request. Raises `Fault` if the vendor has no way to express it."""
    decoder: Callable[[Call], Decoder]
    """A decoder for the call's answer."""
    judge: Judge
    """Classifies an error of the vendor's."""


class Sender(Protocol):
    """Sends an SDK's requests. It returns each response as it came, even one without success,
    whose body may still have to be read. Raises `Fault`, or httpx2's errors."""

    async def send(self, call: Call, body: dict[str, Any]) -> httpx2.Response:
        """Ask for an answer. The body is not read yet."""
        ...

    async def models(self) -> httpx2.Response:
        """Ask for the list of models."""
        ...

    async def close(self) -> None:
        """Close the SDK's connections."""
        ...


class VendorProvider:
    """A provider whose requests are an SDK's. `secret` is its key, which is removed from error
    messages. `uds` is the path of a Unix socket to connect to; `lean` False sends every request
    through the SDK."""

    def __init__(
        self,
        name: str,
        wire: Wire,
        sender: Sender,
        secret: str | None,
        *,
        uds: str | None = None,
        lean: bool = True,
    ) -> None:
        self.name = name
        self.secret = secret
        self._wire = wire
        self._sender = sender
        self._lean = LeanTransport(
            lambda call: sender.send(call, wire.body(call)), uds=uds, on=lean
        )
        self._awaited = AwaitedCalls()

    def forms(self, model: str) -> tuple[Form, ...]:
        """The ways `model` can continue an unfinished answer."""
        return self._wire.forms(model)

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        """Send the request, at once if it is known what the SDK sends."""
        endpoint = self._lean.endpoint(call.model)
        if endpoint is None:
            return self._awaited.begin(partial(self._learn_then_begin, call), caller)
        try:
            begun = LeanCall(self, call, self._wire.decoder(call), caller)
            begun.carried_by(self._lean.post(endpoint, self._wire.body(call), begun))
        except Exception as error:
            return self._awaited.fail(error, caller)
        return begun

    def classify(self, reply: Reply, call: Call | None) -> Fault:
        """The `Fault` for a response without success. `call` is None for a request that is not
        one."""
        return refused(self._wire.judge, reply, call)

    def call_by_sdk(self, call: Call, caller: Caller) -> UpstreamCall:
        """Make `call` through the SDK, and every later call of its model too."""
        self._lean.leave_to_sdk(call.model)
        return self._awaited.begin(partial(self._ask_sdk, call), caller)

    async def warm(self, model: str) -> None:
        """Learn what the SDK sends for `model` and open a connection."""
        await self._lean.warm(model)

    async def probe(self) -> None:
        """Ask for the list of models. Raises `Fault`."""
        with secret_kept(self.secret), transport_faults():
            response = await self._sender.models()
            try:
                await self._check(response, None)
            finally:
                await response.aclose()

    async def close(self) -> None:
        """Close calls and connections. Idempotent."""
        await self._awaited.close()
        await self._lean.close()
        await self._sender.close()

    async def _learn_then_begin(self, call: Call, take: Take) -> None:
        """Make the first call of a model, or one that the lean way can't make."""
        if await self._lean.learn(call.model) is None:
            await self._ask_sdk(call, take)
        else:
            await begin_and_wait(self, call, take)

    async def _ask_sdk(self, call: Call, take: Take) -> None:
        decoder = self._wire.decoder(call)
        with secret_kept(self.secret), transport_faults(decoder):
            response = await self._sender.send(call, self._wire.body(call))
            try:
                await self._check(response, call)
                async with aclosing(response.aiter_bytes()) as chunks:
                    await pump(chunks, decoder, take)
            finally:
                await response.aclose()

    async def _check(self, response: httpx2.Response, call: Call | None) -> None:
        if not response.is_success:
            await response.aread()
            raise self.classify(reply_of(response), call)
