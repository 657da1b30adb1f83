"""Every frame of `relay.v1`: the one source of its schema, its tables and its types.

Tags have no default, so that generated types do not make them optional. Frames from clients refuse
unknown fields; clients ignore what they do not know.

`relay.protocol.codec` reads and writes them. Records are written without these models, which
describe their frames for the schema, the documents and the tests.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from relay.protocol.chat import ID_PATTERN, MAX_NAME_CHARS, ChatFields, Strict, refuse

PROTOCOL: Literal["relay.v1"] = "relay.v1"
"""The WebSocket subprotocol, and `ready.protocol`."""

STREAM_HEADER = "X-Stream-Id"
"""The header of a streamed response that names its stream."""

SESSION_PATTERN = r"^[A-Za-z0-9_-]{22,64}$"
"""A session's name. It is a secret: 22 characters hold 128 bits."""

MAX_TOKEN_CHARS = 8_192
"""Characters of a token in `hello`."""

MAX_RESUMED = 256
"""Streams that one `hello` takes up."""

MAX_SEQ = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact."""

Id = Annotated[str, Field(pattern=ID_PATTERN)]
Seq = Annotated[int, Field(ge=0, le=MAX_SEQ)]
After = Annotated[int, Field(ge=-1, le=MAX_SEQ)]
Milliseconds = Annotated[int, Field(ge=0)]


def _echo_tag(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    return {int: "~int", float: "~float", str: "~string"}.get(type(value))


Echo = Annotated[
    Annotated[int, Field(ge=-MAX_SEQ, le=MAX_SEQ), Tag("~int")]
    | Annotated[float, Tag("~float")]
    | Annotated[str, Field(max_length=MAX_NAME_CHARS), Tag("~string")],
    Discriminator(
        _echo_tag,
        custom_error_type="echo_type",
        custom_error_message="expected a number or a string",
    ),
    # An integer is a number too, so that "one of" would not hold.
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "maxLength": MAX_NAME_CHARS}]}
    ),
]
ErrorCode = Literal[
    "bad_frame",
    "bad_request",
    "unauthorized",
    "forbidden",
    "unknown_provider",
    "stream_expired",
    "too_large",
    "too_many_streams",
    "rate_limited",
    "budget_exceeded",
    "content_policy",
    "context_length",
    "provider_auth",
    "provider_rate_limited",
    "provider_overloaded",
    "provider_timeout",
    "provider_interrupted",
    "provider_error",
    "providers_exhausted",
    "cancelled",
    "abandoned",
    "draining",
    "internal",
]


# Client to server


class HelloFrame(Strict):
    """Optional, and first: needed only to authenticate or to come back. A later one may
    only renew the token."""

    type: Literal["hello"]
    token: str | None = Field(default=None, min_length=1, max_length=MAX_TOKEN_CHARS)
    session: str | None = Field(
        default=None,
        pattern=SESSION_PATTERN,
        description="A secret: the one `ready` gave, or one the client chose at random.",
    )
    resume: dict[Id, After] | None = Field(
        default=None,
        max_length=MAX_RESUMED,
        description="By id, the last seq applied (-1 for none): these streams go on at once.",
    )

    @model_validator(mode="after")
    def _resumes_a_session(self) -> HelloFrame:
        if self.resume and self.session is None:
            raise refuse("resume requires session")
        return self


class ChatFrame(ChatFields):
    """Asks for an answer. Sent again with the same `id` it attaches to the first."""

    type: Literal["chat"]


class CancelFrame(Strict):
    """Ends an answer for all its readers and closes its upstream."""

    type: Literal["cancel"]
    id: Id


class ResumeFrame(Strict):
    """Reads a stream from a given place: one of this session by `id`, any by `stream`, or
    the newest of a `conversation`."""

    type: Literal["resume"]
    id: Id | None = Field(
        default=None,
        description="Required where there is no `stream` and no `conversation`; beside one of them "
        "the id to read it under (left out: the stream's name).",
    )
    after: After = Field(default=-1, description="The last seq applied; -1 for all.")
    stream: str | None = Field(default=None, pattern=ID_PATTERN)
    conversation: str | None = Field(default=None, min_length=1, max_length=MAX_NAME_CHARS)

    @model_validator(mode="after")
    def _names_a_stream(self) -> ResumeFrame:
        if self.stream is not None and self.conversation is not None:
            raise refuse("resume takes stream or conversation, not both")
        if self.id is None and self.stream is None and self.conversation is None:
            raise refuse("resume names an id, a stream or a conversation")
        return self


class PingFrame(Strict):
    """Asks the other side for a `pong`. Both sides may send it."""

    type: Literal["ping"]
    t: Echo | None = Field(default=None, description="Comes back in the `pong`.")


class PongFrame(Strict):
    """Answers a `ping`."""

    type: Literal["pong"]
    t: Echo | None = Field(default=None, description="What the `ping` carried.")


# Server to client


class Sent(BaseModel):
    """A frame or a part of one that the server makes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SessionStream(Sent):
    """A stream of a resumed session."""

    id: str
    stream: str
    seq: After = Field(description="The last one that the log holds; -1 for none yet.")
    status: Literal["running", "done", "error"]


class ProviderOffer(Sent):
    """A provider or route that `chat.provider` may name."""

    name: str
    model: str
    status: Literal["ok", "degraded", "down", "unknown"]


