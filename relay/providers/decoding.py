"""What the vendors' decoders share: events out of a body, and how a body may end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import msgspec
from mypy_extensions import mypyc_attr

from relay.errors import Fault
from relay.events import ALIVE, Event
from relay.provider import Sink
from relay.providers.faults import bad_event, closed_early
from relay.providers.sse import Splitter

DRAIN_TIMEOUT = 0.1
"""Seconds that the end of a body is waited for once the end marker came."""


_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)
"""What `_payload` may raise beside a `Fault`: the event is not what the vendor's should be."""


@mypyc_attr(allow_interpreted_subclasses=True)  # a vendor's may stay as it is written
class Decoder(ABC):
    """One answer's body, turned into events. Pure: bytes in, events out.

    After every `feed` and after `eof` look at `fault`: when it is set the answer broke
    there, and the events just returned came before the break. Once `ended` is true
    nothing more needs to be read. `finished` says that the vendor's finish was seen, so
    that a connection which breaks from here on breaks nothing.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.finished = False
        self.ended = False
        self._splitter = Splitter()

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes; one `Alive` where it completes only empty ones.
        The hot path."""
        out: list[Event] = []
        try:
            payloads = self._splitter.feed(data)
            for payload in payloads:
                if payload and not self.ended:
                    self._payload(payload, out)
        except Fault as fault:
            self._stop(fault)
        except _UNREADABLE:
            self._stop(bad_event())
        else:
            if payloads and not out:
                out.append(ALIVE)
        return out

    def eof(self) -> list[Event]:
        """What the body's end leaves. A body that ends before its finish sets `fault`."""
        out: list[Event] = []
        if self.ended or self.fault:
            return out
        try:
            for payload in self._splitter.eof():
                if payload and not self.ended:
                    self._payload(payload, out)
            if stray := self._splitter.stray:
                self._stray(stray)
            if not self.ended:
                self._close(out)
        except Fault as fault:
            self._stop(fault)
        except _UNREADABLE:
            self._stop(bad_event())
        return out

    def _stop(self, fault: Fault) -> None:
        if self.finished:
            self.ended = True
        else:
            self.fault = fault

    def _close(self, out: list[Event]) -> None:
        """The body is over: raise unless the finish was seen."""
        if not self.finished:
            raise closed_early()

    @abstractmethod
    def _payload(self, payload: bytes, out: list[Event]) -> None:
        """Add what one event's payload says to `out`. Raises `Fault`, `MsgspecError`."""

    @abstractmethod
    def _stray(self, stray: bytes) -> None:
        """Raise the `Fault` that lines outside any event speak of, if they do."""


async def pump(chunks: AsyncIterator[bytes], decoder: Decoder, sink: Sink) -> None:
    """Feed a body to `decoder` and its events to `sink`, one call a read.

    Returns at the vendor's end; raises the decoder's `Fault` where the answer broke.
    """
    async for data in chunks:
        if events := decoder.feed(data):
            sink(events)
        if decoder.fault:
            raise decoder.fault
        if decoder.ended:
            await _drain(chunks)
            return
    if events := decoder.eof():
        sink(events)
    if decoder.fault:
        raise decoder.fault


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read what is left of a body that has ended, so that its connection can be used again;
    a body that stays open is not waited for."""
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT):
            async for _ in chunks:
                pass
    except TimeoutError:
        pass
