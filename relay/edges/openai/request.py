"""Reads the body of OpenAI's `POST /v1/chat/completions` as a chat.

Fields follow the API reference of 2026 ("Create chat completion"). Fields that only tune the
sampling are ignored, as current models ignore them. A field that asks for an answer of a form that
the relay does not offer is refused by name.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from relay.core.errors import Code
from relay.core.request import ChatRequest, Turn
from relay.edges.http import HttpError
from relay.protocol.chat import IMAGE_TYPE, MAX_OUTPUT, ChatFields, to_request
from relay.protocol.codec import MAX_DEPTH, explain
from relay.protocol.plainchat import MAX_PLAIN_CHARS

DEFAULT_IMAGE_TYPE = "image/jpeg"
"""The media type of an image whose URL does not state it."""

_DATA_URL = re.compile(rf"data:({IMAGE_TYPE})(?:;[^,;]*)*;base64,(.*)", re.DOTALL)

_PLACE = re.compile(r"[\w.\[\]]+")

Fields: TypeAlias = dict[str, Any]


class InvalidRequest(HttpError):
    """A wrong field. OpenAI answers 400 and names the field in `param`."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(400, Code.BAD_REQUEST, message)
        self.param = param


class OpenAIImageUrl(Struct):
    """Where an image is: an address or a data URL."""

    url: str


class OpenAIPart(Struct):
    """One part of a message's content."""

    type: str
    text: str | None = None
    image_url: OpenAIImageUrl | None = None
    refusal: str | None = None


class OpenAICalledFunction(Struct):
    """The function that an assistant's turn called. `arguments` is JSON in a string."""

    name: str
    arguments: str = ""


class OpenAICalled(Struct):
    """One call of an assistant's turn. `extra_content` carries a Gemini signature, as in Google's
    own OpenAI-compatible API."""

    id: str
    function: OpenAICalledFunction
    type: str = "function"
    extra_content: dict[str, Any] | None = None


class OpenAITurn(Struct):
    """One message."""

    role: str
    content: str | list[OpenAIPart] | None = None
    tool_calls: list[OpenAICalled] | None = None
    tool_call_id: str | None = None


class OpenAIFunction(Struct):
    """A function that is offered."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class OpenAIOfferedTool(Struct):
    """A tool that is offered. Only functions can be offered here."""

    type: str
    function: OpenAIFunction | None = None


class OpenAIChosenFunction(Struct):
    """The name of a function that has to be called."""

    name: str


class OpenAIChoice(Struct):
    """A tool choice given as an object."""

    type: str
    function: OpenAIChosenFunction | None = None


class OpenAIStreamOptions(Struct):
    """What a streamed answer contains in addition to its text."""

    include_usage: bool | None = None


class OpenAIResponseFormat(Struct):
    """The format that the text of the answer must have."""

    type: str


class OpenAIBody(Struct):
    """The fields that are read; any other is ignored."""

    model: str
    messages: list[OpenAITurn]
    stream: bool | None = None
    stream_options: OpenAIStreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    tools: list[OpenAIOfferedTool] | None = None
    tool_choice: str | OpenAIChoice | None = None
    n: int | None = None
    response_format: OpenAIResponseFormat | None = None
    modalities: list[str] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a streamed answer ends in a chunk with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


_PLAIN_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}

_decode = msgspec.json.Decoder(OpenAIBody).decode


def read_plain_completion(data: bytes) -> tuple[OpenAIBody, ChatRequest] | None:
    """The same result as `read` for the JSON that most clients send, in a fraction of the time;
    None for any other body, including every wrong one."""
    if len(data) > MAX_PLAIN_CHARS or data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        return None
    try:
        body = _decode(data.decode())
    except (msgspec.MsgspecError, UnicodeError):
        return None
    most = body.max_completion_tokens or body.max_tokens
    turns = [_plain_turn(turn) for turn in body.messages]
    plain = [turn for turn in turns if turn is not None]
    if len(plain) < len(turns) or all(turn.role == "system" for turn in plain):
        return None
    if not (body.model and (most is None or 0 < most <= MAX_OUTPUT) and _only_text(body)):
        return None
    return body, ChatRequest(body.model, tuple(plain), max_tokens=most)


def _plain_turn(turn: OpenAITurn) -> Turn | None:
    role = _PLAIN_ROLES.get(turn.role)
    if role is None or not isinstance(turn.content, str) or not turn.content:
        return None
    if turn.tool_calls is not None or turn.tool_call_id is not None:
        return None
    return Turn(role, turn.content)


def _only_text(body: OpenAIBody) -> bool:
    more = body.stop or body.tools or body.tool_choice or body.response_format or body.modalities
    return not more and body.n in (None, 1)


def read(fields: Fields) -> tuple[OpenAIBody, ChatRequest]:
    """The body as sent, and the chat that it asks for. Raises `InvalidRequest`."""
    try:
        body = msgspec.convert(fields, OpenAIBody)
    except msgspec.ValidationError as error:
        raise _wrong_shape(error) from None
    _refuse_unsupported(body)
    chat = {name: value for name, value in _chat_fields(body).items() if value is not None}
    try:
        return body, to_request(ChatFields.model_validate(chat), body.model)
    except ValidationError as error:
        _, message = explain(error)
        place = _PLACE.match(message)
        raise InvalidRequest(message, place[0] if place else None) from None


def _wrong_shape(error: msgspec.ValidationError) -> InvalidRequest:
    """An error for msgspec's message "Expected `str`, got `int` - at `$.model`"."""
    what, _, place = str(error).partition(" - at `$")
    param = place.strip(".`") or None
    return InvalidRequest(f"{param}: {what}" if param else what, param)


