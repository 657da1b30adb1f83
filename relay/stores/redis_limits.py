"""What the operator may set of the stream log in Redis, and the client it talks by."""

from __future__ import annotations

from dataclasses import dataclass

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from relay import defaults
from relay.stores.redis_claims import Terms
from relay.stores.redis_pulse import MAX_PAUSE

MAX_KEPT_REQUEST = 1024 * 1024
"""Bytes of a request that Redis keeps for a take-over; the answer to a larger one ends
with its node."""

ERASE_LINGER = 30.0
"""Seconds that an erased stream stays for the readers who are attached to it."""

CALL_TIMEOUT = 3.0
"""Seconds that one call to Redis may take before it counts as unanswered."""


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
    def terms(self) -> Terms:
        """The same in the units of the scripts."""
        linger = max(ERASE_LINGER, 3 * self.lease_seconds)
        return Terms(
            keep=max(1_000, int(self.resume_window * 1000)),
            lease=int(self.lease_seconds * 1000),
            linger=int(linger * 1000),
            max_running=self.max_streams_per_session,
            max_request=self.max_kept_request,
        )


def redis_client(url: str) -> redis.Redis:
    """A client as `RedisLog` wants it: bytes, no retries of its own, and a bound on how
    long one call may take. `url` as redis-py takes it, `redis://`, `rediss://`, `unix://`."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CALL_TIMEOUT,
        socket_timeout=CALL_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
