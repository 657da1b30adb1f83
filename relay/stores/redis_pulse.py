"""How Redis does, as this node sees it: whether it answers, and whether it keeps.

The two differ: a Redis that is full or became a replica answers and keeps nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger

MAX_PAUSE = 15.0
"""Seconds that delivery waits for a Redis that does not answer, or keeps nothing, before
readers are told and upstreams closed."""

SAME_TROUBLE = 10.0
"""Seconds of calm after which a trouble that comes back is told again: a Redis at the edge
of its memory refuses and keeps in turn."""


class Pulse:
    """Told of each answer and each failure; `give_up` is called when a trouble lasts.

    `clock` gives seconds, monotonic; `lease` and `patience` are in seconds. Troubles and
    their ends are logged here, once each.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        lease: float,
        patience: float,
        give_up: Callable[[], None],
    ) -> None:
        self.gave_up = False
        self.refusing = False
        self.patience = patience
        self._clock = clock
        self._lease = lease
        self._give_up = give_up
        self._answering_since: float | None = None
        self._answered_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._troubled_since = 0.0
        self._calm_since = float("-inf")
        self._reason = ""
        self._told: set[str] = set()
        self._worth_telling = False

    @property
    def healthy(self) -> bool:
        """Whether Redis answers, and keeps what it is given."""
        return self._timer is None and not self.gave_up

    @property
    def may_take_over(self) -> bool:
        """Whether Redis has answered for a whole lease without a break. After one, a lease
        that is gone says nothing about its owner: the break may have kept it from renewing."""
        since = self._answering_since
        return since is not None and self._clock() - since >= self._lease

    def answered(self) -> None:
        """Redis answered. Silence between two answers counts as a break when it was long
        enough to run leases out, whichever of the two sides had stopped."""
        now = self._clock()
        if self.refusing:
            return
        if self._answering_since is None or now - self._answered_at > self._lease * 2 / 3:
            self._answering_since = now
        self._answered_at = now
        self._recover()

    def kept(self) -> None:
        """Redis answered, and kept something."""
        self.refusing = False
        self.answered()

    def failed(self, reason: str) -> None:
        """A call was not answered. `reason` says why, to follow the word Redis."""
        self._trouble(reason)

    def refused(self, reason: str) -> None:
        """Redis answered that it does not do what it was asked."""
        self.refusing = True
        self._trouble(reason)

    def stop(self) -> None:
        """Give nothing up any more. Idempotent."""
        self._calm()

    def _trouble(self, reason: str) -> None:
        self._answering_since = None  # refused or not heard: leases may not have been renewed
        self._reason = reason
        if self.healthy:
            self._begin_trouble()
        if reason not in self._told:
            self._told.add(reason)
            self._worth_telling = True
            logger.warning("Redis {}: what it has not acknowledged waits", reason)

    def _begin_trouble(self) -> None:
        self._troubled_since = self._clock()
        self._worth_telling = False
        if self._troubled_since - self._calm_since > SAME_TROUBLE:
            self._told.clear()
        self._timer = asyncio.get_running_loop().call_later(self.patience, self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        self.gave_up = self._worth_telling = True
        logger.error(
            "Redis {}, for {:.0f} s: answers under way end with an error that says to try again",
            self._reason,
            self._lasted(),
        )
        self._give_up()

    def _recover(self) -> None:
        if not self.healthy:
            self._calm_since = self._clock()
            if self._worth_telling:
                logger.info("Redis does its part again, after {:.1f} s", self._lasted())
        self._calm()

    def _lasted(self) -> float:
        return self._clock() - self._troubled_since

    def _calm(self) -> None:
        self.gave_up = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
