"""What can happen to a client's TCP connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

SILENT_SECONDS = 15.0
"""How long a connection stays open that its client has left without a word."""


def reset(transport: Any) -> None:
    """Tear it down with an RST, whatever is under way."""
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def fall_silent(transport: Any) -> None:
    """Read nothing and say nothing from here on, the connection open: what the other side
    sees of a network that is gone. It is torn down when nobody cares any more."""
    if transport is None or transport.is_closing():
        return
    transport.pause_reading()
    asyncio.get_running_loop().call_later(SILENT_SECONDS, transport.abort)
