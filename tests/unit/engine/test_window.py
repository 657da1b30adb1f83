from hypothesis import given
from hypothesis import strategies as st

from relay.core.request import Turn
from relay.engine.window import PROMPT_CHARACTERS, recent

ROLES = st.sampled_from(["user", "assistant", "tool", "system"])
TURNS = st.lists(st.builds(Turn, role=ROLES, content=st.text(max_size=30)), max_size=12)


def turns(*spoken: str) -> list[Turn]:
    """`u:…` is a user turn, `a:…` an assistant's, `s:…` a system turn."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [Turn(roles[text[0]], text[2:]) for text in spoken]


def kept(messages, room):
    return [f"{m.role[0]}:{m.content}" for m in recent(messages, room)]


def test_a_conversation_that_fits_exactly_is_kept_whole():
    spoken = ["u:aaaa", "a:bbbb", "u:cc"]
    assert kept(turns(*spoken), 10) == spoken


def test_one_character_too_many_drops_the_oldest_exchange():
    assert kept(turns("u:aaaa", "a:bbbb", "u:cc"), 9) == ["u:cc"]


def test_what_is_left_begins_with_a_user_turn():
    assert kept(turns("u:aaaa", "a:bb", "u:cc", "a:dd", "u:ee"), 9) == ["u:cc", "a:dd", "u:ee"]
    assert kept(turns("u:aaaa", "a:bb", "u:ee"), 5) == ["u:ee"]


def test_system_turns_are_kept_and_take_room():
    assert kept(turns("s:ssss", "u:aaaa", "a:bb", "u:cc"), 11) == ["s:ssss", "u:cc"]


def test_an_unfinished_answer_after_the_last_question_is_kept():
    assert kept(turns("u:old", "a:old", "u:new", "a:half an answ"), 1) == [
        "u:new",
        "a:half an answ",
    ]


def test_the_last_question_is_kept_even_where_it_exceeds_the_room():
    assert kept(turns("u:old", "a:old", f"u:{'x' * 99}"), 10) == [f"u:{'x' * 99}"]


def test_without_a_user_turn_nothing_is_dropped():
    assert kept(turns("a:hello", "a:again"), 1) == ["a:hello", "a:again"]


@given(TURNS, st.integers(0, 200))
def test_the_result_is_the_systems_and_a_tail_of_the_turns(messages, room):
    result = recent(messages, room)
    systems = tuple(m for m in messages if m.role == "system")
    rest = tuple(m for m in messages if m.role != "system")
    assert result[: len(systems)] == systems
    tail = result[len(systems) :]
    assert tail == rest[len(rest) - len(tail) :]


@given(TURNS)
def test_more_room_never_keeps_less(messages):
    sizes = [len(recent(messages, room)) for room in (0, 10, 50, PROMPT_CHARACTERS)]
    assert sizes == sorted(sizes)
