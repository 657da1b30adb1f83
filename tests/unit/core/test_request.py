"""A chat's own facts."""

import msgspec

from relay.core.request import (
    ChatRequest,
    OfferedTool,
    TextContent,
    Turn,
    estimate_input_characters,
)

ASKED = ChatRequest(
    "gpt",
    (Turn("system", "Be brief."), Turn("user", (TextContent("Grüß"), TextContent(" Gott")))),
    system="Always.",
    tools=(
        OfferedTool("weather", "tells it", {"type": "object", "properties": {"b": {}, "a": {}}}),
    ),
)


def test_the_fingerprint_of_a_chat_is_the_same_in_every_version_that_shares_a_redis():
    assert ASKED.fingerprint() == (
        "6a88287836a3ae8ec49991fafc08dd3b898bd3f4a5342daef9abc3619ad0adc0"
    )


def test_the_fingerprint_does_not_depend_on_the_order_of_a_schema_s_fields():
    other = OfferedTool("weather", "tells it", {"properties": {"a": {}, "b": {}}, "type": "object"})
    assert msgspec.structs.replace(ASKED, tools=(other,)).fingerprint() == ASKED.fingerprint()


def test_the_fingerprint_tells_chats_of_other_content_apart():
    other = msgspec.structs.replace(ASKED, messages=(Turn("user", "Grüß Gott"),))
    assert other.fingerprint() != ASKED.fingerprint()


def test_characters_are_counted_in_text_alone():
    assert estimate_input_characters(ASKED) == len("Always.Be brief.Grüß Gott")
