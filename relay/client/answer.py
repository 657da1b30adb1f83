"""One chat's answer, built from its frames. No sockets, clocks or randomness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Frame: TypeAlias = dict[str, Any]
"""One JSON object of the wire, decoded."""

Advice = Literal["applied", "dropped", "gap"]
"""What was done with a numbered frame: applied, dropped as a duplicate, or refused for a gap."""


@dataclass(frozen=True, slots=True)
class Framed:
    """Base of all events. `frame` is the frame as it came, with the field names of the wire,
    including fields that this client does not know. Merged pieces of text have one frame that
    covers them all, like the relay's merged frames."""

    frame: Frame = field(default_factory=dict, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Start(Framed):
    """The relay accepted the chat. `model` is the configured one; `stream` is the relay's own name
    for the answer, valid across sessions and on the HTTP routes."""

    stream: str
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Text(Framed):
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning(Framed):
    """A piece of the model's visible thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall(Framed):
    """A complete call of one of the chat's tools. Send `state` back with the call."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Fallback(Framed):
    """Another target takes over. If `keep` is False, discard all text and reasoning shown so far:
    a fresh answer follows. `reason` is an error code. A target that recently failed other chats
    may be skipped without a call: then `attempts` lacks it. The wire's `from` and `to` are two
    fields each, because `from` is a keyword of Python."""

    from_provider: str
    from_model: str
    to_provider: str
    to_model: str
    reason: str
    keep: bool


@dataclass(frozen=True, slots=True)
class Done(Framed):
    """The answer's end. `model` is the one the provider reported. `usage`, `attempts` and `timing`
    are those of the `done` frame (milliseconds), empty if the chat was cancelled before it was
    sent."""

    provider: str
    model: str
    finish_reason: str
    usage: dict[str, Any] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    timing: dict[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None


Event: TypeAlias = Start | Text | Reasoning | ToolCall | Fallback | Done
"""What a chat yields, in order. `Done` is the last; a failed answer raises instead."""


class ClientError(Exception):
    """How a chat or a connection failed. If `retryable`, asking again may help, after
    `retry_after` seconds if that is given. `attempts` are the relay's calls of its providers, as
    in the `error` frame; empty if it made none.

    `frame` is the `error` frame itself, or one that the client made because it noticed the error
    and not the relay.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        attempts: Sequence[dict[str, Any]] = (),
        frame: Frame | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
        self.attempts = attempts
        self.frame = frame or self._own_frame()

    def _own_frame(self) -> Frame:
        frame = {
            "type": "error",
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
        }
        if self.retry_after is not None:
            frame["retry_after"] = self.retry_after
        return frame


class ConnectionFailed(ClientError):
    """There is no connection to the relay, and none could be made in time. `code` is
    `unreachable`, or one of the protocol's codes if the relay refused the connection."""


class AnswerFailed(ClientError):
    """The relay ended the answer in an error. `code` is one of the protocol's error codes."""

    @classmethod
    def from_frame(cls, frame: Frame) -> AnswerFailed:
        """The failure that an `error` frame reports."""
        return cls(
            str(frame.get("code", "internal")),
            str(frame.get("message", "")),
            retryable=bool(frame.get("retryable")),
            retry_after=frame.get("retry_after"),
            attempts=frame.get("attempts") or (),
            frame=frame,
        )


_PIECE = frozenset({"type", "id", "seq", "first", "text"})


def merged(before: Event, after: Event) -> Event | None:
    """Two adjacent pieces of text as one, merged as the relay merges records: its frame covers
    both. None if they are no such pieces, or if one carries more than text."""
    if not isinstance(after, Text | Reasoning) or type(before) is not type(after):
        return None
    old, new = before.frame, after.frame
    begins = new.get("first", new["seq"])
    if not old.keys() | new.keys() <= _PIECE or begins != old["seq"] + 1:
        return None
    frame = {**new, "first": old.get("first", old["seq"]), "text": old["text"] + new["text"]}
    return type(after)(frame["text"], frame=frame)


class Answer:
    """What one chat has received so far.

    `last` is the seq of the last frame applied, -1 before any. `done` or `failure` is set once it
    ended.
    """

    def __init__(self, id: str, request: Frame) -> None:
        self.id = id
        self.request = request
        self.last = -1
        self.stream: str | None = None
        self.provider: str | None = None
        self.model: str | None = None
        self.tool_calls: list[ToolCall] = []
        self.done: Done | None = None
        self.failure: ClientError | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether the answer ended, with `done` or a failure."""
        return self.done is not None or self.failure is not None

    @property
    def text(self) -> str:
        """The text so far, without what a fallback discarded."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The visible thinking so far, without what a fallback discarded."""
        return "".join(self._reasoning)

    def apply(self, frame: Frame) -> tuple[Advice, Event | None]:
        """Take one numbered frame.

        On "gap" nothing changed: ask for the records after `last`. The event is what the frame
        means to a reader; None for an `error`, which sets `failure`, and for a type that this
        client does not know.
        """
        seq: int = frame["seq"]
        if self.finished or seq <= self.last:
            return "dropped", None
        if frame.get("first", seq) != self.last + 1:
            return "gap", None
        self.last = seq
        return "applied", self._fold(frame)

    def cancel(self) -> Done:
        """End the answer as cancelled, if the relay never got the chat."""
        frame = {"type": "done", "id": self.id, "finish_reason": "cancelled"}
        self.done = Done("", "", "cancelled", frame=frame)
        return self.done

    def fail(self, failure: ClientError) -> None:
        """End the answer with an error that is not a record of its stream."""
        self.failure = failure

    def _fold(self, frame: Frame) -> Event | None:
        match frame["type"]:
            case "token":
                self._text.append(frame["text"])
                return Text(frame["text"], frame=frame)
            case "reasoning":
                self._reasoning.append(frame["text"])
                return Reasoning(frame["text"], frame=frame)
            case "start":
                self.stream = frame["stream"]
                self.provider, self.model = frame["provider"], frame["model"]
                return Start(frame["stream"], frame["provider"], frame["model"], frame=frame)
            case "tool_call":
                return self._call(frame)
            case "fallback":
                return self._fall_back(frame)
            case "done":
                return self._finish(frame)
            case "error":
                self.failure = AnswerFailed.from_frame(frame)
        return None

    def _call(self, frame: Frame) -> ToolCall:
        call = ToolCall(
            call_id=frame["call_id"],
            name=frame["name"],
            arguments=frame["arguments"],
            state=frame.get("state"),
            frame=frame,
        )
        self.tool_calls.append(call)
        return call

    def _fall_back(self, frame: Frame) -> Fallback:
        before, after = frame["from"], frame["to"]
        self.provider, self.model = after["provider"], after["model"]
        if not frame["keep"]:
            self._text.clear()
            self._reasoning.clear()
        return Fallback(
            from_provider=before["provider"],
            from_model=before["model"],
            to_provider=after["provider"],
            to_model=after["model"],
            reason=frame["reason"],
            keep=frame["keep"],
            frame=frame,
        )

    def _finish(self, frame: Frame) -> Done:
        self.provider, self.model = frame["provider"], frame["model"]
        self.done = Done(
            provider=frame["provider"],
            model=frame["model"],
            finish_reason=frame["finish_reason"],
            usage=frame.get("usage") or {},
            attempts=frame.get("attempts") or [],
            timing=frame.get("timing") or {},
            cost_usd=frame.get("cost_usd"),
            frame=frame,
        )
        return self.done
