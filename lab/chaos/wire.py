"""What can happen to a client's TCP connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

SILENT_SECONDS = 15.0
"""Seconds that a connection stays open after its client abandoned it."""


def reset(transport: Any) -> None:
    """Reset the connection (RST), whatever is being sent."""
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def fall_silent(transport: Any) -> None:
    """Read and send nothing from now on but keep the connection open, which looks to the other
    side like a broken network. The connection is reset later."""
    if transport is None or transport.is_closing():
        return
    transport.pause_reading()
    asyncio.get_running_loop().call_later(SILENT_SECONDS, transport.abort)
