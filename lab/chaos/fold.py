"""Collects a client's frames and checks the rules of the stream. No sockets, no clock."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.chaos.story import Story

NOTED = 0.3
"""Seconds after which an owner has surely saved a call to its account, even on a busy machine."""


@dataclass(slots=True)
class Reading:
    """One reader's answer so far. `last` is the seq of the last record applied; `outcome` is the
    finish reason or error code once it ended. `begins` is the seq after which the reader joined;
    earlier records are not checked."""

    story: Story
    begins: int = -1
    last: int = -1
    text: str = ""
    stream: str | None = None
    outcome: str | None = None
    done: dict[str, Any] | None = None
    failed: bool = False
    restarts: int = 0
    repeated: int = 0
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last = self.begins

    @property
    def over(self) -> bool:
        """Whether the answer ended, or the reader was told that it is not available."""
        return self.outcome is not None

    def apply(self, frame: dict[str, Any]) -> bool:
        """Take one numbered frame; True if it brought new records."""
        seq = frame["seq"]
        first = frame.get("first", seq)
        if seq <= self.last:
            self.repeated += 1
            return False
        if self.over:
            self.faults.append(f"record {seq} after the terminal one")
        if first <= self.last:
            self.faults.append(f"frame {first}..{seq} straddles the cursor at {self.last}")
        elif first != self.last + 1:
            self.faults.append(f"gap: frame {first}..{seq} after {self.last}")
        self.last = seq
        self._take(frame)
        return True

    def refuse(self, code: str) -> None:
        """The reader was told that the rest is not available."""
        self.outcome, self.failed = code, True

    def _take(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "start":
                self.stream = frame["stream"]
                if frame["seq"] != 0:
                    self.faults.append("a start that is not the first record")
            case "token":
                self.text += frame["text"]
            case "fallback" if not frame["keep"]:
                self.text = ""
                self.restarts += 1
            case "done":
                self.outcome = frame["finish_reason"]
                self.done = frame
            case "error":
                self.refuse(frame["code"])

    def verdict(self) -> list[str]:
        """Every violation that this reader found; empty if there was none."""
        found = list(self.faults)
        whole = self.story.text()
        if self.begins >= 0:
            fits = self.text in whole
            complete = whole.endswith(self.text)
        else:
            fits, complete = whole.startswith(self.text), self.text == whole
        if not fits or (self.outcome == "stop" and not complete):
            lost, doubled = difference(whole, self.text, ended=self.outcome == "stop")
            found.append(f"text differs: {lost} characters lost, {doubled} too many")
        if not self.over:
            found.append(f"hung after record {self.last}")
        return found


def misstatements(done: dict[str, Any], calls: Sequence[tuple[float, float]]) -> list[str]:
    """What a `done` frame leaves out of the calls that the vendor received for its answer, each
    given by its start and end in seconds. A call that ended before its node could save it is not
    counted."""
    found = []
    told = len(done["attempts"])
    had = sum(ended - arrived >= NOTED for arrived, ended in calls)
    if had > told:
        found.append(f"done tells of {told} calls, the vendor had {had}")
    took = calls[-1][0] - calls[0][0] if calls else 0.0
    if done["timing"]["total_ms"] < took * 1000 - 50:
        found.append(f"done tells of {done['timing']['total_ms']} ms, it took {took:.1f} s")
    return found


def difference(whole: str, text: str, *, ended: bool = True) -> tuple[int, int]:
    """How many characters of `whole` are missing in `text`, and how many `text` has too many. If
    the answer did not end, the characters after its last one are not missing."""
    matcher = difflib.SequenceMatcher(None, whole, text, autojunk=False)
    lost = doubled = 0
    codes = matcher.get_opcodes()
    for number, (tag, a, b, c, d) in enumerate(codes):
        if tag == "equal" or (not ended and number == len(codes) - 1 and tag == "delete"):
            continue
        lost, doubled = lost + b - a, doubled + d - c
    return lost, doubled
