"""Errors for what a store refuses, shared by all stores."""

from __future__ import annotations

from relay.core.errors import Code, RelayError


def foreign_session() -> RelayError:
    """The session belongs to another subject."""
    return RelayError(Code.FORBIDDEN, "this session belongs to somebody else")


def other_content(id: str) -> RelayError:
    """The id names a chat with other content."""
    return RelayError(Code.BAD_REQUEST, f"id: {id} already names a chat with other content")


def other_stream(id: str) -> RelayError:
    """The id names another stream than the one to link."""
    return RelayError(Code.BAD_REQUEST, f"id: {id} already names another stream")


def too_many(running: int) -> RelayError:
    """The session already runs the allowed number of streams."""
    return RelayError(
        Code.TOO_MANY_STREAMS,
        f"this session already runs {running} streams; wait for one to end or cancel it",
        retryable=True,
    )
