"""What a client asks: the fields of a `chat`, as every transport of `relay.v1` takes them.

The `chat` frame and the body of `POST /chat/{provider}` are one model. It checks what can be
checked without a vendor, so that an error names the field and costs no upstream call.
"""

from __future__ import annotations

import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from relay.core import request
from relay.core.events import ToolCall

MAX_ID_CHARS = 64
"""Characters of an `id`."""

ID_PATTERN = rf"^[A-Za-z0-9._-]{{1,{MAX_ID_CHARS}}}$"
"""An `id`: a stream's name within its session, chosen by the client."""

TOOL_NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""A tool's name, by the strictest of the vendors' rules."""

MAX_MESSAGES = 2_000
"""Turns in one chat."""

MAX_PARTS = 256
"""Content parts in one turn."""

MAX_TOOLS = 128
"""Tools in one chat, and tool calls in one turn."""

MAX_STOP = 16
"""Stop sequences in one chat."""

MAX_STOP_CHARS = 256
"""Characters of one stop sequence."""

MAX_NAME_CHARS = 128
"""Characters of a provider's, a conversation's or a call's name."""

IMAGE_TYPE = "image/[A-Za-z0-9.+-]{1,64}"
"""The media types of images, as a pattern (RFC 6838 §4.2)."""

MAX_URL_CHARS = 8_192
"""Characters of an image's URL."""

MAX_OUTPUT = 1_000_000
"""The largest `max_tokens` that is accepted."""

RESERVED_CHOICES = frozenset({"auto", "none", "required"})
"""Values of `tool_choice` that are not the name of a tool."""

SEMANTIC = "bad_request"
"""The error type of a check that looks at meaning, not at shape."""


def refuse(text: str, **values: Any) -> PydanticCustomError:
    """A failed check of meaning. `text` names the field first, where the check spans
    several; it holds nothing that the client sent."""
    return PydanticCustomError(SEMANTIC, text, values)


class Strict(BaseModel):
    """Unknown fields are refused and nothing is converted: `"5"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Strict):
    """Written content."""

    type: Literal["text"]
    text: str = Field(min_length=1)


class ImagePart(Strict):
    """An image, by its bytes or by its address: exactly one of `data` and `url`."""

    type: Literal["image"]
    media_type: str = Field(
        pattern=f"^{IMAGE_TYPE}$", description="As in RFC 6838, e.g. `image/png`."
    )
    data: str | None = Field(default=None, min_length=1, description="Base64, RFC 4648 §4.")
    url: str | None = Field(default=None, max_length=MAX_URL_CHARS, pattern=r"^https?://[^\s/]")

    @model_validator(mode="after")
    def _one_source(self) -> ImagePart:
        if (self.data is None) == (self.url is None):
            raise refuse("an image takes either data or url, and exactly one of them")
        if self.data is not None and not _is_base64(self.data):
            raise refuse("data is not base64")
        return self


def _is_base64(data: str) -> bool:
    try:
        binascii.a2b_base64(data.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    return True


class ToolCallPart(Strict):
    """A call that an assistant turn made, as the `tool_call` frame gave it."""

    call_id: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    name: str = Field(pattern=TOOL_NAME_PATTERN)
    arguments: dict[str, Any]
    state: str | None = Field(
        default=None, description="Opaque; sent back as the `tool_call` frame carried it."
    )


def _part_tag(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"~{kind}" if kind in ("text", "image") else None


def _text_or_list(value: Any) -> str | None:
    if isinstance(value, str):
        return "~string"
    return "~list" if isinstance(value, list) else None


def string_or_list() -> Discriminator:
    """Chooses by the JSON type, so that an error is reported for one form, not for both."""
    return Discriminator(
        _text_or_list,
        custom_error_type="string_or_list",
        custom_error_message="expected a string or a list",
    )


# The tags begin with "~", which no field does, so that they can be distinguished from fields
# when an error's place is written.
Part = Annotated[
    Annotated[TextPart, Tag("~text")] | Annotated[ImagePart, Tag("~image")],
    Discriminator(
        _part_tag,
        custom_error_type="part_type",
        custom_error_message="a content part's type is text or image",
    ),
]
Content = Annotated[
    Annotated[str, Tag("~string")]
    | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS), Tag("~list")],
    string_or_list(),
]


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "tool", "system"]
    content: Content = Field(
        default="", description="A string or a list of parts. Empty only beside `tool_calls`."
    )
    tool_calls: list[ToolCallPart] | None = Field(
        default=None, max_length=MAX_TOOLS, description="Only on an assistant's turn."
    )
    call_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="Required on a tool's turn, and allowed only there: the call it answers.",
    )

    @model_validator(mode="after")
    def _fits_its_role(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise refuse("tool_calls are allowed on an assistant turn only")
        if (self.call_id is not None) != (self.role == "tool"):
            raise refuse("call_id is required on a tool turn, and allowed only there")
        if not self.content and not self.tool_calls and self.role != "tool":
            raise refuse("content is empty")
        if self.role in ("assistant", "system") and self._has_image():
            raise refuse("content: images are allowed in user and tool turns only")
        return self

    def _has_image(self) -> bool:
        return not isinstance(self.content, str) and any(p.type == "image" for p in self.content)


class Tool(Strict):
    """A function that the client offers to the model and will run itself."""

    name: str = Field(pattern=TOOL_NAME_PATTERN)
    description: str = ""
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="A JSON Schema of type object."
    )

    @model_validator(mode="after")
    def _is_callable(self) -> Tool:
        if self.name in RESERVED_CHOICES:
            raise refuse("name: auto, none and required are values of tool_choice")
        if self.parameters.get("type", "object") != "object":
            raise refuse("parameters is a JSON Schema of type object")
        return self


class ChatFields(Strict):
    """A chat's fields, as both transports of `relay.v1` take them."""

    id: str | None = Field(
        default=None,
        pattern=ID_PATTERN,
        description="Names the stream within its session. Left out, the server makes one.",
    )
    provider: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="A provider or route of `ready.providers`; left out, the server's default.",
    )
    messages: Annotated[
        Annotated[str, Field(json_schema_extra={"minLength": 1}), Tag("~string")]
        | Annotated[
            list[Message],
            Field(max_length=MAX_MESSAGES, json_schema_extra={"minItems": 1}),
            Tag("~list"),
        ],
        string_or_list(),
    ] = Field(
        description="All turns so far, the oldest first: the server keeps no history. A string is "
        "one user message."
    )
    system: str | None = Field(default=None, description="The system prompt.")
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT)
    stop: list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]] | None = Field(
        default=None, max_length=MAX_STOP, description="Texts that end the answer."
    )
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: str | None = Field(
        default=None,
        pattern=TOOL_NAME_PATTERN,
        description="`auto` (the default), `none`, `required` or a tool's name.",
    )
    conversation: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="A name by which another device finds the newest stream; no memory of turns.",
    )
    fallback: bool | None = Field(
        default=None, description="False: no other target and no rescue of a broken answer."
    )
    model: Any = Field(
        default=None, description="Accepted and ignored: the server selects the model."
    )

    @model_validator(mode="after")
    def _can_be_sent(self) -> ChatFields:
        if isinstance(self.messages, str):
            if not self.messages:
                raise refuse("messages is empty: expected at least one message")
        else:
            _check_turns(self.messages)
        if self.tools or self.tool_choice:
            _check_tools(self.tools or [], self.tool_choice)
        return self


