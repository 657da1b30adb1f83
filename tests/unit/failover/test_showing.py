"""The text that stands is counted by the policy and read from the log, never kept twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.core.account import Account
from relay.core.errors import Code
from relay.core.events import Reasoning, Start, Target, Text
from relay.core.provider import Form
from relay.core.records import Records, encode
from relay.failover.attempt import Attempt
from relay.failover.breaker import Ticket
from relay.failover.inherited import inherited_from
from relay.failover.showing import Showing
from tests.failover_sim import A, B, plan

WORDS = st.text(st.sampled_from('ab \n谢👍\\"'), max_size=6)
DOINGS = st.lists(
    st.one_of(
        st.tuples(st.just("show"), WORDS),
        st.tuples(st.just("pass"), st.lists(WORDS.filter(bool), min_size=1, max_size=3)),
        st.tuples(st.just("think"), WORDS.filter(bool)),
        st.tuples(st.just("keep"), st.none()),
        st.tuples(st.just("discard"), st.none()),
        st.tuples(st.just("hand over"), st.none()),
    ),
    max_size=20,
)


class World:
    """What readers have, the log it hands its records to, and what stands on a reader's screen."""

    def __init__(self) -> None:
        self.log = Records()
        self.reads = 0
        self.showing = Showing(plan(A, B), self._read)
        self.screen = ""
        self.running = running(A)

    def _read(self):
        self.reads += 1
        return self.log.chunks()

    def hand_over(self) -> None:
        records, self.showing.pending = self.showing.pending, []
        for record in records:
            self.log.append(*encode(record))

    def do(self, what: str, said) -> None:
        if what == "show":
            self.showing.show(self.running, Text(said), 1.0)
            self.screen += said
        elif what == "think":
            self.showing.show(self.running, Reasoning(said), 1.0)
        elif what == "pass":
            self.hand_over()  # the driver appends each step before it asks for the next
            events = [Text(text) for text in said]
            self.showing.appended += sum(map(len, said))  # as `Failover.pass_through` does
            self.showing.pending.extend(events)
            self.screen += "".join(said)
        elif what == "hand over":
            self.hand_over()
        else:
            self.running = running(B if self.running.target is A else A)
            self.running.discards = what == "discard"
            self.showing.announce(self.running)
            self.screen = "" if what == "discard" else self.screen


def running(target: Target) -> Attempt:
    ticket = Ticket(target, probe=False, forced=False)
    return Attempt(1, target, Form.TURN, 0, False, ticket, 0.0, None)


@given(DOINGS)
def test_the_text_that_stands_is_the_logs_and_that_of_records_not_handed_over_yet(doings):
    world = World()
    world.showing.begin(0.0)
    for what, said in doings:
        world.do(what, said)
        assert world.showing.text() == world.screen
        assert world.showing.standing == len(world.screen)
        assert world.showing.has_text is bool(world.screen)


@given(WORDS, DOINGS)
def test_so_it_is_for_an_answer_that_was_taken_over(left, doings):
    world = World()
    world.log.append(*encode(Start("s", A.provider, A.model)))
    world.log.append(*encode(Text(left)))
    inherited = inherited_from(world.log.chunks(), Account(), 0.0, 0)
    world.showing.inherit(inherited, Code.INTERNAL)
    world.screen = left
    for what, said in doings:
        world.do(what, said)
        assert world.showing.text() == world.screen


def test_the_log_is_not_read_where_no_text_stands():
    world = World()
    world.showing.begin(0.0)
    world.do("think", "hm")
    assert world.showing.text() == ""
    world.do("show", "words")
    world.do("discard", None)
    assert world.showing.text() == ""
    assert world.reads == 0
