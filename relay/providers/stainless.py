"""Sends through the SDKs that the Stainless generator writes: OpenAI's and Anthropic's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from relay.core.provider import Call
from relay.providers.http.sdk_client import transport_fault


class StainlessSender:
    """One SDK's client. `create` is the SDK's method that asks for an answer and leaves the
    response to be streamed; `sdk` is the SDK's module, which has its error classes."""

    def __init__(self, client: Any, create: Callable[..., Any], sdk: Any) -> None:
        self._client = client
        self._create = create
        self._refused: type[Exception] = sdk.APIStatusError
        self._broken: type[Exception] = sdk.APIConnectionError

    async def send(self, call: Call, body: dict[str, Any]) -> httpx2.Response:
        """Ask for an answer."""
        return await self._raw(self._create(**body).__aenter__())

    async def models(self) -> httpx2.Response:
        """Ask for the list of models."""
        return await self._raw(self._client.models.with_raw_response.list())

    async def close(self) -> None:
        """Close the SDK's connections."""
        await self._client.close()

    async def _raw(self, asking: Awaitable[Any]) -> httpx2.Response:
        try:
            response: httpx2.Response = (await asking).http_response
        except self._refused as refusal:
            response = refusal.response  # type: ignore[attr-defined]
        except self._broken as error:
            raise transport_fault(error.__cause__) from None
        return response
