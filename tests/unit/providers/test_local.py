import asyncio
from contextvars import copy_context

import pytest

from relay.core.errors import Code, Fault
from relay.core.provider import Call, Form
from relay.core.request import ChatRequest, ImageContent, OfferedTool, TextContent, Turn
from relay.engine.window import PROMPT_CHARACTERS
from relay.providers.local import SYSTEM, LocalProvider, legible

IMAGE = ImageContent("image/png", data="aGk=")
WEATHER = OfferedTool("weather")


def request(*messages: Turn, **fields) -> ChatRequest:
    return ChatRequest("local", messages or (Turn("user", "hello"),), **fields)


def test_a_plain_chat_reaches_the_model_as_it_is():
    asked = request(Turn("user", "hello"), system="be brief", stop=("x",), max_tokens=5)
    assert legible(asked) == asked


def test_a_chat_without_a_system_prompt_gets_one_that_suits_the_model():
    assert legible(request()).system == SYSTEM
    asked = request(Turn("system", "be brief"), Turn("user", "hello"))
    assert legible(asked) == asked


def test_text_parts_reach_the_model():
    asked = request(Turn("user", (TextContent("a"), TextContent("b"))), system="be brief")
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
        legible(request(Turn("user", (TextContent("what is this?"), IMAGE))))
    assert (refusal.value.code, refusal.value.remedy) == (Code.BAD_REQUEST, "fallback")


def test_an_image_in_a_turn_that_is_left_out_does_not_matter():
    past = [Turn("user", (IMAGE,)), Turn("assistant", "x" * PROMPT_CHARACTERS)]
    assert legible(request(*past, Turn("user", "hello"))) == request(system=SYSTEM)


def test_the_system_prompt_takes_its_part_of_the_room():
    turns = [Turn("user", "old"), Turn("assistant", "old"), Turn("user", "new")]
    assert legible(request(*turns, system="s" * (PROMPT_CHARACTERS - 9))).messages == tuple(turns)
    assert legible(request(*turns, system="s" * (PROMPT_CHARACTERS - 8))).messages == (turns[-1],)


def test_an_unfinished_answer_is_continued_by_prefill_first():
    assert LocalProvider().forms("any") == (Form.PREFILL, Form.RESTART)


async def test_closing_a_provider_that_was_never_started_starts_nothing():
    provider = LocalProvider()
    await provider.close()
    await provider.close()


class Starting:
    """An engine that never gets ready."""

    def __init__(self):
        self.waiting = 0

    def start(self): ...

    async def ready(self):
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1

    async def settled(self): ...

    async def close(self): ...


class Told:
    """A caller that remembers how its call ended."""

    def __init__(self):
        self.context = copy_context()
        self.ends = []
        self.ended = self.ends.append
        self.take = print


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_the_model_cannot_read_is_told_as_the_end_of_its_call():
    engine, told = Starting(), Told()
    provider = LocalProvider(engine)
    provider.begin(Call("m", request(Turn("user", (IMAGE,))), 9), told)
    assert told.ends == []
    await turns(3)
    (fault,) = told.ends
    assert (fault.code, engine.waiting) == (Code.BAD_REQUEST, 0)
    await provider.close()


async def test_a_call_that_is_closed_while_the_engine_starts_waits_no_longer():
    engine, told = Starting(), Told()
    provider = LocalProvider(engine)
    call = provider.begin(Call("m", request(), 9), told)
    await turns(3)
    assert engine.waiting == 1
    call.close()
    await turns(3)
    assert (engine.waiting, told.ends) == (0, [])
    await provider.close()


async def test_closing_the_provider_ends_a_call_that_waits_for_the_engine():
    engine, told = Starting(), Told()
    provider = LocalProvider(engine)
    provider.begin(Call("m", request(), 9), told)
    await turns(3)
    await provider.close()
    (fault,) = told.ends
    assert (fault.code, engine.waiting) == (Code.PROVIDER_INTERRUPTED, 0)
