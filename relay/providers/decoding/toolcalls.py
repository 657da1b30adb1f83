"""Joins tool calls that arrive in pieces, and tells the calls of one answer apart."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from relay.core.events import Event, Finish, FinishReason, ToolCall
from relay.providers.decoding.faults import bad_arguments
from relay.providers.decoding.tolerant import characters, parse_arguments

_NO_ARGUMENTS = frozenset({"", "null"})
"""What servers write for a call without arguments, in place of an object."""
_STAND_INS = _NO_ARGUMENTS | {"{}"}


class PartialCall:
    """One call as it grows: its arguments come as pieces of JSON text. `vendor_id` is the id from
    the vendor, empty if it gave none; `call_id` the one that clients see. `doubtful`: the piece
    that began it had nothing but the name of the call before it, which may be a repetition."""

    __slots__ = ("_pieces", "call_id", "doubtful", "given", "name", "vendor_id")

    def __init__(
        self, call_id: str, name: str, given: dict[str, Any] | None = None, vendor_id: str = ""
    ) -> None:
        self.call_id = call_id
        self.name = name
        self.given = given
        self.vendor_id = vendor_id
        self.doubtful = False
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        """Add a piece of the arguments' JSON text."""
        if piece:
            self._pieces.append(piece)

    def add_name(self, piece: str) -> None:
        """Add to the name. `piece` is a piece of it, all of it so far, or all of it once more."""
        if piece.startswith(self.name):
            self.name = piece
        elif piece and not self.begun:
            self.name += piece

    def arguments(self) -> dict[str, Any] | None:
        """The whole arguments. Without text they are what was `given`, or {} if nothing was. None
        if the text is not a JSON object."""
        text = "".join(self._pieces)
        if text.strip() in _NO_ARGUMENTS:
            return self.given or {}
        found = parse_arguments(text)
        return found if found is not None else parse_arguments(self._repeated())

    def says(self, text: str) -> bool:
        """Whether its arguments are exactly `text` so far."""
        return "".join(self._pieces) == text

    @property
    def begun(self) -> bool:
        """Whether any of its arguments came."""
        return bool(self._pieces) or self.given is not None

    def _repeated(self) -> str:
        """The arguments' text, for a server whose pieces may repeat all that came before, or may
        follow a placeholder for arguments that were not there yet."""
        text = ""
        for piece in self._pieces:
            begins = piece.startswith(text) or text.strip() in _STAND_INS
            text = piece if begins else text + piece
        return text


class CallsInPieces:
    """The tool calls of one answer. `names` are those of the tools that the model was given.

    Servers tell the pieces of two calls apart by index, by id, by name, or not at all: a call
    without id, or many calls under one index.
    """

    __slots__ = ("_by_index", "_calls", "_names")

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names
        self._calls: list[PartialCall] = []
        self._by_index: dict[int, PartialCall] = {}

    @property
    def begun(self) -> bool:
        """Whether there is any call."""
        return bool(self._calls)

    def open(
        self, index: int | None, vendor_id: str, name: str, given: dict[str, Any] | None = None
    ) -> PartialCall:
        """Begin a call. Later pieces with its `index` belong to it."""
        count = len(self._calls)
        taken = {call.call_id for call in self._calls}
        call = PartialCall(unused(vendor_id or f"call_{count}", taken), name, given, vendor_id)
        self._calls.append(call)
        self._by_index[count if index is None else index] = call
        return call

    def grow(self, index: int | None, arguments: str | dict[str, Any]) -> bool:
        """Add to the arguments of the call at `index`, or of the last call if there is no index: a
        piece of their JSON text, or all of them. False if there is no such call."""
        call = self._find(index, "")
        if call is None:
            return False
        if isinstance(arguments, str):
            call.add(arguments)
        else:
            call.given = arguments
        return True

    def add(
        self,
        index: int | None,
        vendor_id: str,
        name: str,
        arguments: str | dict[str, Any] | None,
        named: list[PartialCall],
    ) -> None:
        """Take a piece of a call. `named` are the calls that the same event has named so far; the
        piece's call is added to it."""
        text = arguments if isinstance(arguments, str) else ""
        known = self._find(index, vendor_id)
        if known is None or self._is_another(known, vendor_id, name, text, named):
            call = self.open(index, vendor_id, name)
            said = known is not None and known.name == name and known not in named
            call.doubtful = said and not (vendor_id or arguments)
        else:
            call = known
            call.add_name(name)
            if vendor_id and not call.vendor_id:
                call.vendor_id = call.call_id = vendor_id
        if name:
            named.append(call)
        call.add(text)
        if isinstance(arguments, dict):
            call.given = arguments

    def finish(self, reason: FinishReason, out: list[Event]) -> None:
        """Add the calls of an answer that ended for `reason`, and its finish. Raises `Fault`, as
        `whole` does."""
        calls = self.whole(reason)
        out.extend(calls)
        out.append(Finish(reason_with(calls, reason)))

    def whole(self, reason: FinishReason) -> list[ToolCall]:
        """The calls, after the answer ended for `reason`.

        If the answer was cut off by its length, incomplete calls are left out; if it was filtered,
        all calls are: asking again would end the same way.

        Raises `Fault` (PROVIDER_INTERRUPTED) if, in any other answer, a call's arguments are not a
        JSON object.
        """
        if reason is FinishReason.CONTENT_FILTER:
            return []
        cut = reason is FinishReason.LENGTH
        found: list[ToolCall] = []
        for call in self._calls:
            arguments = call.arguments()
            if not call.begun and (cut or call.doubtful):
                continue
            if cut and arguments is None:
                continue
            if arguments is None or not call.name:
                raise bad_arguments()
            found.append(ToolCall(call.call_id, characters(call.name), arguments))
        return found

    def _find(self, index: int | None, vendor_id: str) -> PartialCall | None:
        """The call that a piece may belong to. With an index: the call at that index, unless it
        has another id and an earlier call has this one. Without: the call of its id, else the last
        one."""
        if index is None:
            found = self._calls[-1] if self._calls else None
        else:
            found = self._by_index.get(index)
        if not vendor_id or found is None or found.vendor_id == vendor_id:
            return found
        return next((call for call in self._calls if call.vendor_id == vendor_id), found)

    def _is_another(
        self, call: PartialCall, vendor_id: str, name: str, text: str, named: list[PartialCall]
    ) -> bool:
        """Whether a piece begins a new call, although its index or order points to `call`. A piece
        without a name never does, because some servers give each piece a new id."""
        if not name or not call.name:
            return False
        if call in named or (vendor_id and call.vendor_id and vendor_id != call.vendor_id):
            return True
        if vendor_id and vendor_id == call.vendor_id:
            again = name != call.name or (text[:1] == "{" and not call.says(text))
            return again and call.begun and call.arguments() is not None
        if not call.begun:
            return name != call.name and name in self._names and call.name in self._names
        if name != call.name:
            return True
        return call.arguments() is not None and not call.says(text)


def unused(call_id: str, taken: Collection[str]) -> str:
    """`call_id`, or one made from it if another call of the answer has it already: a client tells
    its calls apart by their ids."""
    found = call_id
    for count in range(1, len(taken) + 1):
        if found not in taken:
            break
        found = f"{call_id}_{count}"
    return found


def reason_with(calls: list[ToolCall], reason: FinishReason) -> FinishReason:
    """`reason`, changed to TOOL_CALLS if there are calls and the reason is a plain stop. OpenAI
    sends `stop` for a call that `tool_choice` forced; Gemini has no reason for calls."""
    return FinishReason.TOOL_CALLS if calls and reason is FinishReason.STOP else reason
