"""How an unfinished answer is put to a model that is to go on with it."""

from relay.answering.continuation import REPEATED_TOKENS, call_of, continued
from relay.core.events import Target
from relay.core.provider import Form
from relay.core.request import ChatRequest, Turn
from relay.failover.plan import Launch

ASKED = ChatRequest("gpt", (Turn("user", "Erzähl mir was."),), system="Du bist ein Pirat.")
PROMPT = "Weiter!"


def test_a_prefill_ends_in_the_unfinished_turn_and_nothing_else():
    request = continued(ASKED, Form.PREFILL, "Arr, ich", PROMPT)
    assert request.messages == (*ASKED.messages, Turn("assistant", "Arr, ich"))


def test_a_turn_asks_in_the_configured_words_behind_the_unfinished_one():
    request = continued(ASKED, Form.TURN, "Arr, ich", PROMPT)
    offered = (Turn("assistant", "Arr, ich"), Turn("user", PROMPT))
    assert request.messages == (*ASKED.messages, *offered)


def test_the_system_prompt_stays_as_it_was_in_every_form():
    for form in Form:
        assert continued(ASKED, form, "Arr, ich", PROMPT).system == ASKED.system


def test_from_the_start_nothing_is_added():
    assert continued(ASKED, Form.RESTART, "Arr, ich", PROMPT) is ASKED
    assert continued(ASKED, Form.TURN, "", PROMPT) is ASKED


def test_a_call_says_the_form_only_where_something_is_offered():
    target = Target("gpt", "m")
    for partial, form in (("Arr", Form.TURN), ("", Form.RESTART)):
        call = call_of(ASKED, Launch(2, target, Form.TURN, partial, False), 64, PROMPT)
        assert (call.form, call.model, call.max_tokens) == (form, "m", 64)


def test_a_continuation_gets_what_is_left_of_the_tokens_and_some_to_repeat_itself():
    for form, left in ((Form.TURN, 300 + REPEATED_TOKENS), (Form.RESTART, 1000)):
        launch = Launch(2, Target("gpt", "m"), form, "x" * 2800, False)
        assert call_of(ASKED, launch, 1000, PROMPT).max_tokens == left


def test_a_continuation_never_gets_more_than_was_asked_for():
    launch = Launch(2, Target("gpt", "m"), Form.TURN, "one two", False)
    assert call_of(ASKED, launch, 10, PROMPT).max_tokens == 10
