"""Turns messages into a transport's bytes: WebSocket frames, HTTP chunks, or unchanged."""

from __future__ import annotations

import struct
from typing import Protocol

_TEXT = 0x81
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack
_SHORT_HEADS = [bytes((_TEXT, length)) for length in range(126)]

_LAST_CHUNK = b"0\r\n\r\n"


class Framing(Protocol):
    """How a transport frames messages. Has no state, so that all connections share it."""

    def frame(self, messages: list[bytes], *, last: bool) -> bytes:
        """The bytes of one write that carries `messages`, of which none is empty. `last`: no
        reader of the connection sends anything after it."""
        ...


class TextFrames:
    """Each message is a text frame of a WebSocket. `last` has no effect: aiohttp writes the
    control frames, and the close frame ends the connection."""

    def frame(self, messages: list[bytes], *, last: bool) -> bytes:
        """One text frame a message."""
        parts: list[bytes] = []
        for message in messages:
            size = len(message)
            parts.append(_SHORT_HEADS[size] if size < 126 else text_frame_head(size))
            parts.append(message)
        return b"".join(parts)


class Chunks:
    """All messages of one write are one chunk of an HTTP/1.1 body (RFC 9112 §7.1), followed by the
    last chunk if `last`."""

    def frame(self, messages: list[bytes], *, last: bool) -> bytes:
        """One chunk for all messages."""
        data = b"".join(messages)
        return b"%x\r\n%b\r\n%b" % (len(data), data, _LAST_CHUNK if last else b"")


class Unframed:
    """Messages unchanged: the body of HTTP/1.0, which ends with the connection."""

    def frame(self, messages: list[bytes], *, last: bool) -> bytes:
        """The messages, joined."""
        return b"".join(messages)


TEXT_FRAMES, CHUNKS, UNFRAMED = TextFrames(), Chunks(), Unframed()


def text_frame_head(length: int) -> bytes:
    """The head of an unmasked, whole text frame (RFC 6455 §5.2)."""
    if length < 126:
        return _SHORT_HEADS[length]
    if length < 65_536:
        return _MEDIUM(_TEXT, 126, length)
    return _LONG(_TEXT, 127, length)
