from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from relay.core import request
from relay.core.events import ToolCall
from relay.protocol.chat import (
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_OUTPUT,
    MAX_PARTS,
    MAX_STOP,
    MAX_STOP_CHARS,
    MAX_TOOLS,
    MAX_URL_CHARS,
    ChatFields,
    to_request,
)
from relay.protocol.codec import explain

PNG = base64.b64encode(b"\x89PNG").decode()


def chat(**fields: Any) -> ChatFields:
    return ChatFields.model_validate({"messages": "hi"} | fields)


def fault(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        chat(**fields)
    return explain(caught.value)[1]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def tool(name: str = "f") -> dict[str, Any]:
    return {"name": name, "description": "", "parameters": {}}


CALL = {"call_id": "c1", "name": "f", "arguments": {"a": 1}, "state": "opaque"}


def test_a_string_is_one_user_message() -> None:
    assert to_request(chat(), "gpt").messages == (request.Turn("user", "hi"),)


def test_every_field_reaches_the_request() -> None:
    asked = chat(
        messages=[
            {"role": "system", "content": "be kind"},
            user([{"type": "text", "text": "what is"}, image(data=PNG)]),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "call_id": "c1", "content": "42"},
        ],
        system="sys",
        max_tokens=7,
        stop=["a", "b"],
        tools=[{"name": "f", "description": "d", "parameters": {"type": "object"}}],
        tool_choice="f",
        conversation="talk",
        fallback=False,
        model="ignored",
    )
    assert to_request(asked, "gpt") == request.ChatRequest(
        provider="gpt",
        messages=(
            request.Turn("system", "be kind"),
            request.Turn(
                "user", (request.TextContent("what is"), request.ImageContent("image/png", PNG))
            ),
            request.Turn("assistant", "", (ToolCall("c1", "f", {"a": 1}, "opaque"),)),
            request.Turn("tool", "42", call_id="c1"),
        ),
        system="sys",
        max_tokens=7,
        stop=("a", "b"),
        tools=(request.OfferedTool("f", "d", {"type": "object"}),),
        tool_choice="f",
        conversation="talk",
        fallback=False,
    )


def test_what_is_left_out_takes_the_defaults() -> None:
    assert to_request(chat(), "gpt") == request.ChatRequest("gpt", (request.Turn("user", "hi"),))


@pytest.mark.parametrize("model", ["gpt-4", None, 5, {"a": [1]}])
def test_a_model_is_accepted_and_ignored(model: Any) -> None:
    assert to_request(chat(model=model), "gpt") == to_request(chat(), "gpt")


