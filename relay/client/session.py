"""The rules of a `relay.v1` client over any number of connections, without I/O.

`Session` holds all chats of one client. Its methods take what happened and return the actions to
carry out, which `relay.client.client` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from relay.client.answer import Answer, AnswerFailed, ClientError, Event, Frame

LinkId: TypeAlias = int
"""Identifies one connection."""

AfterClose = Literal["reconnect", "back_off", "stop"]
"""What a client does after a close code: reconnect, reconnect later, or stay away."""

BASE_DELAY = 0.4
"""Seconds: the upper limit of the first delay between two tries."""

MAX_DELAY = 15.0
"""Seconds: the upper limit of all delays between two tries."""

BACK_OFF_FROM = 3
"""After a close that asks to back off, delays are as long as from this try on."""

MAX_ASKS = 8
"""How often the same gap is asked for before the answer counts as lost."""

NOT_CONNECTED = 1006
"""The close code for a connection that broke without one, or was never made."""

_CLOSE_ERRORS = {
    1009: ("too_large", "the message is too large for this relay: shorten it"),
    4401: ("unauthorized", "the relay requires a valid token"),
    4403: ("forbidden", "the relay does not accept this client"),
    4406: ("bad_request", "the server does not speak relay.v1"),
}


def after_close(code: int) -> AfterClose:
    """What to do after a close code of `relay.v1`."""
    if code in (4429, 4500):
        return "back_off"
    return "stop" if code == 1009 or code >= 4400 else "reconnect"


def close_error(code: int) -> AnswerFailed:
    """The error that running chats get when the relay closes for good."""
    default = ("bad_frame", f"the relay closed the connection ({code})")
    return AnswerFailed(*_CLOSE_ERRORS.get(code, default))


def backoff(attempt: int, random: float) -> float:
    """Seconds before try number `attempt` (from 0), `random` in [0, 1): exponential with jitter."""
    ceiling: float = min(MAX_DELAY, BASE_DELAY * 2 ** min(attempt, 10))
    return ceiling * (0.5 + random / 2)


def judge_silence(silent: float, heartbeat: float) -> Literal["fine", "ask", "dead"]:
    """What a silence of `silent` seconds means if the server sends at least every `heartbeat`
    seconds."""
    if silent >= 2 * heartbeat:
        return "dead"
    return "ask" if silent >= heartbeat else "fine"


@dataclass(frozen=True, slots=True)
class SendOnLink:
    """Send a frame on a connection."""

    link: LinkId
    frame: Frame


@dataclass(frozen=True, slots=True)
class OpenLink:
    """Open a connection: after `delay` seconds if given, else after the back-off of `attempt`.
    Report the result with `Session.opened` or, if it failed, `Session.closed`."""

    attempt: int = 0
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close a connection that carries no chat any more."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class Tell:
    """An answer changed. `event` is None if the answer failed; its `failure` says why."""

    answer: Answer
    event: Event | None


@dataclass(frozen=True, slots=True)
class Ready:
    """The server answered `hello`."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that belongs to no chat."""

    failure: AnswerFailed


@dataclass(frozen=True, slots=True)
class Stop:
    """The server does not want a reconnect."""

    code: int
    failure: AnswerFailed


SessionAction: TypeAlias = SendOnLink | OpenLink | CloseLink | Tell | Ready | Problem | Stop


@dataclass(slots=True, eq=False)
class _Chat:
    answer: Answer
    link: LinkId | None = None
    sent: bool = False
    cancelling: bool = False
    gap: int | None = None
    """The newest seq beyond a gap that was asked for, None if there is none."""
    asks: int = 0


@dataclass(slots=True)
class _LinkState:
    resumed: list[str] = field(default_factory=list)
    draining: bool = False
    closing: bool = False


def _pong(ping: Frame) -> Frame:
    return {"type": "pong", "t": ping["t"]} if "t" in ping else {"type": "pong"}


def _expired() -> AnswerFailed:
    message = "the relay no longer has this answer: send the message again"
    return AnswerFailed("stream_expired", message, retryable=True)


