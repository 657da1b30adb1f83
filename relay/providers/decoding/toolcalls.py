"""Tool calls that arrive in pieces, told apart and put together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from relay.core.events import FinishReason, ToolCall
from relay.providers.decoding.faults import bad_arguments
from relay.providers.decoding.tolerant import characters, parse_arguments

_NO_ARGUMENTS = frozenset({"", "null"})
"""What servers write for a call without arguments that is no object."""
_STAND_INS = _NO_ARGUMENTS | {"{}"}


class PartialCall:
    """One call as it grows: its arguments come as pieces of JSON text. `told` is the id that
    the vendor gave it, empty where it gave none; `call_id` the one that it goes by. `doubtful`
    where nothing but the name of the call before it came, which may have been said twice.
    """

    __slots__ = ("_pieces", "call_id", "doubtful", "given", "name", "told")

    def __init__(
        self, call_id: str, name: str, given: dict[str, Any] | None = None, told: str = ""
    ) -> None:
        self.call_id = call_id
        self.name = name
        self.given = given
        self.told = told
        self.doubtful = False
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        """More of the arguments' JSON text."""
        if piece:
            self._pieces.append(piece)

    def add_name(self, piece: str) -> None:
        """More of the name: a piece, all of it so far, or all of it once more."""
        if piece.startswith(self.name):
            self.name = piece
        elif piece and not self.begun:
            self.name += piece

    def arguments(self) -> dict[str, Any] | None:
        """The whole arguments: what was `given` where no text came, {} where neither did;
        None where the text is not a JSON object."""
        text = "".join(self._pieces)
        if text.strip() in _NO_ARGUMENTS:
            return self.given or {}
        found = parse_arguments(text)
        return found if found is not None else parse_arguments(self._repeated())

    def says(self, text: str) -> bool:
        """Whether its arguments are just `text` so far."""
        return "".join(self._pieces) == text

    @property
    def begun(self) -> bool:
        """Whether any of its arguments came."""
        return bool(self._pieces) or self.given is not None

    def _repeated(self) -> str:
        """The arguments' text where a piece may repeat all that came before it, or follow
        a stand-in for arguments that were not there yet."""
        text = ""
        for piece in self._pieces:
            begins = piece.startswith(text) or text.strip() in _STAND_INS
            text = piece if begins else text + piece
        return text


class CallsInPieces:
    """An answer's calls. `names` are those of the tools that the model was given.

    Servers tell the pieces of two calls apart by index, by id, by name, or by none of them:
    a call without id, or many calls under one index.
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
        self, index: int | None, told: str, name: str, given: dict[str, Any] | None = None
    ) -> PartialCall:
        """Begin a call. Pieces of its `index` are its own from here on."""
        count = len(self._calls)
        taken = {call.call_id for call in self._calls}
        call = PartialCall(unused(told or f"call_{count}", taken), name, given, told)
        self._calls.append(call)
        self._by_index[count if index is None else index] = call
        return call

    def grow(self, index: int | None, arguments: str | dict[str, Any]) -> bool:
        """More of the arguments of the call at `index`, or of the last one where there is no
        index: a piece of their JSON text, or all of them. False where there is no such call."""
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
        told: str,
        name: str,
        arguments: str | dict[str, Any] | None,
        named: list[PartialCall],
    ) -> None:
        """Take a piece of a call. `named` are the calls that the same event has named so far,
        to which this one is added."""
        text = arguments if isinstance(arguments, str) else ""
        known = self._find(index, told)
        if known is None or self._is_another(known, told, name, text, named):
            call = self.open(index, told, name)
            said = known is not None and known.name == name and known not in named
            call.doubtful = said and not (told or arguments)
        else:
            call = known
            call.add_name(name)
            if told and not call.told:
                call.told = call.call_id = told
        if name:
            named.append(call)
        call.add(text)
        if isinstance(arguments, dict):
            call.given = arguments

    def whole(self, reason: FinishReason) -> list[ToolCall]:
        """The calls as an answer that ended for `reason` leaves them.

        An answer that was cut off by its length leaves out the calls it did not get to the
        end of, and a filtered one all of them: asking again would end the same way.

        Raises `Fault` (PROVIDER_INTERRUPTED) where another answer's call is no JSON object.
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

    def _find(self, index: int | None, told: str) -> PartialCall | None:
        """The call that a piece may belong to: the one at its index, unless that has another
        id and an earlier one has its; without an index the one of its id, else the last."""
        if index is None:
            found = self._calls[-1] if self._calls else None
        else:
            found = self._by_index.get(index)
        if not told or found is None or found.told == told:
            return found
        return next((call for call in self._calls if call.told == told), found)

    def _is_another(
        self, call: PartialCall, told: str, name: str, text: str, named: list[PartialCall]
    ) -> bool:
        """Whether a piece begins a call of its own, although index or order speak for `call`.
        What has no name never does: some servers give each piece a new id."""
        if not name or not call.name:
            return False
        if call in named or (told and call.told and told != call.told):
            return True
        if told and told == call.told:
            again = name != call.name or (text[:1] == "{" and not call.says(text))
            return again and call.begun and call.arguments() is not None
        if not call.begun:
            return name != call.name and name in self._names and call.name in self._names
        if name != call.name:
            return True
        return call.arguments() is not None and not call.says(text)


def unused(call_id: str, taken: Collection[str]) -> str:
    """`call_id`, or one made of it where another call of the answer has it already: a client
    tells its calls apart by it."""
    found = call_id
    for count in range(1, len(taken) + 1):
        if found not in taken:
            break
        found = f"{call_id}_{count}"
    return found


def reason_with(calls: list[ToolCall], reason: FinishReason) -> FinishReason:
    """`reason`, corrected to TOOL_CALLS where calls stand behind a plain stop: OpenAI says
    `stop` for a call that `tool_choice` forced, Gemini has no word of its own for it."""
    return FinishReason.TOOL_CALLS if calls and reason is FinishReason.STOP else reason
