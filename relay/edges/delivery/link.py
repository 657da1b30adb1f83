"""What a connection tells whoever delivers on it.

aiohttp offers back-pressure only by awaiting, and tells a handler nothing when its client goes
away. The relay's connections (`relay.edges.http_server`) tell both to a listener.
"""

from __future__ import annotations

from typing import Protocol, cast

from aiohttp import web


class LinkListener(Protocol):
    """Who is told what happens to a connection. Called from the event loop; does not wait."""

    def on_writable(self) -> None:
        """The transport was full and has drained."""
        ...

    def on_lost(self) -> None:
        """The client is gone, or has said that it will send no more. May be told twice."""
        ...


class Link(Protocol):
    """A connection that tells one listener at a time."""

    listener: LinkListener | None

    @property
    def writing_paused(self) -> bool:
        """Whether the transport is full."""
        ...


def link_of(request: web.Request) -> Link:
    """The connection that `request` came on."""
    return cast(Link, request.protocol)
