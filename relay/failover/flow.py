"""The phases of an answer and every move between them, in one table.

`Failover` decides by the phase what an event means, and changes it only through `next_phase`.
The diagram in `docs/failover.md` is drawn from the table.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """The phase of an answer."""

    NEW = "new"
    """Nothing happened yet."""
    INHERITED = "inherited"
    """The state of a former owner is taken over, and no attempt is launched yet."""
    ASKING = "asking"
    """One attempt is under way and has given no content."""
    HEDGED = "hedged"
    """Two attempts are under way and neither has given content; the first that does leads."""
    LEADING = "leading"
    """An attempt has given content, and no text of it is shown: it reasons, or calls a tool, or its
    text is held until it is known to fit the text shown."""
    STREAMING = "streaming"
    """The leading attempt's text is shown as it comes."""
    LINGERING = "lingering"
    """The finish reason was seen; only counts can follow, and not for long."""
    WAITING = "waiting"
    """No attempt is under way; the next one starts at a known time."""
    ENDED = "ended"
    """The terminal record is appended, or left to another owner."""


class Move(StrEnum):
    """A decision, which changes the phase."""

    INHERIT = "inherit"
    """Take over the state of a former owner."""
    ASK = "ask"
    """Launch an attempt, now the only one."""
    HEDGE = "hedge"
    """Launch a second attempt beside the first."""
    DROP = "drop"
    """One of two attempts ended without content; the other goes on."""
    LEAD = "lead"
    """An attempt gave content: it leads, and the other is aborted."""
    STREAM = "stream"
    """The first text of the leading attempt is shown."""
    SETTLE = "settle"
    """The finish reason was seen."""
    WAIT = "wait"
    """Launch nothing before a known time."""
    FINISH = "finish"
    """Append `done`."""
    FAIL = "fail"
    """Append `error`."""
    CANCEL = "cancel"
    """Abort everything: the answer was cancelled, or another owner goes on."""


_ENDS = {Move.FINISH: Phase.ENDED, Move.FAIL: Phase.ENDED, Move.CANCEL: Phase.ENDED}
_AFTER_AN_ATTEMPT = {Move.ASK: Phase.ASKING, Move.WAIT: Phase.WAITING, **_ENDS}

TRANSITIONS: dict[Phase, dict[Move, Phase]] = {
    Phase.NEW: {
        Move.INHERIT: Phase.INHERITED,
        Move.ASK: Phase.ASKING,
        Move.CANCEL: Phase.ENDED,
    },
    Phase.INHERITED: {Move.ASK: Phase.ASKING, **_ENDS},
    Phase.ASKING: {
        Move.HEDGE: Phase.HEDGED,
        Move.LEAD: Phase.LEADING,
        Move.SETTLE: Phase.LINGERING,
        **_AFTER_AN_ATTEMPT,
    },
    Phase.HEDGED: {Move.DROP: Phase.ASKING, Move.LEAD: Phase.LEADING, **_ENDS},
    Phase.LEADING: {
        Move.STREAM: Phase.STREAMING,
        Move.SETTLE: Phase.LINGERING,
        **_AFTER_AN_ATTEMPT,
    },
    Phase.STREAMING: {Move.SETTLE: Phase.LINGERING, **_AFTER_AN_ATTEMPT},
    Phase.LINGERING: _AFTER_AN_ATTEMPT,
    Phase.WAITING: {Move.ASK: Phase.ASKING, Move.CANCEL: Phase.ENDED},
    Phase.ENDED: {},
}


def next_phase(phase: Phase, move: Move) -> Phase:
    """Where a move leads. Raises `KeyError` for a move that the table doesn't have."""
    return TRANSITIONS[phase][move]


def diagram() -> str:
    """The table as a Mermaid state diagram, moves between the same two states on one line."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.NEW}"]
    for phase, moves in TRANSITIONS.items():
        for target in dict.fromkeys(moves.values()):
            names = ", ".join(move for move, to in moves.items() if to is target)
            lines.append(f"    {phase} --> {target}: {names}")
    lines.append(f"    {Phase.ENDED} --> [*]")
    return "\n".join(lines)
