"""Tool calls that arrive in pieces, put together."""

from __future__ import annotations

from typing import Any

import msgspec

from relay.events import FinishReason, ToolCall
from relay.providers.faults import bad_arguments


class PartialCall:
    """One call as it grows: its arguments come as pieces of JSON text."""

    __slots__ = ("_pieces", "call_id", "given", "name")

    def __init__(self, call_id: str, name: str, given: dict[str, Any] | None = None) -> None:
        self.call_id = call_id
        self.name = name
        self.given = given
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        """More of the arguments' JSON text."""
        if piece:
            self._pieces.append(piece)

    def arguments(self) -> dict[str, Any] | None:
        """The whole arguments: what was `given` where no text came, {} where neither did;
        None where the text is not a JSON object."""
        text = "".join(self._pieces)
        if not text.strip():
            return self.given or {}
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def begun(self) -> bool:
        """Whether any of its arguments came."""
        return bool(self._pieces or self.given)


def whole_calls(calls: list[PartialCall], reason: FinishReason) -> list[ToolCall]:
    """The calls as an answer that ended for `reason` leaves them.

    An answer that was cut off by its length leaves out the calls it did not get to the end
    of, and a filtered one all of them: asking again would end the same way.

    Raises `Fault` (PROVIDER_INTERRUPTED) where another answer's call is no JSON object.
    """
    if reason is FinishReason.CONTENT_FILTER:
        return []
    cut = reason is FinishReason.LENGTH
    found: list[ToolCall] = []
    for call in calls:
        arguments = call.arguments()
        if cut and (arguments is None or not call.begun):
            continue
        if arguments is None or not call.name:
            raise bad_arguments()
        found.append(ToolCall(call.call_id, call.name, arguments))
    return found


def reason_with(calls: list[ToolCall], reason: FinishReason) -> FinishReason:
    """`reason`, corrected to TOOL_CALLS where calls stand behind a plain stop: OpenAI says
    `stop` for a call that `tool_choice` forced, Gemini has no word of its own for it."""
    return FinishReason.TOOL_CALLS if calls and reason is FinishReason.STOP else reason
