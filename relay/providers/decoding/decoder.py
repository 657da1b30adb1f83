"""What the vendors' decoders share: events out of a body, and how a body may end."""

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
from relay.providers.decoding.verdicts import REFUSED, Refusal

DRAIN_TIMEOUT = 0.1
"""Seconds that the end of a body is waited for once the end marker came."""


_DATA = re.compile(rb"\A(?:data:\s*)+")
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the strict way raises for an event that has not its declared shape."""


@mypyc_attr(allow_interpreted_subclasses=True)  # a vendor's may stay as it is written
class Decoder(ABC):
    """One answer's body, turned into events. Pure: bytes in, events out.

    After every `feed` and after `eof` look at `fault`: when it is set the answer broke
    there, and the events just returned came before the break. Once `ended` is true
    nothing more needs to be read. `finished` says that the vendor's finish was seen, so
    that a connection which breaks from here on breaks nothing.

    Events are read strictly first. One that does not have its declared shape is read again
    with tolerance, and is a break only if it may have carried words that can't be read.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.finished = False
        self.ended = False
        self._splitter = Splitter()
        self._joiners: dict[type, Joiner] | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes; one `Alive` where it completes only empty ones.
        The hot path."""
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
        """What the body's end leaves. A body that ends before its finish sets `fault`."""
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
        """Take an event that the strict way refused; while half a character is held, any."""
        if payload.startswith(b"data:"):  # once more, as by a server behind another
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
        """Take a JSON value that stands for an event, or for several. One that is empty
        carries nothing."""
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
        """Add what was found, with characters whole that were cut between two events. From
        the first half on, all events come this way until none is held."""
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
        """Take what the upstream said beside its events. After the finish it means nothing."""
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
        """Look at an object without the fields that make it a part of the answer. It is
        harmless where it has at least one of the names in `known`, or only shows life; it is
        a break where it tells of a failure, or of nothing that is known."""
        if not isinstance(value, dict) or not value:
            return
        if (error := failure(value)) is not None:
            self._error(error, out)
        elif known.isdisjoint(value) and not is_sign_of_life(value):
            raise unknown_object()

    @abstractmethod
    def _payload(self, payload: bytes, out: list[Event]) -> None:
        """Add what one event's payload says to `out`. Raises `Fault`, or for another shape,
        before anything is added, what `_UNREADABLE` lists."""

    @abstractmethod
    def _object(self, value: dict[str, Any], out: list[Event]) -> None:
        """The same for an event's JSON object of any shape. Raises `Fault`, `Unreadable`."""

    @abstractmethod
    def _judge(self, error: object) -> Refusal:
        """What an error inside the stream means: an object, or a vendor's words."""

    def _error(self, error: object, out: list[Event]) -> None:
        """Raise the `Fault` that an error inside the stream stands for, or finish the answer
        where it means a filter. After the finish it means nothing."""
        refusal = self._judge(error)
        if self.finished:
            return
        if refusal.verdict is not REFUSED:
            raise broken_by(refusal)
        self._finish(FinishReason.CONTENT_FILTER, out)
        self.finished = self.ended = True

    def _finish(self, reason: FinishReason, out: list[Event]) -> None:
        """The vendor's finish came."""
        out.append(Finish(reason))
        self.finished = True

    def _end(self, out: list[Event]) -> None:
        """The vendor's end marker came, which is a finish where none came before."""
        if not self.finished:
            self._finish(FinishReason.STOP, out)
        self.ended = True


def _release(joiners: dict[type, Joiner], out: list[Event]) -> None:
    """Give up the halves that are held: what follows can't complete them."""
    for kind, joiner in joiners.items():
        if text := joiner.end():
            out.append(kind(text))


async def pump(chunks: AsyncIterator[bytes], decoder: Decoder, take: Take) -> None:
    """Feed a body to `decoder` and hand its events to `take`, one call a read.

    Returns at the vendor's end; raises the decoder's `Fault` where the answer broke.
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
    """Read what is left of a body that has ended, so that its connection can be used again;
    a body that stays open is not waited for."""
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT):
            async for _ in chunks:
                pass
    except TimeoutError:
        pass
