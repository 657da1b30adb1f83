"""Runs streams: drives providers by the failover policy's decisions and appends to the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.request import ChatRequest


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider or route as a client may choose it. `model` is the first target's."""

    name: str
    model: str
    status: Literal["ok", "degraded", "down", "unknown"]


class Dispatcher:
    """Owns every running stream's task; they outlive the sockets that asked for them."""

    default_provider: str

    async def start(
        self,
        request: ChatRequest,
        *,
        session: str,
        id: str,
        subject: str | None,
        grace: float | None = None,
    ) -> str:
        """Start a stream, or find the one that (session, id) names already; returns its
        name, to be given to `StreamLog.attach`. The `start` record is in the log then.
        `request.provider` may be empty for the default. `grace` in seconds, None for the
        configured one.

        Raises `RelayError`: UNKNOWN_PROVIDER (the message says why it is off),
        BAD_REQUEST, TOO_MANY_STREAMS, DRAINING, STREAM_EXPIRED.
        """
        raise NotImplementedError

    def offers(self) -> list[Offer]:
        """What a client may ask for, the default first."""
        raise NotImplementedError

    @property
    def draining(self) -> bool:
        """Whether new chats are refused because this process is going away."""
        raise NotImplementedError
