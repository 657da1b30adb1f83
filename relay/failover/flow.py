"""The states of an answer and every move between them, in one table.

The failover policy changes state only through `after`, so the table is the policy's
shape, and the diagram in `docs/failover.md` is drawn from it.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where an answer stands."""

    NEW = "new"
    """Nothing happened yet."""
    OPENING = "opening"
    """An attempt runs, and no text stands."""
    OPENING_HEDGED = "opening_hedged"
    """Two attempts run, and no text stands; the first to give content wins."""
    STREAMING = "streaming"
    """One attempt's content is shown as it comes."""
    JOINING = "joining"
    """Text stands, and an attempt runs whose text is not shown before it is known to fit."""
    JOINING_HEDGED = "joining_hedged"
    """As joining, with a second attempt beside it; the first to give content wins."""
    WAITING = "waiting"
    """No attempt runs; the next is due at a known time."""
    LINGERING = "lingering"
    """The finish reason was seen; only counts can follow, and not for long."""
    ENDED = "ended"
    """The terminal record is appended."""


class Move(StrEnum):
    """What is decided."""

    TRY = "try"
    """Launch an attempt from the start; no text stands."""
    CONTINUE = "continue"
    """Launch an attempt that goes on from the text that stands."""
    RESTART = "restart"
    """Launch an attempt from the start although text stands."""
    HEDGE = "hedge"
    """Launch a second attempt beside the first."""
    WAIT = "wait"
    """Launch nothing before a known time."""
    DROP = "drop"
    """One of two attempts ended without content; the other goes on."""
    CHOOSE = "choose"
    """An attempt gave content that is not known to fit yet: it leads, the other is aborted."""
    SHOW = "show"
    """An attempt's content is shown: it leads, the other is aborted."""
    SETTLE = "settle"
    """The finish reason was seen."""
    FINISH = "finish"
    """Append `done`."""
    FAIL = "fail"
    """Append `error`."""
    CANCEL = "cancel"
    """Abort everything and append the terminal record."""


_LAUNCHES = {
    Move.TRY: Phase.OPENING,
    Move.CONTINUE: Phase.JOINING,
    Move.RESTART: Phase.JOINING,
    Move.WAIT: Phase.WAITING,
}
_ENDS = {Move.FINISH: Phase.ENDED, Move.FAIL: Phase.ENDED, Move.CANCEL: Phase.ENDED}

TRANSITIONS: dict[Phase, dict[Move, Phase]] = {
    Phase.NEW: {
        Move.TRY: Phase.OPENING,
        Move.CONTINUE: Phase.JOINING,
        Move.RESTART: Phase.JOINING,
        **_ENDS,
    },
    Phase.OPENING: {
        Move.TRY: Phase.OPENING,
        Move.WAIT: Phase.WAITING,
        Move.HEDGE: Phase.OPENING_HEDGED,
        Move.SHOW: Phase.STREAMING,
        Move.SETTLE: Phase.LINGERING,
        **_ENDS,
    },
    Phase.OPENING_HEDGED: {
        Move.DROP: Phase.OPENING,
        Move.SHOW: Phase.STREAMING,
        Move.FAIL: Phase.ENDED,
        Move.CANCEL: Phase.ENDED,
    },
    Phase.STREAMING: {**_LAUNCHES, Move.SETTLE: Phase.LINGERING, **_ENDS},
    Phase.JOINING: {
        Move.CONTINUE: Phase.JOINING,
        Move.RESTART: Phase.JOINING,
        Move.WAIT: Phase.WAITING,
        Move.HEDGE: Phase.JOINING_HEDGED,
        Move.CHOOSE: Phase.JOINING,
        Move.SHOW: Phase.STREAMING,
        Move.SETTLE: Phase.LINGERING,
        **_ENDS,
    },
    Phase.JOINING_HEDGED: {
        Move.DROP: Phase.JOINING,
        Move.CHOOSE: Phase.JOINING,
        Move.SHOW: Phase.STREAMING,
        **_ENDS,
    },
    Phase.WAITING: {
        Move.TRY: Phase.OPENING,
        Move.CONTINUE: Phase.JOINING,
        Move.RESTART: Phase.JOINING,
        Move.CANCEL: Phase.ENDED,
    },
    Phase.LINGERING: {
        **_LAUNCHES,
        **_ENDS,
    },
    Phase.ENDED: {},
}


def after(phase: Phase, move: Move) -> Phase:
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
