"""One upstream call's answer on the lean way: bytes to events, and what its end means."""

from __future__ import annotations

import time
from typing import Protocol

from relay.errors import Fault
from relay.provider import Call, Caller, NotDirect
from relay.providers.decoding import Decoder
from relay.providers.exchange import Response
from relay.providers.faults import Reply, closed_early
from relay.providers.http import connect_timed_out, unreachable, without_secret
from relay.providers.http1 import ConnectTimeout, TransportError, Unreachable, Unsupported


class Vendor(Protocol):
    """What an answer has to know of the provider that gives it."""

    secret: str | None

    def classify(self, reply: Reply, call: Call | None) -> Fault:
        """The `Fault` of a refusal, a status of 400 and above."""
        ...

    def stand_aside(self, model: str) -> None:
        """This way cannot read what `model` answers."""
        ...


class Answer:
    """Where one upstream call's answer goes: its body to `decoder`, the events, one call a
    read, and its end to `caller`. `vendor` is whose answer it is."""

    __slots__ = ("_call", "_caller", "_decoder", "_vendor")

    def __init__(self, vendor: Vendor, call: Call, decoder: Decoder, caller: Caller) -> None:
        self._vendor = vendor
        self._call = call
        self._decoder = decoder
        self._caller = caller

    def take(self, body: bytes) -> bool:
        """See `Reader.take`. Raises the decoder's `Fault`."""
        decoder = self._decoder
        if events := decoder.feed(body):
            self._caller.take(events)
        if decoder.fault:
            raise decoder.fault
        return not decoder.ended

    def over(self, response: Response, error: Exception | None) -> None:
        """See `Reader.over`."""
        if error is None:
            error = self._conclusion(response)
        elif isinstance(error, Unsupported):
            self._vendor.stand_aside(self._call.model)
            error = NotDirect()
        elif isinstance(error, TransportError):
            error = None if self._decoder.finished else _fault(error)
        if isinstance(error, Fault):
            without_secret(error, self._vendor.secret)
        self._caller.ended(error)

    def _conclusion(self, response: Response) -> Exception | None:
        """What the body's end leaves, where the response is whole."""
        if response.status >= 400:
            return self._vendor.classify(_reply_of(response), self._call)
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
