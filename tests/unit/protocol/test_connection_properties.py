"""Whatever a client says, in whatever order the world answers, the rules hold."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.core.errors import Code, RelayError, StreamExpired
from relay.protocol.actions import (
    AttachCursor,
    Cancel,
    CloseConnection,
    ConnectionAction,
    Find,
    Greet,
    LinkStream,
    OpenSession,
    Renew,
    SendFrame,
    StartChat,
)
from relay.protocol.connection import MAX_STRIKES, ConnectionPhase, ConnectionRules

SESSION = "s" * 22
ids = st.sampled_from(["a", "b", "c", "d"])
frames = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("hello")},
        optional={
            "session": st.just(SESSION),
            "token": st.sampled_from(["alice", "bob", "none"]),
            "resume": st.dictionaries(ids, st.integers(-1, 3), max_size=3),
        },
    ),
    st.fixed_dictionaries({"type": st.just("chat"), "id": ids, "messages": st.just("hi")}),
    st.fixed_dictionaries({"type": st.just("chat"), "messages": st.sampled_from(["hi", ""])}),
    st.fixed_dictionaries({"type": st.sampled_from(["cancel", "resume"]), "id": ids}),
    st.fixed_dictionaries({"type": st.just("resume"), "stream": ids}),
    st.fixed_dictionaries({"type": st.sampled_from(["ping", "pong", "nope"])}),
)
noise = st.sampled_from(["", "x", "[]", "{}", '{"type":1}'])


class Talk(RuleBasedStateMachine):
    """A client that says anything, and a world that answers each action either way."""

    def __init__(self) -> None:
        super().__init__()
        self.rules: ConnectionRules | None = None
        self.todo: list[ConnectionAction] = []
        self.done: list[ConnectionAction] = []
        self.reading: set[str] = set()
        self.hellos_answered = 0
        self.noise_in_a_row = 0

    def of(self) -> ConnectionRules:
        if self.rules is None:
            self.rules = ConnectionRules(new_id=lambda: "made", max_readers=3)
        return self.rules

    @rule(required=st.booleans())
    def begin(self, required: bool) -> None:
        if self.rules is None:
            self.rules = ConnectionRules(
                new_id=lambda: "made", token_required=required, max_readers=3
            )

    @rule(frame=frames)
    def say(self, frame: dict[str, Any]) -> None:
        self.noise_in_a_row = 0
        self.hear(json.dumps(frame))

    @rule(text=noise)
    def say_noise(self, text: str) -> None:
        self.hear(text)

    def hear(self, text: str) -> None:
        rules = self.of()
        closed = rules.phase is ConnectionPhase.CLOSED
        actions = rules.receive(text)
        assert not (closed and actions)
        self.todo += actions

    @rule(good=st.booleans(), subject=st.sampled_from([None, "alice"]))
    def carry_out_one(self, good: bool, subject: str | None) -> None:
        """The caller's loop: what an outcome leads to comes before the rest."""
        if not self.todo:
            return
        action = self.todo.pop(0)
        self.done.append(action)
        self.todo[:0] = self.outcome(action, good, subject)

    def outcome(
        self, action: ConnectionAction, good: bool, subject: str | None
    ) -> list[ConnectionAction]:
        rules = self.of()
        match action:
            case OpenSession() if good:
                return rules.opened(SESSION, subject, resumed=False)
            case Renew() if good:
                return rules.renewed(subject)
            case OpenSession() | Renew():
                return rules.refused(RelayError(Code.UNAUTHORIZED, "no"))
            case AttachCursor():
                if good:
                    self.reading.add(action.id)
                    return []
                return rules.failed(action, StreamExpired())
            case StartChat(id=id) if good:
                return rules.started(id, f"stream-{id}")
            case Find(id=id, after=after) if good:
                return rules.found(id, f"stream-{id}", after)
            case LinkStream(stream=stream) if good:
                return rules.found(stream or "x", stream or "x", -1)
            case StartChat() | Find() | LinkStream():
                return rules.failed(action, StreamExpired())
            case Cancel():
                return [] if good else rules.failed(action, StreamExpired())
            case SendFrame() | Greet():
                return []
            case CloseConnection():
                self.todo.clear()
                return []

    @rule()
    def a_stream_ends(self) -> None:
        if self.reading and self.of().phase is ConnectionPhase.OPEN:
            self.of().detached(self.reading.pop())

    @rule()
    def time_is_up(self) -> None:
        self.todo += self.of().hello_late()

    @invariant()
    def ready_comes_before_everything_but_refusals(self) -> None:
        said = [action for action in self.done if isinstance(action, Greet | AttachCursor | Cancel)]
        assert not said or isinstance(said[0], Greet)

    @invariant()
    def one_session_is_opened_at_most(self) -> None:
        assert sum(isinstance(action, OpenSession) for action in self.done + self.todo) <= 1

    @invariant()
    def nothing_follows_a_close(self) -> None:
        for before in self.done[:-1]:
            assert not isinstance(before, CloseConnection)

    @invariant()
    def a_closing_connection_is_closed_for_good(self) -> None:
        if any(isinstance(action, CloseConnection) for action in self.done + self.todo):
            assert self.of().phase is ConnectionPhase.CLOSED

    @invariant()
    def an_open_connection_has_a_session(self) -> None:
        if self.rules is not None and self.rules.phase is ConnectionPhase.OPEN:
            assert self.rules.session == SESSION

    @invariant()
    def strikes_stay_below_their_limit_while_open(self) -> None:
        if self.rules is not None and self.rules.phase is not ConnectionPhase.CLOSED:
            assert self.rules._strikes < MAX_STRIKES


Talk.TestCase.settings = settings(
    max_examples=2 * settings.default.max_examples, stateful_step_count=30, deadline=None
)
TestTalk = Talk.TestCase
