"""Claude, through the official SDK."""

from __future__ import annotations

import warnings

import anthropic as sdk
from anthropic import AsyncAnthropic

from relay.providers.anthropic.body import request_body
from relay.providers.anthropic.decoder import AnthropicDecoder, judge
from relay.providers.families import family
from relay.providers.http.sdk_client import http_client
from relay.providers.stainless import StainlessSender
from relay.providers.vendor import VendorProvider, Wire

BASE_URL = "https://api.anthropic.com"

WIRE = Wire(
    forms=lambda model: family("anthropic", model).forms,
    body=request_body,
    decoder=lambda call: AnthropicDecoder(),
    judge=judge,
)


def anthropic(
    name: str, api_key: str, base_url: str | None, uds: str | None, *, lean: bool = True
) -> VendorProvider:
    """Claude models. The key is passed explicitly, so that the SDK does not look for one in the
    environment or in profile files."""
    warnings.filterwarnings("ignore", "The model .* is deprecated", DeprecationWarning)
    client = AsyncAnthropic(
        api_key=api_key,
        base_url=base_url or BASE_URL,
        max_retries=0,
        http_client=http_client(uds),
    )
    sender = StainlessSender(client, client.messages.with_streaming_response.create, sdk)
    return VendorProvider(name, WIRE, sender, api_key, uds=uds, lean=lean)
