"""What every store refuses, in the same words."""

from __future__ import annotations

from relay.core.errors import Code, RelayError


def foreign_session() -> RelayError:
    """The session is another subject's."""
    return RelayError(Code.FORBIDDEN, "this session belongs to somebody else")


def other_content(id: str) -> RelayError:
    """The id names a chat that asks something else."""
    return RelayError(Code.BAD_REQUEST, f"id: {id} already names a chat of other content")


def other_stream(id: str) -> RelayError:
    """The id names another stream than the one to be linked."""
    return RelayError(Code.BAD_REQUEST, f"id: {id} already names another stream")


def too_many(running: int) -> RelayError:
    """The session runs as many streams as it may."""
    return RelayError(
        Code.TOO_MANY_STREAMS,
        f"{running} streams of this session run already; wait for one to end or cancel it",
        retryable=True,
    )
