"""Conversations in the shape that strict vendors accept.

Anthropic and Gemini want the system prompt separate, no empty turns, and a user's turn first. What
both need is done here; what is specific to one is in its `body` module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.core.request import ChatRequest, ContentPart, ImageContent, TextContent, Turn, text_of

OPENING = "…"
"""The user's turn that is put before a conversation which begins with the assistant's."""


class Inline(NamedTuple):
    """An image as base64, with its media type."""

    media_type: str
    data: str


def parts_of(content: str | tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    """A message's content as parts, empty texts left out."""
    parts = (TextContent(content),) if isinstance(content, str) else content
    return tuple(part for part in parts if not isinstance(part, TextContent) or part.text)


def system_of(request: ChatRequest) -> str:
    """The request's system prompt and every system message, separated by blank lines."""
    texts = [request.system or ""]
    texts += [text_of(m.content) for m in request.messages if m.role == "system"]
    return "\n\n".join(text for text in texts if text.strip())


def spoken(messages: Sequence[Turn]) -> list[Turn]:
    """The turns that have content, without system messages."""
    return [m for m in messages if m.role != "system" and _says_something(m)]


def _says_something(message: Turn) -> bool:
    if message.role == "tool" or message.tool_calls:
        return True
    parts = parts_of(message.content)
    return any(isinstance(part, ImageContent) or part.text.strip() for part in parts)


def inline(image: ImageContent) -> Inline | None:
    """The image's bytes in base64, from its `data` or a `data:` URL (RFC 2397); None if the image
    is a URL that has to be fetched."""
    if image.data is not None:
        return Inline(image.media_type, image.data)
    head, comma, data = (image.url or "").partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    return Inline(head[5:-7].partition(";")[0] or image.media_type, data)


def schema(parameters: dict[str, object]) -> dict[str, object]:
    """A tool's parameters as the JSON Schema object that every vendor requires."""
    return {"type": "object", "properties": {}} | parameters
