"""The events of a connection that code which writes to it needs.

aiohttp offers back-pressure only by awaiting, and does not notify a handler when its client
disconnects. The relay's connections (`relay.edges.http_server`) report both to a listener.
"""

from __future__ import annotations

from typing import Protocol, cast

from aiohttp import web


class LinkListener(Protocol):
    """Is notified of a connection's events. Called from the event loop; must not block."""

    def on_writable(self) -> None:
        """The transport's buffer was full and has drained."""
        ...

    def on_lost(self) -> None:
        """The client disconnected, or closed its sending side. May be called twice."""
        ...


class Link(Protocol):
    """A connection that notifies one listener at a time."""

    listener: LinkListener | None

    @property
    def writing_paused(self) -> bool:
        """Whether the transport's buffer is full."""
        ...


def link_of(request: web.Request) -> Link:
    """The connection that `request` came on."""
    return cast(Link, request.protocol)
