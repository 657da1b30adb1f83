"""The budget of hedges: how many answers may be requested twice. Pure counters."""

from __future__ import annotations

FREE_HEDGES = 10
"""Hedges that each process may launch whatever the budget."""


class HedgeBudget:
    """Bounds the hedges of all streams of a process: the first ten are free, after that
    they are at most `share` (`HEDGE_BUDGET`) of the answers."""

    def __init__(self, share: float, free: int = FREE_HEDGES) -> None:
        self._share = share
        self._free = free
        self.answers = 0
        """Answers begun."""
        self.hedges = 0
        """Hedges launched."""

    def answer_begun(self) -> None:
        """Count one answer."""
        self.answers += 1

    def take(self) -> bool:
        """Whether one more hedge may be launched; where it may, it is counted."""
        if self.hedges + 1 > max(self._free, self._share * self.answers):
            return False
        self.hedges += 1
        return True
