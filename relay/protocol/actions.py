"""The actions that the rules of a connection ask for, and the codes it may be closed with."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from msgspec import Struct

from relay.core.request import ChatRequest
from relay.protocol.frames import AnySent


class CloseCode(IntEnum):
    """Close codes of `relay.v1`. Under 4400 a client reconnects, 1009 excepted; from 4400
    on it does not, 4429 and 4500 excepted, where it backs off first."""

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_LARGE = 1009
    RESTART = 1012
    NOT_A_FRAME = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    SUBPROTOCOL = 4406
    HELLO_LATE = 4408
    TOO_MANY = 4429
    INTERNAL = 4500


class OpenSession(Struct, frozen=True):
    """Verify `token` where there is one, join `session` (None: make one up), and call `opened` or
    `refused`."""

    session: str | None
    token: str | None


class Renew(Struct, frozen=True):
    """Verify `token` and call `renewed` or `refused`."""

    token: str


class Greet(Struct, frozen=True):
    """Send `ready`."""

    session: str
    resumed: bool


class StartChat(Struct, frozen=True):
    """Have the dispatcher start or find the chat, and call `started` or `failed`."""

    id: str
    request: ChatRequest


class AttachCursor(Struct, frozen=True):
    """Read `stream` from the record after the seq `after` under `id`, instead of what is read under
    it; call `failed` where that is not possible (what is read under `id` stays then). Call
    `detached` once the terminal record was sent. `first` says that nothing was read under `id`
    before."""

    id: str
    stream: str
    after: int
    first: bool


class Find(Struct, frozen=True):
    """Look up the session's stream `id` and call `found` or `failed`."""

    id: str
    after: int


class LinkStream(Struct, frozen=True):
    """Make `id` (None: the stream's own name) name `stream`, or else the newest stream of
    `conversation`, and call `found` or `failed`."""

    id: str | None
    stream: str | None
    conversation: str | None
    after: int


class Cancel(Struct, frozen=True):
    """Cancel the session's stream `id`; call `failed` where there is none."""

    id: str


class SendFrame(Struct, frozen=True):
    """Send this frame."""

    frame: AnySent


class CloseConnection(Struct, frozen=True):
    """Send what is waiting, then close with `code`. The last action of a connection."""

    code: CloseCode
    reason: str


ConnectionAction: TypeAlias = (
    OpenSession
    | Renew
    | Greet
    | StartChat
    | AttachCursor
    | Find
    | LinkStream
    | Cancel
    | SendFrame
    | CloseConnection
)
ConnectionActions: TypeAlias = list[ConnectionAction]
