"""Gemini, through the official SDK.

The SDK has no public method that gives the raw body. Its own request code (address, headers, key)
is called one level below the public method, which would validate every chunk with pydantic.
"""

from __future__ import annotations

import warnings
from typing import Any
from uuid import uuid4

import httpx2
from google import genai
from google.genai import errors
from google.genai.types import HttpOptions, HttpRetryOptions

from relay.core.errors import Code, Fault
from relay.core.provider import Call
from relay.providers.families import family
from relay.providers.gemini.body import api_version, path, request_body
from relay.providers.gemini.decoder import GeminiDecoder, judge
from relay.providers.http.sdk_client import http_client
from relay.providers.vendor import VendorProvider, Wire

BASE_URL = "https://generativelanguage.googleapis.com"

WIRE = Wire(
    forms=lambda model: family("gemini", model).forms,
    body=request_body,
    decoder=lambda call: GeminiDecoder(f"call-{uuid4().hex[:12]}"),
    judge=judge,
)


class GeminiSender:
    """Sends requests through the SDK's own client. It does not close `http`, the HTTP client that
    it was given."""

    def __init__(self, client: genai.Client, http: httpx2.AsyncClient) -> None:
        self._sdk: Any = client._api_client
        self._http = http

    async def send(self, call: Call, body: dict[str, Any]) -> httpx2.Response:
        """Ask for an answer."""
        version = api_version(call.model)
        options = HttpOptions(api_version=version) if version else None
        return await self._raw("post", path(call.model), body, options)

    async def models(self) -> httpx2.Response:
        """Ask for the list of models."""
        response = await self._raw("get", "models?pageSize=1", {}, None)
        await response.aread()
        return response

    async def close(self) -> None:
        """Close the SDK's connections."""
        await self._http.aclose()

    async def _raw(
        self, method: str, path: str, body: dict[str, Any], options: HttpOptions | None
    ) -> httpx2.Response:
        try:
            request = self._sdk._build_request(method, path, body, options)
            answered = await self._sdk._async_request(request, options, True)
            response: httpx2.Response = answered.response_stream
        except errors.APIError as error:
            if not isinstance(error.response, httpx2.Response):
                raise Fault(Code.PROVIDER_ERROR, "the provider failed") from None
            response = error.response  # a refusal, or a status 2xx other than 200
        return response


def gemini(
    name: str, api_key: str, base_url: str | None, uds: str | None, *, lean: bool = True
) -> VendorProvider:
    """Gemini models. An HTTP client is passed so that the SDK does not choose aiohttp, which
    limits the total time of a call and retries connection errors by itself."""
    warnings.filterwarnings("ignore", module="google.genai")
    http = http_client(uds)
    options = HttpOptions(
        base_url=base_url or BASE_URL,
        retry_options=HttpRetryOptions(attempts=1),
        httpx_async_client=http,
    )
    client = genai.Client(api_key=api_key, vertexai=False, http_options=options)
    return VendorProvider(name, WIRE, GeminiSender(client, http), api_key, uds=uds, lean=lean)
