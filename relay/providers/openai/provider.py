"""OpenAI and every server that speaks its chat.completions wire, through the official SDK."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import openai as sdk
from openai import AsyncOpenAI, Omit

from relay.core.provider import Call, Form
from relay.providers.families import ASKED_TO, CONTINUES, family
from relay.providers.http.sdk_client import http_client
from relay.providers.openai.body import (
    BEHIND_A_GATEWAY,
    COMPATIBLE,
    OPENAI,
    Dialect,
    request_body,
)
from relay.providers.openai.decoder import OpenAIDecoder, judge
from relay.providers.stainless import StainlessSender
from relay.providers.vendor import VendorProvider, Wire

BASE_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""The key for a compatible server that needs none, so that the SDK never takes OpenAI's from the
environment."""


def wire_of(dialect: Dialect, *, prefill: bool = False) -> Wire:
    """The wire as servers of `dialect` use it. `prefill`: the models of a compatible server really
    continue an unfinished assistant turn, as llama.cpp's do."""

    def forms(model: str) -> tuple[Form, ...]:
        if dialect.vendor == "compatible":
            return CONTINUES if prefill else ASKED_TO
        return family(dialect.vendor, model).forms

    return Wire(forms, lambda call: request_body(call, dialect), _decoder, judge)


def _decoder(call: Call) -> OpenAIDecoder:
    return OpenAIDecoder(frozenset(tool.name for tool in call.request.tools))


def _sender(client: AsyncOpenAI) -> StainlessSender:
    return StainlessSender(client, client.chat.completions.with_streaming_response.create, sdk)


def openai(
    name: str, api_key: str, base_url: str | None, uds: str | None, *, lean: bool = True
) -> VendorProvider:
    """GPT models, at OpenAI or behind a gateway that serves them at `base_url`."""
    url = base_url or BASE_URL
    client = AsyncOpenAI(api_key=api_key, base_url=url, max_retries=0, http_client=http_client(uds))
    host = urlsplit(url).hostname or ""
    official = host == "openai.com" or host.endswith(".openai.com")
    dialect = OPENAI if official else BEHIND_A_GATEWAY
    return VendorProvider(name, wire_of(dialect), _sender(client), api_key, uds=uds, lean=lean)


def compatible(
    name: str,
    api_key: str | None,
    base_url: str,
    uds: str | None = None,
    *,
    lean: bool = True,
    prefill: bool = False,
) -> VendorProvider:
    """A compatible server of another vendor or of the operator. Nothing that belongs to OpenAI is
    sent to it: no key, organisation, project or header that the SDK takes from the environment."""
    client = AsyncOpenAI(
        api_key=api_key or NO_KEY,
        admin_api_key="",
        organization="",
        project="",
        webhook_secret="",
        base_url=base_url,
        max_retries=0,
        default_headers=_without_openais(),  # type: ignore[arg-type]
        http_client=http_client(uds),
    )
    wire = wire_of(COMPATIBLE, prefill=prefill)
    return VendorProvider(name, wire, _sender(client), api_key, uds=uds, lean=lean)


def _without_openais() -> dict[str, Omit]:
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    names += ["OpenAI-Organization", "OpenAI-Project"]
    return {name: Omit() for name in names}
