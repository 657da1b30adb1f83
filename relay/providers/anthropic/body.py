"""The body of an Anthropic Messages request, built from the house's own words. Pure.

Source: the official SDK's parameter types (`anthropic.types.message_create_params`).
"""

from __future__ import annotations

import re
from typing import Any

from relay.core.provider import Call
from relay.core.request import ContentPart, ImageContent, OfferedTool, Turn
from relay.providers.conversation import OPENING, inline, parts_of, schema, spoken, system_of

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
Block = dict[str, Any]


def request_body(call: Call) -> dict[str, Any]:
    """The body of `POST /v1/messages`. Sampling parameters are never sent: the API version
    that the SDK names refuses them."""
    request = call.request
    body: dict[str, Any] = {
        "model": call.model,
        "max_tokens": call.max_tokens,
        "messages": _turns(spoken(request.messages)),
        "stream": True,
    }
    if system := system_of(request):
        body["system"] = system
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    return body


def _turns(messages: list[Turn]) -> list[dict[str, Any]]:
    """Turns that alternate and begin with the user's. An assistant's turn at the end is a prefill,
    which the vendor refuses if it ends in white space, so that is cut off."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += _blocks(message)
        else:
            turns.append({"role": role, "content": _blocks(message)})
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": OPENING}]})
    if turns and turns[-1]["role"] == "assistant":
        last = turns[-1]["content"][-1]
        if last["type"] == "text":
            last["text"] = last["text"].rstrip()
    return turns


def _blocks(message: Turn) -> list[Block]:
    if message.role == "tool":
        return [_result(message)]
    blocks = [_block(part) for part in _visible(message.content)]
    for call in message.tool_calls:
        use = {"type": "tool_use", "id": _id(call.call_id), "name": call.name}
        blocks.append({**use, "input": call.arguments})
    return blocks


def _visible(content: str | tuple[ContentPart, ...]) -> list[ContentPart]:
    """The parts to send. The vendor refuses a text block of white space alone."""
    return [p for p in parts_of(content) if isinstance(p, ImageContent) or p.text.strip()]


def _result(message: Turn) -> Block:
    result: Block = {"type": "tool_result", "tool_use_id": _id(message.call_id or "")}
    if blocks := [_block(part) for part in _visible(message.content)]:
        result["content"] = blocks
    return result


def _id(call_id: str) -> str:
    """A call's id in the characters that Anthropic allows: another vendor may have made it."""
    return _NOT_IN_IDS.sub("_", call_id)


def _block(part: ContentPart) -> Block:
    if not isinstance(part, ImageContent):
        return {"type": "text", "text": part.text}
    if data := inline(part):
        source = {"type": "base64", "media_type": data.media_type, "data": data.data}
        return {"type": "image", "source": source}
    return {"type": "image", "source": {"type": "url", "url": part.url}}


def _tool(tool: OfferedTool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": schema(tool.parameters)}


def _tool_choice(choice: str) -> dict[str, str]:
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    return {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}
