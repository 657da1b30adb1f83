"""How messages become bytes of a transport: WebSocket frames, chunks of HTTP, or as they are."""

from __future__ import annotations

import struct
from typing import Protocol

_TEXT = 0x81
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack
_SHORT_HEADS = [bytes((_TEXT, length)) for length in range(126)]

_LAST_CHUNK = b"0\r\n\r\n"


class Framing(Protocol):
    """A transport's way to carry messages. Has no memory, so that all connections share it."""

    def frame(self, messages: list[bytes], *, last: bool) -> bytes:
        """The bytes of one write that carries `messages`, of which none is empty. `last` where
        nothing of any reader follows."""
        ...


class TextFrames:
    """Each message is a text frame of a WebSocket. aiohttp writes the control frames, and the
    close among them is what ends one, whatever `last` says."""

    def frame(self, messages: list[bytes], *, last: bool) -> bytes:
        """A head before each message."""
        parts: list[bytes] = []
        for message in messages:
            size = len(message)
            parts.append(_SHORT_HEADS[size] if size < 126 else text_frame_head(size))
            parts.append(message)
        return b"".join(parts)


class Chunks:
    """All that one write carries is a chunk of an HTTP/1.1 body (RFC 9112 §7.1), closed by the
    last chunk."""

    def frame(self, messages: list[bytes], *, last: bool) -> bytes:
        """One chunk, and the last chunk behind it where the body ends."""
        data = b"".join(messages)
        return b"%x\r\n%b\r\n%b" % (len(data), data, _LAST_CHUNK if last else b"")


class Unframed:
    """Messages as they are: the body of HTTP/1.0, which the end of the connection closes."""

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