class ChatBody(ChatFields):
    """The body of `POST /chat/{provider}`: a chat's fields. Further fields that clients of other
    chat servers send are accepted where they change nothing."""

    stream: Any = Field(default=None, description="Accepted and ignored: every answer is streamed.")


def _check_turns(messages: list[Message]) -> None:
    if not messages:
        raise refuse("messages is empty: expected at least one message")
    only_system = True
    called: set[str] = set()
    for at, message in enumerate(messages):
        only_system = only_system and message.role == "system"
        for call in message.tool_calls or []:
            if call.call_id in called:
                raise refuse("messages[{at}].tool_calls: a call_id occurs twice", at=at)
            called.add(call.call_id)
        if message.call_id is not None and message.call_id not in called:
            raise refuse("messages[{at}].call_id: no turn before it made this call", at=at)
    if only_system:
        raise refuse("messages has system turns only: expected a user message")


def _check_tools(tools: list[Tool], choice: str | None) -> None:
    names = {tool.name for tool in tools}
    if len(names) < len(tools):
        raise refuse("tools: a name occurs twice")
    if choice == "required" and not tools:
        raise refuse("tool_choice is required, but there are no tools")
    if choice is not None and choice not in RESERVED_CHOICES | names:
        raise refuse("tool_choice names none of the tools")


def to_request(chat: ChatFields, provider: str) -> request.ChatRequest:
    """The chat as the dispatcher takes it; `provider` is the name asked for, or empty for
    the server's default."""
    return request.ChatRequest(
        provider=provider,
        messages=_turns(chat.messages),
        system=chat.system or None,
        max_tokens=chat.max_tokens,
        stop=tuple(chat.stop or ()),
        tools=_tools(chat.tools) if chat.tools else (),
        tool_choice=chat.tool_choice or "auto",
        conversation=chat.conversation,
        fallback=chat.fallback is not False,
    )


def _turns(messages: str | list[Message]) -> tuple[request.Turn, ...]:
    if isinstance(messages, str):
        return (request.Turn("user", messages),)
    return tuple([_turn(message) for message in messages])


def _turn(message: Message) -> request.Turn:
    calls = _calls(message.tool_calls) if message.tool_calls else ()
    return request.Turn(message.role, _content(message.content), calls, message.call_id)


def _content(content: str | list[TextPart | ImagePart]) -> str | tuple[request.ContentPart, ...]:
    return content if isinstance(content, str) else tuple(_part(part) for part in content)


def _calls(calls: list[ToolCallPart]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(call.call_id, call.name, call.arguments, call.state) for call in calls)


def _tools(tools: list[Tool]) -> tuple[request.OfferedTool, ...]:
    return tuple(
        request.OfferedTool(tool.name, tool.description, tool.parameters) for tool in tools
    )


def _part(part: TextPart | ImagePart) -> request.ContentPart:
    if isinstance(part, TextPart):
        return request.TextContent(part.text)
    return request.ImageContent(part.media_type, part.data, part.url)