class Session:
    """All chats of one client. Each method returns the actions to carry out, in order.

    `secret` is 22 to 64 random characters of `A-Za-z0-9_-`, chosen by the client. With it, even a
    chat sent before `ready` is never answered twice.
    """

    def __init__(self, secret: str, token: str | None = None) -> None:
        self.secret = secret
        self.token = token
        self._chats: dict[str, _Chat] = {}
        self._links: dict[LinkId, _LinkState] = {}
        self._current: LinkId | None = None
        self._opening = False
        self._attempt = 0

    def connect(self) -> list[SessionAction]:
        """Start connecting, unless a connection is open or being opened."""
        return self._open(OpenLink(attempt=self._attempt))

    def add(self, answer: Answer) -> list[SessionAction]:
        """Add a chat: it is sent at once, or as soon as there is a connection. Raises `ValueError`
        if a chat with this id is running."""
        if answer.id in self._chats:
            raise ValueError(f"a chat with the id {answer.id} is already running")
        chat = self._chats[answer.id] = _Chat(answer)
        if self._current is None:
            return self.connect()
        return list(self._attach(chat, self._current))

    def cancel(self, id: str) -> list[SessionAction]:
        """Cancel a chat: at the server if the chat may have arrived there, else here."""
        chat = self._chats.get(id)
        if chat is None or chat.cancelling:
            return []
        if not chat.sent:
            done = chat.answer.cancel()
            return [Tell(chat.answer, done), *self._forget(chat)]
        chat.cancelling = True
        return [] if chat.link is None else [SendOnLink(chat.link, {"type": "cancel", "id": id})]

    def opened(self, link: LinkId) -> list[SessionAction]:
        """A connection is open: send `hello` and resume or send every waiting chat."""
        self._opening = False
        self._current = link
        waiting = self._carried_by(None)
        resume = {c.answer.id: c.answer.last for c in waiting if c.answer.last >= 0}
        self._links[link] = _LinkState(resumed=list(resume))
        hello: Frame = {"type": "hello", "session": self.secret}
        if self.token:
            hello["token"] = self.token
        if resume:
            hello["resume"] = resume
        actions: list[SessionAction] = [SendOnLink(link, hello)]
        for chat in waiting:
            actions += self._attach(chat, link, in_hello=True)
        return actions + self._retire()

    def received(self, link: LinkId, frame: Frame) -> list[SessionAction]:
        """A frame came. Unknown types are ignored."""
        numbered = isinstance(frame.get("seq"), int)
        match frame.get("type"):
            case "ready":
                return self._ready(link, frame)
            case "ping":
                self._attempt = 0
                return [SendOnLink(link, _pong(frame))]
            case "pong":
                self._attempt = 0
                return []
            case "drain":
                return self._drain(link, frame["reconnect_after"] / 1000)
            case "error" if not numbered:
                return self._refused(link, frame)
        return self._record(link, frame) if numbered else []

    def closed(self, link: LinkId, code: int = NOT_CONNECTED) -> list[SessionAction]:
        """A connection ended, or could not be opened."""
        state = self._links.pop(link, None)
        if state is not None and state.closing:
            return []
        if state is None:
            self._opening = False
        if self._current == link:
            self._current = None
        orphans = self._carried_by(link)
        for chat in orphans:
            chat.link = None
        if self._current is not None:
            return [action for chat in orphans for action in self._attach(chat, self._current)]
        return self._come_back(code)

    def give_up(self, failure: ClientError) -> list[SessionAction]:
        """End every chat without a connection. Planned connections are cancelled; the next chat
        starts connecting again."""
        self._opening = False
        actions: list[SessionAction] = []
        for chat in self._carried_by(None):
            actions += self._fail(chat, failure)
        return actions

    def _come_back(self, code: int) -> list[SessionAction]:
        rule = after_close(code)
        if rule == "stop":
            failure = close_error(code)
            return [Stop(code, failure), *self.give_up(failure)]
        if rule == "back_off":
            self._attempt = max(self._attempt, BACK_OFF_FROM)
        actions = self._open(OpenLink(attempt=self._attempt))
        self._attempt += 1
        return actions

    def _open(self, action: OpenLink) -> list[SessionAction]:
        if self._opening or self._current is not None:
            return []
        self._opening = True
        return [action]

    def _carried_by(self, link: LinkId | None) -> list[_Chat]:
        return [chat for chat in self._chats.values() if chat.link == link]

    def _attach(
        self, chat: _Chat, link: LinkId, *, in_hello: bool = False
    ) -> Iterator[SessionAction]:
        chat.link, chat.sent, chat.gap = link, True, None
        answer = chat.answer
        if answer.last < 0:
            yield SendOnLink(link, {**answer.request, "type": "chat", "id": answer.id})
        elif not in_hello:
            yield SendOnLink(link, {"type": "resume", "id": answer.id, "after": answer.last})
        if chat.cancelling:
            yield SendOnLink(link, {"type": "cancel", "id": answer.id})

    def _ready(self, link: LinkId, frame: Frame) -> list[SessionAction]:
        actions: list[SessionAction] = [Ready(frame)]
        state = self._links.get(link)
        lost = [] if frame.get("resumed") or state is None else state.resumed
        for id in lost:
            if id in self._chats:
                actions += self._fail(self._chats[id], _expired())
        return actions

    def _record(self, link: LinkId, frame: Frame) -> list[SessionAction]:
        chat = self._chats.get(frame.get("id", ""))
        if chat is None:
            return []
        verdict, event = chat.answer.apply(frame)
        if verdict == "gap":
            return self._ask(chat, link, frame)
        if verdict == "dropped":
            return []
        self._attempt = 0
        chat.gap, chat.asks = None, 0
        if chat.answer.finished:
            return [Tell(chat.answer, event), *self._forget(chat)]
        return [] if event is None else [Tell(chat.answer, event)]

    def _ask(self, chat: _Chat, link: LinkId, frame: Frame) -> list[SessionAction]:
        """Ask for the missing records, once: frames already on the way show the same gap. A frame
        with an older seq than the newest seen, or a terminal frame, shows that the answer to that
        request has a gap too."""
        if chat.link != link:
            return []
        seq, known, chat.gap = frame["seq"], chat.gap, frame["seq"]
        if known is not None and seq > known and frame["type"] not in ("done", "error"):
            return []
        chat.asks += 1
        if chat.asks > MAX_ASKS:
            return self._fail(chat, _expired())
        answer = chat.answer
        return [SendOnLink(link, {"type": "resume", "id": answer.id, "after": answer.last})]

    def _refused(self, link: LinkId, frame: Frame) -> list[SessionAction]:
        chat = self._chats.get(frame.get("id", ""))
        failure = AnswerFailed.from_frame(frame)
        if chat is None:
            return [Problem(failure)]
        if failure.code != "draining" or chat.answer.last >= 0:
            return self._fail(chat, failure)
        chat.link = None
        return self._drain(link, failure.retry_after or 1.0)

    def _drain(self, link: LinkId, delay: float) -> list[SessionAction]:
        state = self._links.get(link)
        if state is None:
            return []
        state.draining = True
        if self._current == link:
            self._current = None
        if self._current is None:
            return self._open(OpenLink(delay=delay))
        current, actions = self._current, list[SessionAction]()
        for chat in self._carried_by(None):
            actions += self._attach(chat, current)
        return actions + self._retire()

    def _fail(self, chat: _Chat, failure: ClientError) -> list[SessionAction]:
        chat.answer.fail(failure)
        return [Tell(chat.answer, None), *self._forget(chat)]

    def _forget(self, chat: _Chat) -> list[SessionAction]:
        self._chats.pop(chat.answer.id, None)
        return self._retire()

    def _retire(self) -> list[SessionAction]:
        """Close draining connections that carry no chat, once another connection is open."""
        if self._current is None:
            return []
        carrying = {chat.link for chat in self._chats.values()}
        actions: list[SessionAction] = []
        for link, state in self._links.items():
            if state.draining and not state.closing and link not in carrying:
                state.closing = True
                actions.append(CloseLink(link))
        return actions
