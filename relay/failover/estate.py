"""What a node that died, or went away, left of an answer, as its next owner takes it; pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from relay.core.account import Account, AttemptNote
from relay.core.errors import Code
from relay.core.events import EndedAttempt, Target
from relay.core.records import Chunk, Shown, announced, characters, shown
from relay.failover.attempt import counted

LEFT = frozenset({Code.INTERNAL, Code.DRAINING})
"""Outcomes of attempts that ended with their node, by no fault of the target."""


class Estate(Struct, frozen=True):
    """What is left. `shown` is what stands, `announced` the target that readers were last
    told of (None where not even `start` was written), `characters` all text and reasoning
    that was ever appended.

    `accepted` is when the chat was accepted, by the caller's clock, and `last_sign_ms` how
    long after that the owner last gave a sign of life.
    """

    shown: Shown
    announced: Target | None
    characters: int
    account: Account
    accepted: float
    last_sign_ms: int

    @property
    def attempts(self) -> Sequence[EndedAttempt]:
        """The attempts that the former owners saw the end of, and told of."""
        return self.account.attempts

    def cut_short(self, input_characters: int) -> list[EndedAttempt]:
        """The attempts that were under way when the owner died, as ended with its last sign
        of life. What they used is estimated; `input_characters` is the request's."""
        return [self._cut(note, input_characters) for note in self._under_way()]

    def _under_way(self) -> Sequence[AttemptNote]:
        notes = self.account.calls
        if notes is not None or self.announced is None:
            return notes or ()
        # An owner of an earlier version notes no attempt, and makes one as soon as it has begun.
        told = sum(attempt.usage.output_tokens for attempt in self.attempts if attempt.usage)
        before = min(self.characters, 4 * told)
        provider, model = self.announced.provider, self.announced.model
        return (AttemptNote(provider, model, self.last_sign_ms, before),)

    def _cut(self, note: AttemptNote, input_characters: int) -> EndedAttempt:
        said = max(note.written, self.characters - note.before)
        usage = counted(note.usage, input_characters + note.offered, said, whole=False)
        last = max(self.last_sign_ms, self.account.noted_ms)
        spent = max(0, last - note.began_ms)
        return EndedAttempt(note.provider, note.model, Code.INTERNAL, spent, note.hedge, usage)


def estate_of(
    chunks: Sequence[Chunk], account: Account, accepted: float, last_sign_ms: int
) -> Estate:
    """Fold the records that are there, from 0, into what they leave."""
    left, told = shown(chunks), announced(chunks)
    return Estate(left, told, characters(chunks), account, accepted, last_sign_ms)


def interrupted(attempts: Sequence[EndedAttempt]) -> EndedAttempt | None:
    """The attempt in whose middle the last owner went, the first where it was hedged: of
    `attempts`, the first of those at their end that ended with their node."""
    found = None
    for attempt in reversed(attempts):
        if attempt.outcome not in LEFT:
            break
        found = attempt
    return found
