"""Claude, by the official SDK's requests, with the body read raw.

The lean transport sends what the SDK would; where it cannot, the SDK does.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

from anthropic import APIConnectionError, APIStatusError, AsyncAnthropic

from relay.provider import Call, Caller, Form, Sink, Upstream
from relay.providers.anthropic_request import request_body
from relay.providers.anthropic_wire import AnthropicDecoder, classify
from relay.providers.decoding import pump
from relay.providers.families import family
from relay.providers.http import http_client, reply_of, secret_kept, transport_faults
from relay.providers.lean import LeanTransport, greeting

BASE_URL = "https://api.anthropic.com"


class AnthropicProvider:
    """Anthropic's Messages API."""

    def __init__(self, name: str, client: AsyncAnthropic, lean: LeanTransport) -> None:
        self.name = name
        self._client = client
        self._lean = lean

    def forms(self, model: str) -> tuple[Form, ...]:
        """See `Provider.forms`."""
        return family("anthropic", model).forms

    def begin(self, call: Call, caller: Caller) -> Upstream | None:
        """See `Direct.begin`."""
        return self._lean.begin(call, partial(request_body, call), AnthropicDecoder(), caller)

    async def run(self, call: Call, sink: Sink) -> None:
        """See `Provider.run`."""
        body = partial(request_body, call)
        decoder = AnthropicDecoder()
        if await self._lean.run(call, body, self._sending(body), decoder, sink):
            return
        key = self._client.api_key
        with secret_kept(key), transport_faults(decoder, APIConnectionError), _status_faults(call):
            async with self._opening(body()) as response, aclosing(response.iter_bytes()) as chunks:
                await pump(chunks, decoder, sink)

    async def warm(self, model: str) -> None:
        """Make ready for the first call of `model`. Costs nothing, raises nothing."""
        await self._lean.warm(model, self._sending(partial(request_body, greeting(model))))

    def _opening(self, body: dict[str, Any]) -> Any:
        return self._client.messages.with_streaming_response.create(**body)

    def _sending(self, body: Callable[[], dict[str, Any]]) -> Callable[[], Awaitable[object]]:
        return lambda: self._opening(body()).__aenter__()

    async def probe(self) -> None:
        """See `Provider.probe`."""
        key = self._client.api_key
        with secret_kept(key), transport_faults(None, APIConnectionError), _status_faults(None):
            await self._client.models.with_raw_response.list()

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._lean.close()
        await self._client.close()


@contextmanager
def _status_faults(call: Call | None) -> Iterator[None]:
    try:
        yield
    except APIStatusError as error:
        raise classify(reply_of(error.response), call) from None


def anthropic(
    name: str, api_key: str, base_url: str | None, uds: str | None, *, lean: bool = True
) -> AnthropicProvider:
    """Claude models. The key is passed explicitly, so that the SDK searches neither the
    environment nor profile files for one."""
    warnings.filterwarnings("ignore", "The model .* is deprecated", DeprecationWarning)
    client = AsyncAnthropic(
        api_key=api_key,
        base_url=base_url or BASE_URL,
        max_retries=0,
        http_client=http_client(uds),
    )
    transport = LeanTransport(classify, api_key, uds=uds, on=lean)
    return AnthropicProvider(name, client, transport)
