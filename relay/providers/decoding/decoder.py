"""What the vendors' decoders share: reading events from a body, and the ways a body may end."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from mypy_extensions import mypyc_attr

from relay.core.errors import Fault
from relay.core.events import ALIVE, Event, Finish, FinishReason, Reasoning, Text, ToolCall
from relay.core.provider import Take
from relay.providers.decoding.failures import failure, is_life, is_sign_of_life
from relay.providers.decoding.faults import bad_event, broken_by, closed_early, unknown_object
from relay.providers.decoding.sse import Aside, Splitter
from relay.providers.decoding.tolerant import Joiner, Unreadable, parse
from relay.providers.decoding.verdicts import REFUSED, Judge, refusal_of

DRAIN_TIMEOUT = 0.1
"""Seconds to wait for the end of a body after the end marker."""


_DATA = re.compile(rb"\A(?:data:\s*)+")
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What strict decoding raises for an event that does not have its declared shape."""


@mypyc_attr(allow_interpreted_subclasses=True)  # a vendor's subclass may run uncompiled
class Decoder(ABC):
    """One answer's body, turned into events. Pure: bytes in, events out.

    After every `feed` and after `eof` check `fault`: if it is set, the answer broke at this point,
    and the events just returned came before the break. Once `ended` is true nothing more needs to
    be read. `finished` means that the vendor's finish was seen: if the connection breaks after
    that, the answer is still whole.

    Events are first decoded strictly. An event that does not have its declared shape is decoded
    again with tolerance. It is a break only if it may have carried text that can't be read.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.fault: Fault | None = None
        self.finished = False
        self.ended = False
        self._splitter = Splitter()
        self._joiners: dict[type, Joiner] | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes; a single `Alive` if it completes only empty ones. The
        hot path."""
        out: list[Event] = []
        try:
            payloads = self._splitter.feed(data)
            self._take(payloads, out)
        except Fault as fault:
            self._stop(fault)
        else:
            if payloads and not out:
                out.append(ALIVE)
        return out

    def eof(self) -> list[Event]:
        """The events that the body's end completes. A body that ends before its finish sets
        `fault`."""
        out: list[Event] = []
        if self.ended or self.fault:
            return out
        try:
            self._take(self._splitter.eof(), out)
            if not self.ended:
                self._close(out)
        except Fault as fault:
            self._stop(fault)
        return out

    def _take(self, payloads: list[bytes | Aside], out: list[Event]) -> None:
        for payload in payloads:
            if self.ended:
                return
            if isinstance(payload, Aside):
                self._aside(payload, out)
            elif self._joiners is not None:
                self._tolerantly(payload, out)
            elif payload:
                try:
                    self._payload(payload, out)
                except _UNREADABLE:
                    self._tolerantly(payload, out)

    def _stop(self, fault: Fault) -> None:
        if self.finished:
            self.ended = True
        else:
            self.fault = fault

    def _close(self, out: list[Event]) -> None:
        """The body is over: raise unless the finish was seen."""
        if not self.finished:
            raise closed_early()

    def _tolerantly(self, payload: bytes, out: list[Event]) -> None:
        """Take an event that strict decoding refused. While half a character is held, every event
        is taken here."""
        if payload.startswith(b"data:"):  # written twice, by a server behind another
            self._take([_DATA.sub(b"", payload)], out)
            return
        if not payload or is_life(payload.strip(b' "[]').decode(errors="replace")):
            return
        try:
            self._anything(parse(payload), out)
        except Unreadable:
            lines: list[bytes | Aside] = [*payload.split(b"\n")]
            if len(lines) == 1:
                raise bad_event() from None
            self._take(lines, out)  # events with no blank line between them

    def _anything(self, value: object, out: list[Event]) -> None:
        """Take a JSON value that is an event, or a list of events. An empty value is ignored."""
        found: list[Event] = []
        try:
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict) and each:
                    self._object(each, found)
                elif each not in (None, "", [], {}):
                    raise bad_event()
        finally:
            self._join(found, out)

    def _join(self, found: list[Event], out: list[Event]) -> None:
        """Add the events `found`, after joining characters that were cut between two events. Once
        the first half of a character came, all events pass through here until no half is held."""
        joiners = self._joiners or {}
        for event in found:
            if isinstance(event, Text | Reasoning):
                kind = type(event)
                if text := joiners.setdefault(kind, Joiner()).add(event.text):
                    out.append(kind(text))
            else:
                if isinstance(event, ToolCall | Finish):
                    _release(joiners, out)
                out.append(event)
        waiting = any(joiner.waiting for joiner in joiners.values())
        self._joiners = joiners if waiting else None

    def _aside(self, aside: Aside, out: list[Event]) -> None:
        """Take what the upstream sent outside its events. After the finish it is ignored."""
        value = aside.value
        if self.finished:
            return
        if aside.named:
            told = failure(value) if isinstance(value, dict) else None
            self._error(told or value or aside.text.decode(errors="replace"), out)
        elif aside.bare and isinstance(value, dict | list):
            self._anything(value, out)
        elif aside.broken:
            raise bad_event()

    def _strange(self, value: object, out: list[Event], known: frozenset[str]) -> None:
        """Examine an object that has no field of an answer. It is harmless if it has at least one
        of the names in `known` or is only a sign of life. It is a break if it reports a failure or
        has no known field."""
        if not isinstance(value, dict) or not value:
            return
        if (error := failure(value)) is not None:
            self._error(error, out)
        elif known.isdisjoint(value) and not is_sign_of_life(value):
            raise unknown_object()

    @abstractmethod
    def _payload(self, payload: bytes, out: list[Event]) -> None:
        """Decode one event's payload and add its events to `out`. Raises `Fault`; for a payload of
        another shape raises an exception listed in `_UNREADABLE`, before anything is added."""

    @abstractmethod
    def _object(self, value: dict[str, Any], out: list[Event]) -> None:
        """Decode an event's JSON object of any shape, with tolerance. Raises `Fault` or
        `Unreadable`."""

    def _error(self, error: object, out: list[Event]) -> None:
        """Raise the `Fault` for an error inside the stream, or finish the answer if the error is a
        content filter. After the finish it is ignored."""
        refusal = refusal_of(self._judge, 200, error)
        if self.finished:
            return
        if refusal.verdict is not REFUSED:
            raise broken_by(refusal)
        self._finish(FinishReason.CONTENT_FILTER, out)
        self.finished = self.ended = True

    def _finish(self, reason: FinishReason, out: list[Event]) -> None:
        """Take the vendor's finish."""
        out.append(Finish(reason))
        self.finished = True

    def _end(self, out: list[Event]) -> None:
        """Take the vendor's end marker, which counts as a finish if none came before it."""
        if not self.finished:
            self._finish(FinishReason.STOP, out)
        self.ended = True


def _release(joiners: dict[type, Joiner], out: list[Event]) -> None:
    """Release the character halves that are held, since what follows can't complete them."""
    for kind, joiner in joiners.items():
        if text := joiner.end():
            out.append(kind(text))


async def pump(chunks: AsyncIterator[bytes], decoder: Decoder, take: Take) -> None:
    """Feed a body to `decoder` and pass its events to `take`, one call a read.

    Returns at the vendor's end; raises the decoder's `Fault` if the answer broke.
    """
    async for data in chunks:
        if events := decoder.feed(data):
            take(events)
        if decoder.fault:
            raise decoder.fault
        if decoder.ended:
            await _drain(chunks)
            return
    if events := decoder.eof():
        take(events)
    if decoder.fault:
        raise decoder.fault


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read the rest of a body that has ended, so that its connection can be used again. Stops
    waiting if the body stays open."""
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT):
            async for _ in chunks:
                pass
    except TimeoutError:
        pass
