"""The body of a chat.completions request, built from the house's own words. Pure.

Source: the official SDK's parameter types (`openai.types.chat.completion_create_params`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from relay.core.provider import Call
from relay.core.request import ContentPart, ImageContent, OfferedTool, Turn, text_of
from relay.providers.conversation import inline, parts_of, schema
from relay.providers.families import Family, family


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one server uses OpenAI's wire.

    `vendor` selects the capability rows. `official`: this is OpenAI itself, which knows
    `include_obfuscation` and the `developer` role. `include_usage` False leaves `stream_options`
    out, for servers that refuse it.
    """

    vendor: Literal["openai", "compatible"] = "compatible"
    official: bool = False
    max_tokens_field: str = "max_tokens"
    include_usage: bool = True


COMPATIBLE = Dialect()
BEHIND_A_GATEWAY = Dialect(vendor="openai", max_tokens_field="max_completion_tokens")
OPENAI = Dialect(vendor="openai", official=True, max_tokens_field="max_completion_tokens")


def request_body(call: Call, dialect: Dialect) -> dict[str, Any]:
    """The body of `POST /chat/completions`. Sampling parameters are never sent: models
    that reason refuse them."""
    request = call.request
    row = family(dialect.vendor, call.model)
    role = "developer" if dialect.official and row.developer else "system"
    messages = [{"role": role, "content": request.system}] if request.system else []
    messages += [_message(m, role) for m in request.messages]
    body: dict[str, Any] = {
        "model": call.model,
        "messages": messages,
        "stream": True,
        dialect.max_tokens_field: call.max_tokens,
    }
    if options := _stream_options(dialect):
        body["stream_options"] = options
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if effort := _effort(row, bool(request.tools)):
        body["reasoning_effort"] = effort
    return body


def _stream_options(dialect: Dialect) -> dict[str, bool]:
    options: dict[str, bool] = {}
    if dialect.include_usage:
        options["include_usage"] = True
    if dialect.official:
        options["include_obfuscation"] = False
    return options


def _effort(row: Family, tools: bool) -> str:
    return row.effort_with_tools if tools else row.effort


def _tool(tool: OfferedTool) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": schema(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(choice: str) -> str | dict[str, Any]:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _message(message: Turn, system_role: str) -> dict[str, Any]:
    match message.role:
        case "user":
            return {"role": "user", "content": _content(message.content)}
        case "system":
            return {"role": system_role, "content": text_of(message.content)}
        case "tool":
            text = text_of(message.content)
            return {"role": "tool", "tool_call_id": message.call_id or "", "content": text}
        case "assistant":
            return _assistant(message)


def _assistant(message: Turn) -> dict[str, Any]:
    text = text_of(message.content)
    if not message.tool_calls:
        return {"role": "assistant", "content": text}
    calls = [
        {
            "id": call.call_id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": msgspec.json.encode(call.arguments).decode(),
            },
        }
        for call in message.tool_calls
    ]
    return {"role": "assistant", "content": text or None, "tool_calls": calls}


def _content(content: str | tuple[ContentPart, ...]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts = parts_of(content)
    if not any(isinstance(part, ImageContent) for part in parts):
        return text_of(content)
    return [_part(part) for part in parts]


def _part(part: ContentPart) -> dict[str, Any]:
    if not isinstance(part, ImageContent):
        return {"type": "text", "text": part.text}
    data = inline(part)
    url = f"data:{data.media_type};base64,{data.data}" if data else part.url
    return {"type": "image_url", "image_url": {"url": url}}
