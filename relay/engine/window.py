"""Which turns of a conversation the embedded model is given."""

from __future__ import annotations

from collections.abc import Sequence

from relay.core.request import Turn, text_of

PROMPT_CHARACTERS = 4000
"""Characters of conversation that the embedded model reads, about 1,000 tokens. It reads
some 160 tokens a second on one thread and can't be stopped while it reads, and the answer
needs room in its context too."""


def recent(messages: Sequence[Turn], room: int = PROMPT_CHARACTERS) -> tuple[Turn, ...]:
    """The newest turns of a conversation that fit into `room` characters.

    System turns and the last user turn with all that follows it are always kept, also
    where they alone exceed the room: the engine then refuses the call as too long. Of the
    turns between, the oldest are dropped first, and what is left begins with a user turn.
    """
    systems = [message for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    first = _last_user(turns)
    room -= _characters(systems) + _characters(turns[first:])
    for start in range(first - 1, -1, -1):
        room -= _characters(turns[start : start + 1])
        if room < 0:
            break
        if turns[start].role == "user":
            first = start
    return (*systems, *turns[first:])


def _last_user(turns: Sequence[Turn]) -> int:
    """Index of the last user turn; 0 where there is none, so that nothing is dropped."""
    places = [place for place, turn in enumerate(turns) if turn.role == "user"]
    return places[-1] if places else 0


def _characters(messages: Sequence[Turn]) -> int:
    return sum(len(text_of(message.content)) for message in messages)
