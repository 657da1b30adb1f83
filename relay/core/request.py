"""The request that every edge decodes to, independent of any vendor's format."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from relay.core.events import ToolCall

Role = Literal["user", "assistant", "tool", "system"]


class TextContent(Struct, frozen=True, tag="text"):
    """A piece of written content."""

    text: str


class ImageContent(Struct, frozen=True, tag="image", omit_defaults=True):
    """An image: base64 `data` or a `url`, exactly one of them. `media_type` as in RFC 6838."""

    media_type: str
    data: str | None = None
    url: str | None = None


ContentPart: TypeAlias = TextContent | ImageContent


class Turn(Struct, frozen=True, omit_defaults=True):
    """One turn. `tool_calls` only on assistant turns; `call_id` only on tool turns."""

    role: Role
    content: str | tuple[ContentPart, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


class OfferedTool(Struct, frozen=True, omit_defaults=True):
    """A function that the client offers. `parameters` is a JSON Schema object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class ChatRequest(Struct, frozen=True, omit_defaults=True):
    """One chat, as the dispatcher takes it.

    `provider` is the provider or route that the client asked for, empty for the default; once
    `apply_route` has run it is the name of the route.
    `can_unsay` is fixed by the edge that starts the stream: whether text shown to its
    readers may be taken back by a `fallback` with `keep: false`.
    """

    provider: str
    messages: tuple[Turn, ...]
    system: str | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[OfferedTool, ...] = ()
    tool_choice: str = "auto"
    conversation: str | None = None
    fallback: bool = True
    can_unsay: bool = True

    def fingerprint(self) -> str:
        """A digest of the whole content: two chats of one id are the same chat only when
        these agree."""
        content = msgspec.json.encode(self, order="sorted")
        return hashlib.blake2b(content, digest_size=32).hexdigest()


def text_of(content: str | tuple[ContentPart, ...]) -> str:
    """The text of a message's content, images left out."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextContent))


def estimate_input_characters(request: ChatRequest) -> int:
    """Characters that a request sends upstream, for estimated usage."""
    return len(request.system or "") + sum([len(text_of(m.content)) for m in request.messages])