def image(**fields: Any) -> dict[str, Any]:
    return {"type": "image", "media_type": "image/png"} | fields


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "messages is empty: expected at least one message"),
        ({"messages": ""}, "messages is empty: expected at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages has system turns only"),
        ({"messages": 5}, "messages: must be a string or a list"),
        ({"messages": [5]}, "messages[0]: must be an object"),
        ({"messages": [user("")]}, "messages[0]: content is empty"),
        ({"messages": [user([])]}, "messages[0].content: is empty"),
        ({"messages": [user(None)]}, "messages[0].content: must be a string or a list"),
        ({"messages": [user("x"), {"role": "bot", "content": "x"}]}, "messages[1].role: must be"),
        ({"messages": [user("x") | {"name": "n"}]}, "messages[0].name: is an unknown field"),
        ({"messages": [user([{"type": "zoo"}])]}, "messages[0].content[0]: must be a part"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text: is missing"),
        ({"messages": [user([image(data=PNG, url="http://a/b")])]}, "either data or url"),
        ({"messages": [user([image()])]}, "either data or url"),
        ({"messages": [user([image(data="???")])]}, "messages[0].content[0]: data is not base64"),
        ({"messages": [user([image(data="é")])]}, "messages[0].content[0]: data is not base64"),
        ({"messages": [user([image(url="file:///etc")])]}, "messages[0].content[0].url: must"),
        ({"messages": [user([image(data=PNG) | {"media_type": "text/html"}])]}, "media_type: must"),
        (
            {"messages": [user("x"), {"role": "assistant", "content": [image(data=PNG)]}]},
            "messages[1]: content: images are allowed in user and tool turns only",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]: call_id is required"),
        ({"messages": [user("x") | {"call_id": "c"}]}, "messages[0]: call_id is required"),
        (
            {"messages": [user("x") | {"tool_calls": [CALL]}]},
            "messages[0]: tool_calls are allowed on",
        ),
        (
            {"messages": [user("x"), {"role": "tool", "call_id": "c9", "content": "x"}]},
            "messages[1].call_id: no turn before it made this call",
        ),
        (
            {"messages": [user("x"), {"role": "assistant", "tool_calls": [CALL, CALL]}]},
            "messages[1].tool_calls: a call_id occurs twice",
        ),
        ({"tools": [tool(), tool()]}, "tools: a name occurs twice"),
        ({"tools": [tool("auto")]}, "tools[0]: name: auto, none and required"),
        ({"tools": [tool("a b")]}, "tools[0].name: must match"),
        ({"tools": [tool() | {"parameters": {"type": "string"}}]}, "tools[0]: parameters is"),
        ({"tool_choice": "required"}, "tool_choice is required, but there are no tools"),
        ({"tool_choice": "g", "tools": [tool()]}, "tool_choice names none of the tools"),
        ({"temperature": 1}, "temperature: is an unknown field"),
        ({"max_tokens": "5"}, "max_tokens: must be a whole number"),
        ({"max_tokens": True}, "max_tokens: must be a whole number"),
        ({"fallback": 1}, "fallback: must be true or false"),
        ({"stop": "x"}, "stop: must be a list"),
        ({"stop": [""]}, "stop[0]: is empty"),
        ({"id": ""}, "id: must match"),
        ({"id": "a\n"}, "id: must match"),
        ({"provider": ""}, "provider: is empty"),
    ],
)
def test_a_fault_is_told_by_the_name_of_its_field(fields: dict[str, Any], said: str) -> None:
    assert said in fault(**fields)


@pytest.mark.parametrize(
    ("at_the_limit", "beyond"),
    [
        ({"id": "a" * 64}, {"id": "a" * 65}),
        ({"messages": [user("x")] * MAX_MESSAGES}, {"messages": [user("x")] * (MAX_MESSAGES + 1)}),
        (
            {"messages": [user([{"type": "text", "text": "x"}] * MAX_PARTS)]},
            {"messages": [user([{"type": "text", "text": "x"}] * (MAX_PARTS + 1))]},
        ),
        (
            {"tools": [tool(f"f{n}") for n in range(MAX_TOOLS)]},
            {"tools": [tool(f"f{n}") for n in range(MAX_TOOLS + 1)]},
        ),
        ({"stop": ["x"] * MAX_STOP}, {"stop": ["x"] * (MAX_STOP + 1)}),
        ({"stop": ["x" * MAX_STOP_CHARS]}, {"stop": ["x" * (MAX_STOP_CHARS + 1)]}),
        ({"max_tokens": 1}, {"max_tokens": 0}),
        ({"max_tokens": MAX_OUTPUT}, {"max_tokens": MAX_OUTPUT + 1}),
        ({"conversation": "x" * MAX_NAME_CHARS}, {"conversation": "x" * (MAX_NAME_CHARS + 1)}),
        ({"provider": "x" * MAX_NAME_CHARS}, {"provider": "x" * (MAX_NAME_CHARS + 1)}),
        (
            {"messages": [user([image(url="http://a/".ljust(MAX_URL_CHARS, "b"))])]},
            {"messages": [user([image(url="http://a/".ljust(MAX_URL_CHARS + 1, "b"))])]},
        ),
    ],
)
def test_each_limit_holds_at_its_edge(at_the_limit: Any, beyond: Any) -> None:
    chat(**at_the_limit)
    assert fault(**beyond)


def test_a_tool_may_answer_with_nothing() -> None:
    chat(
        messages=[
            user("x"),
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "call_id": "c1", "content": ""},
        ]
    )
