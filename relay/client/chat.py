"""A running chat, as the user of a client sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from relay.client.answer import Answer, Done, Event, merged


class Chat:
    """Iterate over it for the events, once; `Done` is the last. Raises `AnswerFailed` if the
    answer failed, `ConnectionFailed` if the connection to the relay was lost.

    Leaving the loop early does not stop the answer: call `cancel`, or use the chat in
    `async with`, which cancels an answer that has not ended.
    """

    def __init__(self, answer: Answer, cancel: Callable[[str], None]) -> None:
        self._answer = answer
        self._cancel = cancel
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()

    @property
    def id(self) -> str:
        """The chat's id, also its correlation id on the wire."""
        return self._answer.id

    @property
    def answer(self) -> Answer:
        """The answer so far, without what a fallback discarded."""
        return self._answer

    def cancel(self) -> None:
        """Ask the relay to stop. The answer then ends with `Done` and finish reason `cancelled`."""
        self._cancel(self.id)

    async def text(self) -> str:
        """The whole text, after the answer ended. Raises what the iteration raises."""
        await self.done()
        return self._answer.text

    async def done(self) -> Done:
        """Wait for the end. Raises what the iteration raises."""
        while not self._answer.finished:
            await self._wait()
        if self._answer.failure is not None:
            raise self._answer.failure
        assert self._answer.done is not None
        return self._answer.done

    def tell(self, event: Event | None) -> None:
        """Called by the client: the answer changed. Text that was not read yet is merged, so that
        a slow reader needs memory for the text only, not for a queue."""
        if event is not None:
            self._merge(event)
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._answer.failure is not None:
                raise self._answer.failure
            if self._answer.done is not None:
                return
            await self._wait()

    async def __aenter__(self) -> Chat:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._answer.finished:
            self.cancel()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _merge(self, event: Event) -> None:
        both = merged(self._events[-1], event) if self._events else None
        if both is None:
            self._events.append(event)
        else:
            self._events[-1] = both
