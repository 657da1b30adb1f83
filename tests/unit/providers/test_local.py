import pytest

from relay.engine.window import PROMPT_CHARACTERS
from relay.errors import Code, Fault
from relay.provider import Form
from relay.providers.local import SYSTEM, LocalProvider, legible
from relay.request import ChatRequest, ImagePart, Message, TextPart, Tool

IMAGE = ImagePart("image/png", data="aGk=")
WEATHER = Tool("weather")


def request(*messages: Message, **fields) -> ChatRequest:
    return ChatRequest("local", messages or (Message("user", "hello"),), **fields)


def test_a_plain_chat_reaches_the_model_as_it_is():
    asked = request(Message("user", "hello"), system="be brief", stop=("x",), max_tokens=5)
    assert legible(asked) == asked


def test_a_chat_without_a_system_prompt_gets_one_that_suits_the_model():
    assert legible(request()).system == SYSTEM
    asked = request(Message("system", "be brief"), Message("user", "hello"))
    assert legible(asked) == asked


def test_text_parts_reach_the_model():
    asked = request(Message("user", (TextPart("a"), TextPart("b"))), system="be brief")
    assert legible(asked) == asked


def test_offered_tools_are_left_out():
    assert legible(request(tools=(WEATHER,))) == request(system=SYSTEM)


@pytest.mark.parametrize("choice", ["required", "weather"])
def test_a_demanded_tool_call_is_refused_and_may_go_elsewhere(choice):
    with pytest.raises(Fault, match="can't call tools") as refusal:
        legible(request(tools=(WEATHER,), tool_choice=choice))
    assert (refusal.value.code, refusal.value.remedy) == (Code.BAD_REQUEST, "fallback")


def test_an_image_is_refused_and_may_go_elsewhere():
    with pytest.raises(Fault, match="can't see images") as refusal:
        legible(request(Message("user", (TextPart("what is this?"), IMAGE))))
    assert (refusal.value.code, refusal.value.remedy) == (Code.BAD_REQUEST, "fallback")


def test_an_image_in_a_turn_that_is_left_out_does_not_matter():
    past = [Message("user", (IMAGE,)), Message("assistant", "x" * PROMPT_CHARACTERS)]
    assert legible(request(*past, Message("user", "hello"))) == request(system=SYSTEM)


def test_the_system_prompt_takes_its_part_of_the_room():
    turns = [Message("user", "old"), Message("assistant", "old"), Message("user", "new")]
    assert legible(request(*turns, system="s" * (PROMPT_CHARACTERS - 9))).messages == tuple(turns)
    assert legible(request(*turns, system="s" * (PROMPT_CHARACTERS - 8))).messages == (turns[-1],)


def test_an_unfinished_answer_is_continued_by_prefill_first():
    assert LocalProvider().forms("any") == (Form.PREFILL, Form.RESTART)


async def test_closing_a_provider_that_was_never_started_starts_nothing():
    provider = LocalProvider()
    await provider.close()
    await provider.close()
