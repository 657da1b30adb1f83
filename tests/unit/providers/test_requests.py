"""What each vendor is asked, built from one conversation."""

from __future__ import annotations

import pytest

from relay.core.events import ToolCall
from relay.core.provider import Call
from relay.core.request import ChatRequest, ImageContent, OfferedTool, TextContent, Turn
from relay.providers.anthropic import body as anthropic_request
from relay.providers.gemini import body as gemini_request
from relay.providers.openai import body as openai_request
from relay.providers.openai.body import BEHIND_A_GATEWAY, COMPATIBLE, OPENAI

TOOL = OfferedTool(
    "weather", "Tells it", {"type": "object", "properties": {"city": {"type": "string"}}}
)
PAST = ToolCall("toolu:1/a", "weather", {"city": "Kyōto"}, "gemini:c2ln")
TALK = (
    Turn("user", "Weather?"),
    Turn("assistant", "Let me see.", tool_calls=(PAST,)),
    Turn("tool", "sun", call_id="toolu:1/a"),
    Turn("user", "And tomorrow?"),
)


def call(*messages: Turn, model: str = "m", **fields) -> Call:
    return Call(model, ChatRequest("p", messages, **fields), max_tokens=64)


def openai(asked: Call, dialect=COMPATIBLE) -> dict:
    return openai_request.request_body(asked, dialect)


def claude(asked: Call) -> dict:
    return anthropic_request.request_body(asked)


def gemini(asked: Call) -> dict:
    return gemini_request.request_body(asked)


def test_openai_gets_a_plain_conversation_as_it_is():
    body = openai(call(Turn("user", "Hi"), system="Be kind.", stop=("END",)))
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 64,
        "stop": ["END"],
    }


def test_only_openai_itself_is_told_of_obfuscation_and_the_developer_role():
    asked = call(Turn("user", "Hi"), system="S", model="gpt-6.1-terra")
    own, gateway = openai(asked, OPENAI), openai(asked, BEHIND_A_GATEWAY)
    assert own["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert own["messages"][0]["role"] == "developer"
    assert gateway["stream_options"] == {"include_usage": True}
    assert gateway["messages"][0]["role"] == "system"
    assert own["max_completion_tokens"] == gateway["max_completion_tokens"] == 64


def test_an_older_model_of_openais_keeps_the_system_role():
    asked = call(Turn("system", "S"), Turn("user", "Hi"), model="gpt-4.1-mini")
    assert openai(asked, OPENAI)["messages"][0] == {"role": "system", "content": "S"}


def test_stream_options_can_be_left_out_for_servers_that_refuse_them():
    plain = openai_request.Dialect(include_usage=False)
    assert "stream_options" not in openai(call(Turn("user", "Hi")), plain)


@pytest.mark.parametrize(
    ("model", "tools", "effort"),
    [
        ("gpt-6-luna", (), "none"),
        ("gpt-6-luna", (TOOL,), "none"),
        ("gpt-6.1-terra", (), None),
        ("gpt-6.1-terra", (TOOL,), "none"),
        ("gpt-5.6-sol", (TOOL,), "none"),
        ("gpt-5.6-sol", (), None),
        ("gpt-5.4", (TOOL,), None),
        ("gpt-4.1", (TOOL,), None),
        ("o3", (TOOL,), None),
    ],
)
def test_reasoning_is_off_where_tools_would_be_refused_with_it(model, tools, effort):
    asked = call(Turn("user", "Hi"), model=model, tools=tools)
    assert openai(asked, OPENAI).get("reasoning_effort") == effort
    assert "reasoning_effort" not in openai(asked, COMPATIBLE)


def test_openai_gets_calls_and_results_as_its_own():
    assistant, result = openai(call(*TALK))["messages"][1:3]
    assert assistant == {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {
                "id": "toolu:1/a",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Kyōto"}'},
            }
        ],
    }
    assert result == {"role": "tool", "tool_call_id": "toolu:1/a", "content": "sun"}


def test_claude_gets_calls_and_results_in_turns_that_alternate():
    messages = claude(call(*TALK))["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "toolu_1_a", "name": "weather", "input": {"city": "Kyōto"}},
    ]
    assert messages[2]["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "toolu_1_a",
            "content": [{"type": "text", "text": "sun"}],
        },
        {"type": "text", "text": "And tomorrow?"},
    ]


def test_gemini_gets_calls_and_results_with_its_signature_and_the_calls_name():
    contents = gemini(call(*TALK, model="gemini-3.8-flash"))["contents"]
    assert [c["role"] for c in contents] == ["user", "model", "user"]
    assert contents[1]["parts"][1] == {
        "functionCall": {"id": "toolu:1/a", "name": "weather", "args": {"city": "Kyōto"}},
        "thoughtSignature": "c2ln",
    }
    response = {"id": "toolu:1/a", "name": "weather", "response": {"result": "sun"}}
    assert contents[2]["parts"] == [{"functionResponse": response}, {"text": "And tomorrow?"}]


