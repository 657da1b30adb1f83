"""Gemini, by the official SDK's requests, with the body read raw.

The lean transport sends what the SDK would; where it cannot, the SDK does.

The SDK has no public way to the raw body. Its own request path (address, headers, key) is
used one step below the public method, which would validate every chunk with pydantic.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

import httpx2
from google import genai
from google.genai import errors
from google.genai.types import HttpOptions, HttpRetryOptions

from relay.errors import Code, Fault
from relay.provider import Call, Caller, Form, Sink, Upstream
from relay.providers.decoding import pump
from relay.providers.families import family
from relay.providers.gemini_request import api_version, path, request_body
from relay.providers.gemini_wire import GeminiDecoder, classify
from relay.providers.http import http_client, reply_of, secret_kept, transport_faults
from relay.providers.lean import LeanTransport, greeting

BASE_URL = "https://generativelanguage.googleapis.com"


class GeminiProvider:
    """Google's Gemini Developer API."""

    def __init__(
        self, name: str, client: genai.Client, http: httpx2.AsyncClient, lean: LeanTransport
    ) -> None:
        self.name = name
        self._client = client
        self._http = http
        self._lean = lean

    def forms(self, model: str) -> tuple[Form, ...]:
        """See `Provider.forms`."""
        return family("gemini", model).forms

    def begin(self, call: Call, caller: Caller) -> Upstream | None:
        """See `Direct.begin`."""
        return self._lean.begin(call, partial(request_body, call), _decoder(), caller)

    async def run(self, call: Call, sink: Sink) -> None:
        """See `Provider.run`."""
        body, send, decoder = partial(request_body, call), self._sending(call), _decoder()
        if await self._lean.run(call, body, send, decoder, sink):
            return
        with secret_kept(self._client._api_client.api_key), transport_faults(decoder):
            response = await send()
            try:
                await pump(response.aiter_bytes(), decoder, sink)
            finally:
                await response.aclose()

    async def warm(self, model: str) -> None:
        """Make ready for the first call of `model`. Costs nothing, raises nothing."""
        await self._lean.warm(model, self._sending(greeting(model)))

    def _sending(self, call: Call) -> Callable[[], Awaitable[Any]]:
        return lambda: self._send("post", path(call.model), request_body(call), call, True)

    async def probe(self) -> None:
        """See `Provider.probe`."""
        with secret_kept(self._client._api_client.api_key), transport_faults():
            await self._send("get", "models?pageSize=1", {}, None, False)

    async def _send(
        self, method: str, path: str, body: dict[str, Any], call: Call | None, stream: bool
    ) -> Any:
        """One request by the SDK's own means; the response whose body is still to be read."""
        sdk: Any = self._client._api_client
        version = api_version(call.model) if call else None
        options = HttpOptions(api_version=version) if version else None
        try:
            request = sdk._build_request(method, path, body, options)
            return (await sdk._async_request(request, options, stream)).response_stream
        except errors.APIError as error:
            if not isinstance(error.response, httpx2.Response):
                raise Fault(Code.PROVIDER_ERROR, "the provider failed") from None
            if error.response.is_success:
                return error.response  # the SDK takes no success but 200
            raise classify(reply_of(error.response), call) from None

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._lean.close()
        await self._http.aclose()


def _decoder() -> GeminiDecoder:
    return GeminiDecoder(f"call-{uuid4().hex[:12]}")


def gemini(
    name: str, api_key: str, base_url: str | None, uds: str | None, *, lean: bool = True
) -> GeminiProvider:
    """Gemini models. An HTTP client is passed so that the SDK does not choose aiohttp, whose
    timeout is a total one and whose connection errors it retries by itself."""
    warnings.filterwarnings("ignore", module="google.genai")
    http = http_client(uds)
    options = HttpOptions(
        base_url=base_url or BASE_URL,
        retry_options=HttpRetryOptions(attempts=1),
        httpx_async_client=http,
    )
    client = genai.Client(api_key=api_key, vertexai=False, http_options=options)
    transport = LeanTransport(classify, api_key, uds=uds, on=lean)
    return GeminiProvider(name, client, http, transport)
