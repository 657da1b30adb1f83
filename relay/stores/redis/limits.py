"""How long Redis keeps things, and how many streams a session may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from relay.core import defaults
from relay.stores.redis.health import MAX_PAUSE

MAX_KEPT_REQUEST = 1024 * 1024
"""Bytes of a request that Redis keeps for a take-over; an answer to a larger one ends with its
node."""

ERASE_LINGER = 30.0
"""Seconds that an erased stream is kept for readers that are still attached."""

COUNTS_LEASES = 6
"""Leases for which a stream without renewal counts as running in its session."""

ORPHAN_LEASES = 3
"""Leases for which a running stream is kept after its owner's last renewal, in addition to its
grace and the window. The first of these leases must run out before another node may take the
stream over."""

SESSION_REFRESH = 300.0
"""Seconds after which the expiry of a used session is renewed; a quarter of the session's lifetime
if that is less."""


class RedisTerms(NamedTuple):
    """The limits in the units of the scripts: times in ms, sizes in bytes, and the number of
    streams that a session may run."""

    keep: int
    lease: int
    linger: int
    max_running: int
    max_request: int

    @property
    def counts(self) -> int:
        """How long a stream without renewal counts as running, in ms."""
        return COUNTS_LEASES * self.lease

    @property
    def refresh(self) -> float:
        """Seconds after which the expiry of a used session is renewed."""
        return min(SESSION_REFRESH, self.keep / 4000)

    def running(self, grace: float) -> int:
        """How long a running stream is kept after its owner's last renewal, in ms. An orphan waits
        for a reader for `grace` seconds, as with a living owner."""
        return self.keep + int(grace * 1000) + ORPHAN_LEASES * self.lease

    def session(self, grace: float = 0.0) -> int:
        """How long a session is kept after its last renewal, in ms, while it is used or one of its
        streams, of that grace, is running."""
        return self.running(grace) + int(self.refresh * 1000)


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """How long things are kept, in seconds, and how many streams a session may run. `max_pause` is
    how long readers wait for a Redis that does not answer."""

    resume_window: float = defaults.RESUME_WINDOW
    lease_seconds: float = defaults.LEASE_SECONDS
    max_streams_per_session: int = defaults.MAX_STREAMS_PER_SESSION
    max_kept_request: int = MAX_KEPT_REQUEST
    max_pause: float = MAX_PAUSE

    @property
    def terms(self) -> RedisTerms:
        """The limits in the units of the scripts."""
        linger = max(ERASE_LINGER, 3 * self.lease_seconds)
        return RedisTerms(
            keep=max(1_000, int(self.resume_window * 1000)),
            lease=int(self.lease_seconds * 1000),
            linger=int(linger * 1000),
            max_running=self.max_streams_per_session,
            max_request=self.max_kept_request,
        )
