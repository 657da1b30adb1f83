"""The rules of one connection: a frame goes in, actions come out.

What a frame leads to depends only on the phase, and `RULES` has every pair of the two. Nothing here
waits: the caller carries out the actions, reports their outcome by calling `opened`, `started`,
`failed` and so on, and gets further actions for it.

The caller carries out actions in the order given; those that an outcome leads to come before the
rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from relay.core.errors import Code, RelayError
from relay.protocol.actions import (
    AttachCursor,
    Cancel,
    CloseCode,
    CloseConnection,
    ConnectionActions,
    Find,
    Greet,
    LinkStream,
    OpenSession,
    Renew,
    SendFrame,
    StartChat,
)
from relay.protocol.codec import BadFrame, NotAFrame, ReadFrame, decode_frame, error_frame
from relay.protocol.frames import (
    CancelFrame,
    HelloFrame,
    PingFrame,
    PongFrame,
    ResumeFrame,
)
from relay.protocol.plainchat import ReadChat

MAX_STRIKES = 3
"""Messages in a row that are not frames; the last of them closes the connection."""

MAX_READERS = 256
"""Streams that one connection reads at once."""


CLOSE_ON_REFUSAL = {
    Code.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
    Code.FORBIDDEN: CloseCode.FORBIDDEN,
    Code.RATE_LIMITED: CloseCode.TOO_MANY,
    Code.TOO_MANY_STREAMS: CloseCode.TOO_MANY,
    Code.DRAINING: CloseCode.RESTART,
}
"""The close code of a connection whose session could not be opened; `INTERNAL` for all other
errors."""


# Phases and rules


class ConnectionPhase(Enum):
    """The phase of a connection."""

    LOCKED = "locked"
    """Nothing was received yet, and the first frame must bring a token."""
    FRESH = "fresh"
    """Nothing was received yet."""
    OPENING = "opening"
    """The session is being opened; frames that arrive meanwhile are held."""
    OPEN = "open"
    """The session is open and `ready` was sent."""
    CLOSED = "closed"
    """The connection has ended, or is about to."""

    __hash__ = object.__hash__  # Enum's own is a Python function, called for each frame


class Input(Enum):
    """What may come from a client."""

    HELLO = "hello"
    CHAT = "chat"
    CANCEL = "cancel"
    RESUME = "resume"
    PING = "ping"
    PONG = "pong"
    BAD_HELLO = "faulty hello"
    BAD_FRAME = "faulty frame"
    NOISE = "no frame at all"

    __hash__ = object.__hash__


class Rule(Enum):
    """What an input leads to."""

    OPEN = "open the session"
    GREET_FIRST = "open a session, then answer"
    HOLD = "hold until the session is open"
    ANSWER = "answer"
    STRIKE = "error bad_frame; the last strike closes with 4400"
    DEMAND_TOKEN = "error unauthorized, close with 4401"  # noqa: S105
    IGNORE = "ignore"


def _row(default: Rule, **others: Rule) -> dict[Input, Rule]:
    return {kind: others.get(kind.name, default) for kind in Input}


RULES: Mapping[ConnectionPhase, Mapping[Input, Rule]] = {
    ConnectionPhase.LOCKED: _row(
        Rule.DEMAND_TOKEN, HELLO=Rule.OPEN, BAD_HELLO=Rule.ANSWER, NOISE=Rule.STRIKE
    ),
    ConnectionPhase.FRESH: _row(
        Rule.GREET_FIRST, HELLO=Rule.OPEN, BAD_HELLO=Rule.ANSWER, NOISE=Rule.STRIKE
    ),
    ConnectionPhase.OPENING: _row(Rule.HOLD),
    ConnectionPhase.OPEN: _row(Rule.ANSWER, NOISE=Rule.STRIKE),
    ConnectionPhase.CLOSED: _row(Rule.IGNORE),
}
"""Every pair of phase and input. A faulty `hello` leaves the phase as it is, so that a client may
send a correct one."""

INPUT_OF: Mapping[type, Input] = {
    HelloFrame: Input.HELLO,
    ReadChat: Input.CHAT,
    CancelFrame: Input.CANCEL,
    ResumeFrame: Input.RESUME,
    PingFrame: Input.PING,
    PongFrame: Input.PONG,
    NotAFrame: Input.NOISE,
}

Received: TypeAlias = ReadFrame | BadFrame | NotAFrame


def _input_of(received: Received) -> Input:
    if isinstance(received, BadFrame):
        return Input.BAD_HELLO if received.type == "hello" else Input.BAD_FRAME
    return INPUT_OF[type(received)]


@dataclass(slots=True)
class ConnectionRules:
    """One connection's state.

    `subject` is the subject that the upgrade request was authenticated as, if any. With
    `token_required` the first frame has to be a `hello` with a token. `new_id` makes the id of a
    chat that comes without one.
    """

    new_id: Callable[[], str]
    subject: str | None = None
    token_required: bool = False
    max_readers: int = MAX_READERS
    phase: ConnectionPhase = field(init=False)
    session: str | None = field(default=None, init=False)
    _resumed: bool = field(default=False, init=False)
    _resume: dict[str, int] = field(default_factory=dict, init=False)
    _held: list[Received] = field(default_factory=list, init=False)
    _reading: set[str] = field(default_factory=set, init=False)
    _strikes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.phase = ConnectionPhase.LOCKED if self.token_required else ConnectionPhase.FRESH

    # What came from the client

    def receive(self, text: str) -> ConnectionActions:
        """A text message arrived."""
        try:
            return self._received(decode_frame(text))
        except (BadFrame, NotAFrame) as fault:
            return self._received(fault)

    def receive_binary(self) -> ConnectionActions:
        """A binary message arrived, where only text is allowed."""
        return self._received(NotAFrame("frames are text messages, this one is binary"))

    def _received(self, received: Received) -> ConnectionActions:
        kind = _input_of(received)
        if kind is not Input.NOISE:
            self._strikes = 0
        match RULES[self.phase][kind]:
            case Rule.OPEN:
                assert isinstance(received, HelloFrame)
                return self._open(received)
            case Rule.GREET_FIRST:
                self._held.append(received)
                self.phase = ConnectionPhase.OPENING
                return [OpenSession(None, None)]
            case Rule.HOLD:
                self._held.append(received)
            case Rule.ANSWER:
                return self._answer(received)
            case Rule.STRIKE:
                assert isinstance(received, NotAFrame)
                return self._strike(received)
            case Rule.DEMAND_TOKEN:
                return self._end(
                    RelayError(Code.UNAUTHORIZED, "the first frame must be a hello with a token"),
                    CloseCode.UNAUTHORIZED,
                )
            case Rule.IGNORE:
                pass
        return []

    def _open(self, hello: HelloFrame) -> ConnectionActions:
        self.phase = ConnectionPhase.OPENING
        self._resume = dict(hello.resume or {})
        return [OpenSession(hello.session, hello.token)]

    def _strike(self, fault: NotAFrame) -> ConnectionActions:
        self._strikes += 1
        if self._strikes >= MAX_STRIKES:
            return self._end(fault, CloseCode.NOT_A_FRAME)
        return [SendFrame(error_frame(fault))]

    def _end(self, error: RelayError, code: CloseCode) -> ConnectionActions:
        self.phase = ConnectionPhase.CLOSED
        self._held.clear()
        return [SendFrame(error_frame(error)), CloseConnection(code, error.code.value)]

    def _answer(self, received: Received) -> ConnectionActions:
        match received:
            case HelloFrame():
                return self._hello_again(received)
            case ReadChat():
                id = received.id or self.new_id()
                return self._with_room(id, StartChat(id, received.request))
            case CancelFrame(id=id):
                return [Cancel(id)]
            case ResumeFrame():
                return self._resume_one(received)
            case PingFrame(t=t):
                return [SendFrame(PongFrame(type="pong", t=t))]
            case PongFrame():
                return []
            case BadFrame():
                return [SendFrame(error_frame(received, received.id))]
            case NotAFrame():
                return [SendFrame(error_frame(received))]

    def _hello_again(self, hello: HelloFrame) -> ConnectionActions:
        if hello.session is not None or hello.resume is not None:
            fault = RelayError(
                Code.BAD_FRAME, "hello: session and resume are allowed in the first frame only"
            )
            return [SendFrame(error_frame(fault))]
        if hello.token is not None:
            return [Renew(hello.token)]
        return self._greet()

    def _resume_one(self, frame: ResumeFrame) -> ConnectionActions:
        if frame.stream is None and frame.conversation is None:
            assert frame.id is not None
            return self._with_room(frame.id, Find(frame.id, frame.after))
        link = LinkStream(frame.id, frame.stream, frame.conversation, frame.after)
        return self._with_room(frame.id or frame.stream, link)

    def _with_room(
        self, id: str | None, action: StartChat | Find | LinkStream
    ) -> ConnectionActions:
        if id not in self._reading and len(self._reading) >= self.max_readers:
            fault = RelayError(
                Code.TOO_MANY_STREAMS,
                f"this connection reads {len(self._reading)} streams already",
                retryable=True,
            )
            return [SendFrame(error_frame(fault, id))]
        return [action]

    # Outcomes of actions

    def opened(self, session: str, subject: str | None, *, resumed: bool) -> ConnectionActions:
        """The session is open."""
        self.phase = ConnectionPhase.OPEN
        self.session, self.subject, self._resumed = session, subject, resumed
        actions = self._greet()
        for id, after in self._resume.items():
            actions += self._with_room(id, Find(id, after))
        held, self._held = self._held, []
        for received in held:
            actions += self._received(received)
        return actions

    def _greet(self) -> ConnectionActions:
        assert self.session is not None
        return [Greet(self.session, self._resumed)]

    def renewed(self, subject: str | None) -> ConnectionActions:
        """The token of a later `hello` is valid. It must name the same subject."""
        if subject != self.subject:
            fault = RelayError(Code.FORBIDDEN, "the token belongs to somebody else")
            return self._end(fault, CloseCode.FORBIDDEN)
        return self._greet()

    def refused(self, error: RelayError) -> ConnectionActions:
        """The session could not be opened, or a token is not valid."""
        return self._end(error, CLOSE_ON_REFUSAL.get(error.code, CloseCode.INTERNAL))

    def started(self, id: str, stream: str) -> ConnectionActions:
        """The chat runs, or ran before. A stream that is already read here under this id is not
        read again."""
        return [] if id in self._reading else self.found(id, stream, -1)

    def found(self, id: str, stream: str, after: int) -> ConnectionActions:
        """The stream that is to be read under `id` is known."""
        first = id not in self._reading
        self._reading.add(id)
        return [AttachCursor(id, stream, after, first)]

    def failed(
        self, action: StartChat | AttachCursor | Find | LinkStream | Cancel, error: RelayError
    ) -> ConnectionActions:
        """An action could not be carried out."""
        if isinstance(action, AttachCursor) and action.first:
            self._reading.discard(action.id)
        id = action.stream if isinstance(action, LinkStream) and action.id is None else action.id
        return [SendFrame(error_frame(error, id))]

    def detached(self, id: str) -> None:
        """Nothing more is read under `id`: its terminal record was sent, or it failed."""
        self._reading.discard(id)

    def hello_late(self) -> ConnectionActions:
        """The time for the first `hello` is over. No action where it came in time."""
        if self.phase is not ConnectionPhase.LOCKED:
            return []
        fault = RelayError(Code.UNAUTHORIZED, "no hello with a token arrived in time")
        return self._end(fault, CloseCode.HELLO_LATE)

    def ended(self) -> None:
        """The connection is gone: later calls lead to no actions."""
        self.phase = ConnectionPhase.CLOSED
        self._held.clear()
        self._reading.clear()
