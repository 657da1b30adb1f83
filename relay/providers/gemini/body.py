"""The body of a Gemini generateContent request, built from the house's own words. Pure.

Source: the official SDK's types and converters (`google.genai.types`, `models`).
"""

from __future__ import annotations

from typing import Any

from relay.core.events import ToolCall
from relay.core.provider import Call
from relay.core.request import ContentPart, ImageContent, OfferedTool, Turn, text_of
from relay.providers.conversation import OPENING, inline, parts_of, schema, spoken, system_of
from relay.providers.families import family

STATE_TAG = "gemini:"
"""Prefix of this vendor's `ToolCall.state`, so that no other vendor's state is taken for it."""

UNSIGNED = "skip_thought_signature_validator"
"""Sent in place of the thought signature of a call that another model made, or whose signature is
lost; Gemini 3 and later refuse a call without one. Source:
https://ai.google.dev/gemini-api/docs/thought-signatures"""

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def request_body(call: Call) -> dict[str, Any]:
    """The body of `POST /{version}/models/{model}:streamGenerateContent`. Sampling
    parameters are never sent: the vendor advises against them from 3.5 on."""
    request = call.request
    names = {c.call_id: c.name for m in request.messages for c in m.tool_calls}
    signed = family("gemini", call.model).signed_calls
    body: dict[str, Any] = {
        "contents": _contents(spoken(request.messages), names, signed),
        "generationConfig": {"maxOutputTokens": call.max_tokens},
    }
    if system := system_of(request):
        body["systemInstruction"] = {"parts": [{"text": system}]}
    if request.stop:
        body["generationConfig"]["stopSequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]
        body["toolConfig"] = {"functionCallingConfig": _tool_choice(request.tool_choice)}
    return body


def path(model: str) -> str:
    """The path of the streaming call, without the API version."""
    named = model if "/" in model else f"models/{model}"
    return f"{named}:streamGenerateContent?alt=sse"


def api_version(model: str) -> str | None:
    """The API version that `model` needs, None for the SDK's own. Only `v1beta` knows the
    `-latest` aliases."""
    return "v1beta" if model.endswith("-latest") else None


def _contents(messages: list[Turn], names: dict[str, str], signed: bool) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    for message in messages:
        role = "model" if message.role == "assistant" else "user"
        parts = _parts(message, names, signed)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    if contents and contents[0]["role"] == "model":
        contents.insert(0, {"role": "user", "parts": [{"text": OPENING}]})
    return contents


def _parts(message: Turn, names: dict[str, str], signed: bool) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [_response(message, names)]
    parts = [_part(part) for part in parts_of(message.content)]
    for place, call in enumerate(message.tool_calls):
        parts.append(_call(call, UNSIGNED if signed and place == 0 else None))
    return parts


def _call(call: ToolCall, stand_in: str | None) -> dict[str, Any]:
    function = {"id": call.call_id, "name": call.name, "args": call.arguments}
    part: dict[str, Any] = {"functionCall": function}
    own = call.state is not None and call.state.startswith(STATE_TAG)
    signature = call.state.removeprefix(STATE_TAG) if call.state and own else stand_in
    if signature:
        part["thoughtSignature"] = signature
    return part


def _response(message: Turn, names: dict[str, str]) -> dict[str, Any]:
    call_id = message.call_id or ""
    response = {"id": call_id, "name": names.get(call_id, call_id)}
    return {"functionResponse": {**response, "response": {"result": text_of(message.content)}}}


def _part(part: ContentPart) -> dict[str, Any]:
    if not isinstance(part, ImageContent):
        return {"text": part.text}
    if data := inline(part):
        return {"inlineData": {"mimeType": data.media_type, "data": data.data}}
    return {"fileData": {"mimeType": part.media_type, "fileUri": part.url}}


def _tool(tool: OfferedTool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parametersJsonSchema": schema(tool.parameters)}


def _tool_choice(choice: str) -> dict[str, Any]:
    if choice in _MODES:
        return {"mode": _MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice]}