def _refuse_unsupported(body: OpenAIBody) -> None:
    if not body.model:
        raise InvalidRequest("model: is empty", "model")
    if body.n not in (None, 1):
        raise InvalidRequest("n: only one answer per request is supported here", "n")
    if set(body.modalities or ()) - {"text"}:
        raise InvalidRequest("modalities: only text is supported here", "modalities")
    if body.response_format and body.response_format.type != "text":
        raise InvalidRequest(
            "response_format.type: only text is supported here", "response_format.type"
        )


def _chat_fields(body: OpenAIBody) -> Fields:
    return {
        "messages": [_message(turn, f"messages[{at}]") for at, turn in enumerate(body.messages)],
        "max_tokens": body.max_completion_tokens or body.max_tokens,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop or None,
        "tools": [_tool(tool, f"tools[{at}]") for at, tool in enumerate(body.tools or [])] or None,
        "tool_choice": _tool_choice(body.tool_choice),
    }


def _message(turn: OpenAITurn, place: str) -> Fields:
    role = "system" if turn.role == "developer" else turn.role
    message: Fields = {"role": role, "content": _content(turn.content, place)}
    if turn.tool_calls:
        message["tool_calls"] = [
            _call(call, f"{place}.tool_calls[{at}]") for at, call in enumerate(turn.tool_calls)
        ]
    if turn.tool_call_id is not None:
        message["call_id"] = turn.tool_call_id
    return message


def _content(content: str | list[OpenAIPart] | None, place: str) -> str | list[Fields]:
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(part, f"{place}.content[{at}]") for at, part in enumerate(content)]
    return [part for part in parts if part.get("text") != ""] or ""


def _part(part: OpenAIPart, place: str) -> Fields:
    match part:
        case (
            OpenAIPart(type="text", text=str(text)) | OpenAIPart(type="refusal", refusal=str(text))
        ):
            return {"type": "text", "text": text}
        case OpenAIPart(type="image_url", image_url=OpenAIImageUrl(url)):
            return _image(url, place)
    raise InvalidRequest(f"{place}.type: expected text or image_url", f"{place}.type")


def _image(url: str, place: str) -> Fields:
    if found := _DATA_URL.fullmatch(url):
        return {"type": "image", "media_type": found[1], "data": found[2]}
    if url.startswith("data:"):
        raise InvalidRequest(
            f"{place}.image_url.url: a data URL has to be data:image/…;base64,…",
            f"{place}.image_url.url",
        )
    guessed, _ = mimetypes.guess_type(url.partition("?")[0])
    known = guessed if guessed and guessed.startswith("image/") else DEFAULT_IMAGE_TYPE
    return {"type": "image", "media_type": known, "url": url}


def _call(call: OpenAICalled, place: str) -> Fields:
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        param = f"{place}.function.arguments"
        raise InvalidRequest(f"{param}: expected a JSON object", param) from None
    fields = {"call_id": call.id, "name": call.function.name, "arguments": arguments}
    google = (call.extra_content or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return fields | ({"state": signature} if signature else {})


def _tool(tool: OpenAIOfferedTool, place: str) -> Fields:
    if tool.type != "function" or tool.function is None:
        raise InvalidRequest(f"{place}.type: only functions can be offered here", f"{place}.type")
    return {
        "name": tool.function.name,
        "description": tool.function.description or "",
        "parameters": tool.function.parameters or {},
    }


def _tool_choice(choice: str | OpenAIChoice | None) -> str | None:
    if choice is None or isinstance(choice, str):
        return choice
    if choice.type != "function" or choice.function is None:
        raise InvalidRequest(
            "tool_choice.type: expected auto, none, required or a function", "tool_choice.type"
        )
    return choice.function.name
