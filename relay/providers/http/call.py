"""One upstream call on the lean way: decodes the answer's bytes to events and classifies its
end."""

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
    """What a call needs of the provider that makes it."""

    secret: str | None
    """The provider's key, which is removed from error messages."""

    def classify(self, reply: Reply, call: Call | None) -> Fault:
        """The `Fault` for a refusal: a status of 400 and above."""
        ...

    def call_by_sdk(self, call: Call, caller: Caller) -> UpstreamCall:
        """Make `call` through the SDK, and every later call of its model too, because the lean way
        can't read the response."""
        ...


class LeanCall:
    """One upstream call on the lean way. `decoder` reads the answer's body. `caller` gets its
    events, one call a read, and its end; it is not called before `carried_by` was."""

    __slots__ = ("_asker", "_call", "_caller", "_decoder", "_upstream")

    def __init__(self, asker: Asker, call: Call, decoder: Decoder, caller: Caller) -> None:
        self._asker = asker
        self._call = call
        self._decoder = decoder
        self._caller = caller
        self._upstream: UpstreamCall | None = None

    def carried_by(self, upstream: UpstreamCall) -> None:
        """Set what `close` has to close: the call's response."""
        self._upstream = upstream

    def close(self) -> None:
        """Close the upstream at once. Idempotent."""
        if self._upstream is not None:
            self._upstream.close()

    def take(self, body: bytes) -> bool:
        """Decode what one read brought; returns whether more is wanted. Raises the decoder's
        `Fault`."""
        decoder = self._decoder
        if events := decoder.feed(body):
            self._caller.take(events)
        if decoder.fault:
            raise decoder.fault
        return not decoder.ended

    def over(self, response: Response, error: Exception | None) -> None:
        """Report the end of the response to the caller, or make the call again through the SDK."""
        if isinstance(error, Unsupported):
            self._upstream = self._asker.call_by_sdk(self._call, self._caller)
            return
        if error is None:
            error = self._conclusion(response)
        elif isinstance(error, TransportError):
            error = None if self._decoder.finished else _fault(error)
        if isinstance(error, Fault):
            without_secret(error, self._asker.secret)
        self._caller.ended(error)

    def _conclusion(self, response: Response) -> Exception | None:
        """The error that the end of a complete response leaves, if any."""
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
    """The `Fault` for a failure below HTTP. The error's text is dropped, since it may hold an
    address."""
    if isinstance(error, ConnectTimeout):
        return connect_timed_out()
    if isinstance(error, Unreachable):
        return unreachable()
    return closed_early()
