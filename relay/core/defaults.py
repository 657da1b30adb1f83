"""Defaults of settings, shared with the classes that take the same values. Times are in seconds."""

from __future__ import annotations

from typing import Final

HEARTBEAT: Final = 20.0
WRITE_TIMEOUT: Final = 30.0

FIRST_TOKEN_TIMEOUT: Final = 120.0
TOKEN_IDLE_TIMEOUT: Final = 15.0
HEDGE_AFTER: Final = 8.0
MAX_ATTEMPTS: Final = 6
RETRY_AFTER_MAX: Final = 3.0

RESUME_WINDOW: Final = 3600.0
RETAINED_BYTES: Final = 256 * 1024**2
MAX_STREAMS_PER_SESSION: Final = 32
LEASE_SECONDS: Final = 10.0