class ReadyLimits(Sent):
    """What the server takes at most."""

    max_frame_bytes: int = Field(description="Inbound; a larger frame closes with 1009.")
    max_streams_per_session: int = Field(description="Running at once.")
    resume_window: float = Field(description="Seconds that a finished stream is kept.")


class ReadyFrame(Sent):
    """Answers `hello`; comes before the answer to any other first frame."""

    type: Literal["ready"]
    protocol: Literal["relay.v1"]
    session: str = Field(description="A secret, for `hello.session` of the next connection.")
    resumed: bool = Field(description="Whether the session was there before.")
    streams: list[SessionStream] | None = Field(
        default=None, description="When resumed: those that run, and the newest of the others."
    )
    providers: list[ProviderOffer] = Field(description="The default first.")
    features: list[str] = Field(description="What may be sent beyond this page.")
    limits: ReadyLimits
    heartbeat: float = Field(description="Seconds between two `ping` of the server.")


class StartFrame(Sent):
    """The chat is accepted. Comes before any upstream call."""

    type: Literal["start"]
    id: str
    seq: Literal[0]
    stream: str = Field(description="The stream's name across sessions and on HTTP. A secret.")
    provider: str
    model: str = Field(description="As configured.")


class TokenFrame(Sent):
    """A piece of the answer."""

    type: Literal["token"]
    id: str
    seq: Seq
    first: Seq | None = Field(default=None, description="When it merges records first..seq.")
    text: str


class ReasoningFrame(Sent):
    """A piece of the model's visible thinking."""

    type: Literal["reasoning"]
    id: str
    seq: Seq
    first: Seq | None = Field(default=None, description="When it merges records first..seq.")
    text: str


class ToolCallFrame(Sent):
    """A whole call of one of the client's tools."""

    type: Literal["tool_call"]
    id: str
    seq: Seq
    call_id: str
    name: str
    arguments: dict[str, Any]
    state: str | None = Field(default=None, description="Opaque; send it back with the call.")


class TargetRef(Sent):
    """A model at a provider."""

    provider: str
    model: str


class FallbackFrame(Sent):
    """Another target takes over."""

    type: Literal["fallback"]
    id: str
    seq: Seq
    from_: TargetRef = Field(
        alias="from",
        description="The target named last. Not among the `attempts` where it was not asked.",
    )
    to: TargetRef
    reason: ErrorCode = Field(description="Why it failed, or why it was not asked.")
    keep: bool = Field(
        description="False: discard all text and reasoning of this id; a fresh answer follows. "
        "True: the answer goes on from where it broke."
    )


class UsageReport(Sent):
    """Tokens, summed over all attempts."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = Field(description="True where a provider gave no count of its own.")


class AttemptReport(Sent):
    """One upstream call."""

    provider: str
    model: str
    outcome: ErrorCode | Literal["ok"]
    ms: Milliseconds
    hedge: bool | None = None
    usage: UsageReport | None = None


class TimingReport(Sent):
    """Milliseconds since the chat was accepted."""

    first_token_ms: Milliseconds | None = Field(description="Null where no text came.")
    total_ms: Milliseconds


class DoneFrame(Sent):
    """The end of an answer. Nothing follows it."""

    type: Literal["done"]
    id: str
    seq: Seq
    provider: str
    model: str = Field(description="As the provider reported it.")
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls", "cancelled"]
    usage: UsageReport
    cost_usd: float | None = None
    attempts: list[AttemptReport]
    timing: TimingReport


class ErrorFrame(Sent):
    """With `seq`: the end of a stream that has no answer. Without: a refusal, which leaves
    the `id` free."""

    type: Literal["error"]
    id: str | None = None
    seq: Seq | None = None
    code: ErrorCode
    message: str = Field(description="For people. Holds no secret.")
    retryable: bool
    retry_after: float | None = Field(default=None, description="Seconds.")
    attempts: list[AttemptReport] | None = Field(default=None, description="As in `done`.")


class DrainFrame(Sent):
    """This process is going away: open another connection for new chats after
    `reconnect_after`; keep this one until its streams end or it closes."""

    type: Literal["drain"]
    reconnect_after: Milliseconds = Field(description="Milliseconds, different for each client.")


ClientFrame: TypeAlias = HelloFrame | ChatFrame | CancelFrame | ResumeFrame | PingFrame | PongFrame
ServerFrame: TypeAlias = (
    ReadyFrame
    | StartFrame
    | TokenFrame
    | ReasoningFrame
    | ToolCallFrame
    | FallbackFrame
    | DoneFrame
    | ErrorFrame
    | PongFrame
    | PingFrame
    | DrainFrame
)
AnySent: TypeAlias = Sent | PingFrame | PongFrame


def _tag(model: type[BaseModel]) -> str:
    tag: str = get_args(model.model_fields["type"].annotation)[0]
    return tag


CLIENT_FRAMES: dict[str, type[ClientFrame]] = {
    _tag(model): model for model in get_args(ClientFrame)
}
"""The model of each `type` that a client may send."""

SERVER_FRAMES: dict[str, type[ServerFrame]] = {
    _tag(model): model for model in get_args(ServerFrame)
}
"""The model of each `type` that the server sends."""
