"""The text of chats and answers in a log line, where the operator wants it. Pure.

The pieces are collected when the chat is logged, quickly and within a limit; the log's thread
formats them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from msgspec import Struct

from relay.core.events import ToolCall
from relay.core.records import Shown
from relay.core.redaction import hide_shapes
from relay.core.request import ChatRequest, TextContent, Turn, text_of
from relay.observability.loglines import cut

MAX_CONTENT = 4_000
"""Characters of text that one line shows at most, the newest first. Quoted they still fit a
line's message."""


class LoggedContent(Struct, frozen=True):
    """Pieces of text, each with what it is, oldest first. `whole`: none was left out."""

    pieces: tuple[tuple[str, str], ...]
    whole: bool

    def __str__(self) -> str:
        """Each piece as a JSON string, so that no text can look like another piece. Secrets are
        removed first, because quoting changes how some of them look."""
        shown = [] if self.whole else ["(earlier ones left out)"]
        shown += [
            f"{what}: {json.dumps(hide_shapes(text), ensure_ascii=False)}"
            for what, text in self.pieces
        ]
        return " ".join(shown) or "nothing"


def asked(request: ChatRequest) -> LoggedContent:
    """What a client sent: the system prompt, and each turn's text and calls. Of an image only that
    there is one; offered tools are left out."""
    return _newest(_asked_newest_first(request))


def answered(final: Shown) -> LoggedContent:
    """What readers see of an answer at its end: thinking, text and calls."""
    calls = [("calls", _called(call)) for call in reversed(final.calls)]
    texts = [("text", final.text), ("thinking", final.reasoning)]
    return _newest([*calls, *(each for each in texts if each[1])])


def _newest(newest_first: Iterable[tuple[str, str]]) -> LoggedContent:
    pieces: list[tuple[str, str]] = []
    room = MAX_CONTENT
    for what, text in newest_first:
        if room <= len(what):
            return LoggedContent(tuple(reversed(pieces)), whole=False)
        room -= len(what) + len(text)
        pieces.append((what, cut(text, room + len(text))))
    return LoggedContent(tuple(reversed(pieces)), whole=True)


def _asked_newest_first(request: ChatRequest) -> Iterator[tuple[str, str]]:
    for message in reversed(request.messages):
        for call in reversed(message.tool_calls):
            yield f"{message.role} calls", _called(call)
        yield _who(message), text_of(message.content)
    if request.system:
        yield "system", request.system


def _called(call: ToolCall) -> str:
    return f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}"


def _who(message: Turn) -> str:
    if isinstance(message.content, str):
        return message.role
    others = sum(1 for part in message.content if not isinstance(part, TextContent))
    return f"{message.role} (+{others} attached)" if others else message.role
