"""OpenAI and every server that speaks its chat.completions wire, through the official SDK.

The lean transport sends what the SDK would; where it cannot, the SDK does. Either way the
body is read raw, because typed events cost thirty times what the decoder here does.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from openai import APIConnectionError, APIStatusError, AsyncOpenAI, Omit

from relay.provider import Call, Caller, Form, Sink, Upstream
from relay.providers.decoding import pump
from relay.providers.families import ASKED_TO, CONTINUES, family
from relay.providers.http import http_client, reply_of, secret_kept, transport_faults
from relay.providers.lean import LeanTransport, greeting
from relay.providers.openai_request import (
    BEHIND_A_GATEWAY,
    COMPATIBLE,
    OPENAI,
    Dialect,
    request_body,
)
from relay.providers.openai_wire import OpenAIDecoder, classify

BASE_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent where a compatible server needs no key, so that the SDK never looks for one of
OpenAI's in the environment."""


class OpenAIProvider:
    """One server of the common wire. `prefill` True: its models truly go on with an
    unfinished assistant turn, as llama.cpp's do."""

    def __init__(
        self,
        name: str,
        client: AsyncOpenAI,
        dialect: Dialect,
        lean: LeanTransport,
        *,
        prefill: bool = False,
    ) -> None:
        self.name = name
        self._client = client
        self._lean = lean
        self._dialect = dialect
        self._prefill = prefill

    def forms(self, model: str) -> tuple[Form, ...]:
        """See `Provider.forms`."""
        if self._dialect.vendor == "compatible":
            return CONTINUES if self._prefill else ASKED_TO
        return family(self._dialect.vendor, model).forms

    def begin(self, call: Call, caller: Caller) -> Upstream | None:
        """See `Direct.begin`."""
        body = partial(request_body, call, self._dialect)
        return self._lean.begin(call, body, _decoder(call), caller)

    async def run(self, call: Call, sink: Sink) -> None:
        """See `Provider.run`."""
        body = partial(request_body, call, self._dialect)
        decoder = _decoder(call)
        if await self._lean.run(call, body, self._sending(body), decoder, sink):
            return
        key = self._client.api_key
        with secret_kept(key), transport_faults(decoder, APIConnectionError), _status_faults(call):
            async with self._opening(body()) as response, aclosing(response.iter_bytes()) as chunks:
                await pump(chunks, decoder, sink)

    async def warm(self, model: str) -> None:
        """Make ready for the first call of `model`. Costs nothing, raises nothing."""
        body = partial(request_body, greeting(model), self._dialect)
        await self._lean.warm(model, self._sending(body))

    def _opening(self, body: dict[str, Any]) -> Any:
        return self._client.chat.completions.with_streaming_response.create(**body)

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


def _decoder(call: Call) -> OpenAIDecoder:
    return OpenAIDecoder(frozenset(tool.name for tool in call.request.tools))


@contextmanager
def _status_faults(call: Call | None) -> Iterator[None]:
    try:
        yield
    except APIStatusError as error:
        raise classify(reply_of(error.response), call) from None


def openai(
    name: str, api_key: str, base_url: str | None, uds: str | None, *, lean: bool = True
) -> OpenAIProvider:
    """GPT models, at OpenAI or behind a gateway that serves them at `base_url`."""
    url = base_url or BASE_URL
    client = AsyncOpenAI(api_key=api_key, base_url=url, max_retries=0, http_client=http_client(uds))
    host = urlsplit(url).hostname or ""
    official = host == "openai.com" or host.endswith(".openai.com")
    dialect = OPENAI if official else BEHIND_A_GATEWAY
    transport = LeanTransport(classify, api_key, uds=uds, on=lean)
    return OpenAIProvider(name, client, dialect, transport)


def compatible(
    name: str,
    api_key: str | None,
    base_url: str,
    uds: str | None = None,
    *,
    lean: bool = True,
    dialect: Dialect = COMPATIBLE,
    prefill: bool = False,
) -> OpenAIProvider:
    """Another vendor's or one's own server. Nothing that belongs to OpenAI is sent to it:
    neither key, organisation and project, nor the headers that the SDK takes from the
    environment."""
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
    transport = LeanTransport(classify, api_key, uds=uds, on=lean)
    return OpenAIProvider(name, client, dialect, transport, prefill=prefill)


def _without_openais() -> dict[str, Omit]:
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    names += ["OpenAI-Organization", "OpenAI-Project"]
    return {name: Omit() for name in names}
