"""How long Redis keeps what, and how many streams a session runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from relay.core import defaults
from relay.stores.redis.health import MAX_PAUSE

MAX_KEPT_REQUEST = 1024 * 1024
"""Bytes of a request that Redis keeps for a take-over; the answer to a larger one ends
with its node."""

ERASE_LINGER = 30.0
"""Seconds that an erased stream stays for the readers who are attached to it."""

COUNTS_LEASES = 6
"""Leases for which a stream counts as running in its session without being renewed."""

ORPHAN_LEASES = 3
"""Leases, beyond its grace and the window, for which a running stream is kept after its
owner's last renewal: the first runs out before another node may take it."""

SESSION_REFRESH = 300.0
"""Seconds after which a session that is in use is kept anew, or a quarter of what it is
kept for, where that is less."""


class RedisTerms(NamedTuple):
    """The limits in the units of the scripts: times in ms, sizes in bytes, and how many
    streams a session runs."""

    keep: int
    lease: int
    linger: int
    max_running: int
    max_request: int

    @property
    def counts(self) -> int:
        """How long a stream counts as running without being renewed, in ms."""
        return COUNTS_LEASES * self.lease

    @property
    def refresh(self) -> float:
        """Seconds after which a session that is in use is kept anew."""
        return min(SESSION_REFRESH, self.keep / 4000)

    def running(self, grace: float) -> int:
        """How long a running stream is kept after its owner's last renewal, in ms: an orphan
        waits for a reader as long as a living owner would have waited, `grace` seconds."""
        return self.keep + int(grace * 1000) + ORPHAN_LEASES * self.lease

    def session(self, grace: float = 0.0) -> int:
        """How long a session is kept after it was last kept anew, in ms: one in use, and
        one of which a stream of that grace runs."""
        return self.running(grace) + int(self.refresh * 1000)


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """How long things are kept, in seconds, and how many streams a session runs.
    `max_pause` is how long readers wait for a Redis that is away."""

    resume_window: float = defaults.RESUME_WINDOW
    lease_seconds: float = defaults.LEASE_SECONDS
    max_streams_per_session: int = defaults.MAX_STREAMS_PER_SESSION
    max_kept_request: int = MAX_KEPT_REQUEST
    max_pause: float = MAX_PAUSE

    @property
    def terms(self) -> RedisTerms:
        """The same in the units of the scripts."""
        linger = max(ERASE_LINGER, 3 * self.lease_seconds)
        return RedisTerms(
            keep=max(1_000, int(self.resume_window * 1000)),
            lease=int(self.lease_seconds * 1000),
            linger=int(linger * 1000),
            max_running=self.max_streams_per_session,
            max_request=self.max_kept_request,
        )