@pytest.mark.parametrize("state", [None, "anthropic:xyz", "c2ln"])
def test_geminis_first_call_of_a_turn_is_signed_even_where_another_vendor_made_it(state):
    pair = (ToolCall("a", "x", {}, state), ToolCall("b", "x", {}, state))
    asked = (Turn("user", "?"), Turn("assistant", tool_calls=pair))
    parts = gemini(call(*asked, model="gemini-3.8-flash"))["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [gemini_request.UNSIGNED, None]
    older = gemini(call(*asked, model="gemini-2.5-flash"))["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in older] == [None, None]


def test_geminis_state_is_shown_to_no_other_vendor():
    assert "c2ln" not in str(openai(call(*TALK))) + str(claude(call(*TALK)))


def test_claude_and_gemini_get_one_system_prompt_of_all_system_messages():
    asked = call(Turn("user", "Hi"), Turn("system", "B"), system="A")
    assert claude(asked)["system"] == "A\n\nB"
    assert gemini(asked)["systemInstruction"] == {"parts": [{"text": "A\n\nB"}]}
    assert len(claude(asked)["messages"]) == len(gemini(asked)["contents"]) == 1


@pytest.mark.parametrize("system", [None, "", "  \n"])
def test_an_empty_system_prompt_is_not_sent_to_those_who_refuse_it(system):
    asked = call(Turn("user", "Hi"), system=system)
    assert "system" not in claude(asked)
    assert "systemInstruction" not in gemini(asked)


def test_turns_of_one_role_are_merged_and_empty_ones_left_out():
    asked = call(Turn("user", "a"), Turn("user", "b"), Turn("assistant", " "), Turn("user", "c"))
    assert [b["text"] for b in claude(asked)["messages"][0]["content"]] == ["a", "b", "c"]
    assert [p["text"] for p in gemini(asked)["contents"][0]["parts"]] == ["a", "b", "c"]


def test_a_conversation_that_the_assistant_opened_is_given_a_users_turn_first():
    asked = call(Turn("assistant", "Welcome!"), Turn("user", "Hi"))
    assert [m["role"] for m in claude(asked)["messages"]] == ["user", "assistant", "user"]
    assert [c["role"] for c in gemini(asked)["contents"]] == ["user", "model", "user"]


def test_claudes_prefill_does_not_end_in_white_space_and_inner_turns_keep_theirs():
    asked = call(Turn("user", "Go "), Turn("assistant", "Once upon \n"))
    assert claude(asked)["messages"][-1]["content"] == [{"type": "text", "text": "Once upon"}]
    assert claude(asked)["messages"][0]["content"] == [{"type": "text", "text": "Go "}]


def test_geminis_and_openais_partial_turn_is_kept_as_it_is():
    asked = call(Turn("user", "Go"), Turn("assistant", "Once upon "))
    assert gemini(asked)["contents"][-1]["parts"] == [{"text": "Once upon "}]
    assert openai(asked)["messages"][-1] == {"role": "assistant", "content": "Once upon "}


IMAGES = (
    TextContent("?"),
    ImageContent("image/png", data="aGk="),
    ImageContent("image/png", url="data:image/jpeg;base64,aG8="),
    ImageContent("image/webp", url="https://example.org/a.webp"),
)


def test_images_are_written_as_each_vendor_reads_them():
    asked = call(Turn("user", IMAGES))
    urls = [p["image_url"]["url"] for p in openai(asked)["messages"][0]["content"][1:]]
    assert urls == [
        "data:image/png;base64,aGk=",
        "data:image/jpeg;base64,aG8=",
        "https://example.org/a.webp",
    ]
    assert [b["source"] for b in claude(asked)["messages"][0]["content"][1:]] == [
        {"type": "base64", "media_type": "image/png", "data": "aGk="},
        {"type": "base64", "media_type": "image/jpeg", "data": "aG8="},
        {"type": "url", "url": "https://example.org/a.webp"},
    ]
    assert gemini(asked)["contents"][0]["parts"][1:] == [
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
        {"inlineData": {"mimeType": "image/jpeg", "data": "aG8="}},
        {"fileData": {"mimeType": "image/webp", "fileUri": "https://example.org/a.webp"}},
    ]


@pytest.mark.parametrize(
    ("choice", "openais", "claudes", "geminis"),
    [
        ("auto", "auto", {"type": "auto"}, {"mode": "AUTO"}),
        ("none", "none", {"type": "none"}, {"mode": "NONE"}),
        ("required", "required", {"type": "any"}, {"mode": "ANY"}),
        (
            "weather",
            {"type": "function", "function": {"name": "weather"}},
            {"type": "tool", "name": "weather"},
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
        ),
    ],
)
def test_tool_choice_is_said_in_each_vendors_words(choice, openais, claudes, geminis):
    asked = call(Turn("user", "Hi"), tools=(TOOL,), tool_choice=choice)
    assert openai(asked)["tool_choice"] == openais
    assert claude(asked)["tool_choice"] == claudes
    assert gemini(asked)["toolConfig"] == {"functionCallingConfig": geminis}


def test_without_tools_nothing_is_said_of_them():
    asked = call(Turn("user", "Hi"), tool_choice="none")
    assert not {"tools", "tool_choice", "toolConfig"} & {
        *openai(asked),
        *claude(asked),
        *gemini(asked),
    }


def test_a_tool_without_parameters_still_has_a_schema():
    asked = call(Turn("user", "Hi"), tools=(OfferedTool("now"),))
    empty = {"type": "object", "properties": {}}
    assert openai(asked)["tools"][0]["function"] == {"name": "now", "parameters": empty}
    assert claude(asked)["tools"] == [{"name": "now", "input_schema": empty}]
    declared = gemini(asked)["tools"][0]["functionDeclarations"]
    assert declared == [{"name": "now", "parametersJsonSchema": empty}]


def test_geminis_path_names_the_model_once():
    assert gemini_request.path("gemini-x") == "models/gemini-x:streamGenerateContent?alt=sse"
    assert gemini_request.path("models/g") == "models/g:streamGenerateContent?alt=sse"
