"""Rules of RFC 6455 for a server that aiohttp does not enforce. Pure: values in, verdicts out.

aiohttp's reader refuses reserved bits and opcodes, control frames that are too long or fragmented,
malformed close frames, and text that is not UTF-8. It accepts frames without a mask, a message
that begins within another one, close codes that must not be sent, keys that are not base64, and
old versions of the protocol.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

VERSION = "13"
"""The only supported version of the protocol (§4.1)."""

PROTOCOL_ERROR = 1002
"""The close code for a peer that breaks these rules (§7.4.1)."""

REFUSED_FRAME = b"\x87\x80"
"""The head of a frame that every reader has to refuse with 1002 in any state: its opcode is
reserved (§5.2)."""

_NORMAL, _NO_CODE = 1000, 0
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_FIN, _MASK, _OPCODE, _LENGTH = 0x80, 0x80, 0x0F, 0x7F
_CONTINUATION, _CLOSE, _FIRST_CONTROL = 0x0, 0x8, 0x8
_EXTENDED = {126: 2, 127: 8}


def key_fault(keys: Sequence[str]) -> str | None:
    """What is wrong with the values of Sec-WebSocket-Key (§4.2.1, §11.3.1); None for a valid one.
    Never repeats a value."""
    if len(keys) == 1 and _KEY.fullmatch(keys[0]):
        return None
    return "expected Sec-WebSocket-Key once: 16 bytes in base64"


def chosen_subprotocol(offers: Sequence[str], spoken: Sequence[str]) -> str | None:
    """The first offered subprotocol that is in `spoken`. `offers` are the values of every
    Sec-WebSocket-Protocol header, which count as one list (§11.3.4)."""
    offered = (name.strip() for offer in offers for name in offer.split(","))
    return next((name for name in offered if name in spoken), None)


def close_answer(code: int) -> int:
    """The code with which to answer a close frame with `code`, 0 for none: the same (§5.5.1), or
    `PROTOCOL_ERROR` for a code that no endpoint may send (§7.4)."""
    if code == _NO_CODE:
        return _NORMAL
    sent = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    return code if sent or 3000 <= code <= 4999 else PROTOCOL_ERROR


class FrameGate:
    """Passes a client's bytes up to the first frame that breaks a rule.

    A frame has to be masked (§5.1), and a message may not begin within another one (§5.4). Holds
    back at most an incomplete head, so that no part of a bad one passes. Bytes after a close frame
    are dropped (§5.5.1).
    """

    __slots__ = ("_held", "_left", "_unfinished", "broken", "closed")

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self._unfinished = False
        self.broken = False
        self.closed = False

    def admit(self, data: bytes) -> bytes:
        """The bytes that may pass, of `data` and of what was held back before. If `broken` is set,
        the frame after them was refused; call it no more then."""
        whole = self._held + data
        size, at = len(whole), self._left
        while at < size and not self.closed:
            end = _head_end(whole, at)
            if end > size:
                break
            if not self._begin(whole[at], whole[at + 1]):
                self.broken = True
                return whole[:at]
            at = end + _payload_length(whole, at)
        self._left = max(0, at - size)
        self._held = b"" if self.closed else whole[at:]
        return whole[:at]

    def _begin(self, first: int, second: int) -> bool:
        """Whether a frame may begin with these two bytes."""
        opcode = first & _OPCODE
        if not second & _MASK:
            return False
        if opcode >= _FIRST_CONTROL:
            self.closed = opcode == _CLOSE
            return True
        continues, self._unfinished = self._unfinished, not first & _FIN
        return continues == (opcode == _CONTINUATION)


def _head_end(data: bytes, at: int) -> int:
    """The index after the length of the frame at `at`, as far as the bytes received show it."""
    if at + 1 >= len(data):
        return at + 2
    return at + 2 + _EXTENDED.get(data[at + 1] & _LENGTH, 0)


def _payload_length(data: bytes, at: int) -> int:
    """The number of bytes of mask and payload of the masked frame at `at`, whose head is
    complete."""
    length = data[at + 1] & _LENGTH
    if extended := _EXTENDED.get(length):
        length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
    return 4 + length
