"""One upstream call on the lean way: its answer's bytes to events, and what its end means."""

from __future__ import annotations

import time
from typing import Protocol

from relay.core.errors import Fault
from relay.core.provider import Call, Caller, UpstreamCall
from relay.providers.decoding.decoder import Decoder
from relay.providers.decoding.faults import Reply, closed_early
from relay.providers.http.exchange import Response
from relay.providers.http.http1 import ConnectTimeout, TransportError, Unreachable, Unsupported
from relay.providers.http.sdk_client import connect_timed_out, unreachable, without_secret


class Asker(Protocol):
    """What a call has to know of the provider that makes it."""

    secret: str | None
    """The provider's key, which is kept out of what is said of a failure."""

    def classify(self, reply: Reply, call: Call | None) -> Fault:
        """The `Fault` of a refusal, a status of 400 and above."""
        ...

    def step_aside(self, call: Call, caller: Caller) -> UpstreamCall:
        """Make `call` by the SDK, and all others of its model from here on: the lean way can't
        read what is answered."""
        ...


class LeanCall:
    """One upstream call on the lean way. Its answer's body goes to `decoder`; the events, one
    call a read, and its end go to `caller`. Nothing is heard before `carried_by` was called."""

    __slots__ = ("_asker", "_call", "_caller", "_decoder", "_upstream")

    def __init__(self, asker: Asker, call: Call, decoder: Decoder, caller: Caller) -> None:
        self._asker = asker
        self._call = call
        self._decoder = decoder
        self._caller = caller
        self._upstream: UpstreamCall | None = None

    def carried_by(self, upstream: UpstreamCall) -> None:
        """Whose closing closes the call: its response."""
        self._upstream = upstream

    def close(self) -> None:
        """Close the upstream at once. Idempotent."""
        if self._upstream is not None:
            self._upstream.close()

    def take(self, body: bytes) -> bool:
        """Decode what one read brought; whether more is wanted. Raises the decoder's `Fault`."""
        decoder = self._decoder
        if events := decoder.feed(body):
            self._caller.take(events)
        if decoder.fault:
            raise decoder.fault
        return not decoder.ended

    def over(self, response: Response, error: Exception | None) -> None:
        """Tell the caller how the response ended, or go on through the SDK."""
        if isinstance(error, Unsupported):
            self._upstream = self._asker.step_aside(self._call, self._caller)
            return
        if error is None:
            error = self._conclusion(response)
        elif isinstance(error, TransportError):
            error = None if self._decoder.finished else _fault(error)
        if isinstance(error, Fault):
            without_secret(error, self._asker.secret)
        self._caller.ended(error)

    def _conclusion(self, response: Response) -> Exception | None:
        """What the body's end leaves, where the response is whole."""
        if response.status >= 400:
            return self._asker.classify(_reply_of(response), self._call)
        try:
            if events := self._decoder.eof():
                self._caller.take(events)
        except Exception as error:
            return error
        return self._decoder.fault


def _reply_of(response: Response) -> Reply:
    return Reply(response.status, response.headers, response.content, time.time())


def _fault(error: TransportError) -> Fault:
    """What a failure below HTTP means. Its text is dropped: it may hold an address."""
    if isinstance(error, ConnectTimeout):
        return connect_timed_out()
    if isinstance(error, Unreachable):
        return unreachable()
    return closed_early()
