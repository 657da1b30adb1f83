"""The state of an answer that a new owner takes over from a node that died or shut down. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from relay.core.account import Account, AttemptNote
from relay.core.errors import Code
from relay.core.events import EndedAttempt, Target
from relay.core.records import Chunk, Shown, announced, characters, shown
from relay.failover.attempt import counted

NODE_ENDED = frozenset({Code.INTERNAL, Code.DRAINING})
"""Outcomes of attempts that ended because their node did, not because of the target."""


class Inherited(Struct, frozen=True):
    """What a new owner knows. `shown` is what readers still see, `announced` the target that was
    announced last (None where not even `start` was written), `characters` the length of all text
    and reasoning ever appended.

    `accepted` is when the chat was accepted, by the caller's clock, and `last_sign_ms` the time
    from then to the former owner's last sign of life.
    """

    shown: Shown
    announced: Target | None
    characters: int
    account: Account
    accepted: float
    last_sign_ms: int

    @property
    def attempts(self) -> Sequence[EndedAttempt]:
        """The attempts that ended under the former owners."""
        return self.account.attempts

    def cut_short(self, input_characters: int) -> list[EndedAttempt]:
        """The attempts that were under way when the owner died, as ended with its last sign
        of life. What they used is estimated; `input_characters` is the request's."""
        return [self._cut(note, input_characters) for note in self._under_way()]

    def _under_way(self) -> Sequence[AttemptNote]:
        notes = self.account.calls
        if notes is not None or self.announced is None:
            return notes or ()
        # An owner of an earlier version notes no attempts, and launches one at once.
        reported = sum(attempt.usage.output_tokens for attempt in self.attempts if attempt.usage)
        before = min(self.characters, 4 * reported)
        provider, model = self.announced.provider, self.announced.model
        return (AttemptNote(provider, model, self.last_sign_ms, before),)

    def _cut(self, note: AttemptNote, input_characters: int) -> EndedAttempt:
        said = max(note.written, self.characters - note.before)
        usage = counted(note.usage, input_characters + note.offered, said, whole=False)
        last = max(self.last_sign_ms, self.account.noted_ms)
        spent = max(0, last - note.began_ms)
        return EndedAttempt(note.provider, note.model, Code.INTERNAL, spent, note.hedge, usage)


def inherited_from(
    chunks: Sequence[Chunk], account: Account, accepted: float, last_sign_ms: int
) -> Inherited:
    """Fold the records that exist, from 0, and the account into the state to take over."""
    seen, target = shown(chunks), announced(chunks)
    return Inherited(seen, target, characters(chunks), account, accepted, last_sign_ms)


def interrupted(attempts: Sequence[EndedAttempt]) -> EndedAttempt | None:
    """The attempt that the end of the last owner interrupted, the first of two where it was hedged;
    None without one. Those at the end of `attempts` count whose outcome is in `NODE_ENDED`."""
    found = None
    for attempt in reversed(attempts):
        if attempt.outcome not in NODE_ENDED:
            break
        found = attempt
    return found
