"""What an answer on the lean way is turned into, and what its end means."""

import pytest

from relay.core.errors import Code, Fault
from relay.core.events import Text
from relay.providers.http.call import LeanCall
from relay.providers.http.exchange import Response
from relay.providers.http.http1 import ConnectTimeout, Interrupted, Malformed, Unreachable
from relay.providers.http.lean import greeting
from relay.providers.openai.decoder import OpenAIDecoder

OK = b"HTTP/1.1 200 OK\r\n\r\n"
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
CHUNK = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n'


class Asker:
    """One that remembers which calls it was to make by other means."""

    secret = "sk-12345678"

    def __init__(self):
        self.aside = []

    def call_by_sdk(self, call, caller):
        self.aside.append((call, caller))
        return self

    def classify(self, reply, call):
        return Fault(Code.PROVIDER_ERROR, f"no: {reply.body.decode()}")

    def close(self):
        self.aside.append("closed")


class Told:
    """A caller that remembers."""

    def __init__(self):
        self.events = []
        self.ends = []
        self.take = self.events.extend
        self.ended = self.ends.append


def answer(caller):
    return LeanCall(Asker(), greeting("m"), OpenAIDecoder(), caller)


def test_an_answer_goes_on_until_its_end_marker():
    caller = Told()
    taken = answer(caller)
    assert taken.take(CHUNK)
    assert Text("hi") in caller.events
    assert taken.take(FINISH)
    assert not taken.take(b"data: [DONE]\n\n")


def test_an_answer_that_breaks_raises_after_what_came_before():
    caller = Told()
    with pytest.raises(Fault, match="cannot be read"):
        answer(caller).take(CHUNK + b"data: {oops\n\n")
    assert Text("hi") in caller.events


def told(body=CHUNK, error=None, head=OK, caller=None):
    """What the end of an answer of these bytes is told as, or that `error` makes of it."""
    caller = caller or Told()
    response = Response(answer(caller))
    response.received(head + body)
    if error is None:
        response.lost(None)
    else:
        response.fail(error)
    (end,) = caller.ends
    return end


def test_a_body_that_ends_before_its_finish_is_a_fault():
    fault = told()
    assert isinstance(fault, Fault)
    assert fault.code is Code.PROVIDER_INTERRUPTED


@pytest.mark.parametrize("error", [None, Interrupted("cut")], ids=["whole", "cut"])
def test_a_body_that_ends_after_its_finish_is_well(error):
    assert told(CHUNK + FINISH, error) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Interrupted("at 10.0.0.1"), Code.PROVIDER_INTERRUPTED),
        (Malformed("at 10.0.0.1"), Code.PROVIDER_INTERRUPTED),
        (Unreachable("at 10.0.0.1"), Code.PROVIDER_ERROR),
        (ConnectTimeout("at 10.0.0.1"), Code.PROVIDER_TIMEOUT),
    ],
)
def test_what_failed_below_http_is_a_fault_without_its_words(error, code):
    fault = told(error=error)
    assert (fault.code, "10.0.0.1" in fault.message) == (code, False)


def test_a_refusal_is_classified_without_the_key_that_it_echoes():
    fault = told(b"sk-12345678 is no key", head=b"HTTP/1.1 500 No\r\n\r\n")
    assert fault.message == "no: [redacted] is no key"


def test_what_a_caller_raises_at_the_bodys_end_is_told():
    def defect(events):
        raise ZeroDivisionError

    caller = Told()
    caller.take = defect
    unfinished = FINISH.rstrip()  # its line's end is the body's
    assert isinstance(told(unfinished, caller=caller), ZeroDivisionError)


def test_a_response_of_another_kind_is_left_to_the_sdk_whose_call_is_then_the_one_to_close():
    caller, asker = Told(), Asker()
    call = LeanCall(asker, greeting("m"), OpenAIDecoder(), caller)
    response = Response(call)
    call.carried_by(response)
    response.received(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n")
    assert asker.aside == [(greeting("m"), caller)]
    assert (caller.events, caller.ends) == ([], [])
    call.close()
    assert asker.aside[1:] == ["closed"]


def test_a_call_that_is_closed_hears_no_more():
    caller = Told()
    call = answer(caller)
    call.close()
    response = Response(call)
    call.carried_by(response)
    response.received(OK + CHUNK)
    said = list(caller.events)
    call.close()
    call.close()
    response.received(FINISH)
    response.lost(None)
    assert (caller.events, caller.ends) == (said, [])
