"""What a client makes of its frames, and whether they kept the rules. No sockets, no clock."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.chaos.story import Story

NOTED = 0.3
"""Seconds after which an owner has noted a call, whatever else the machine has to do."""


@dataclass(slots=True)
class Reading:
    """One reader's answer so far. `last` is the seq of the last record applied; `outcome`
    is the finish reason or error code once it ended. `begins` is the seq after which the
    reader joined: what lies before is not its to check."""

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
        """Whether the answer ended, or the reader was told that it can't be had."""
        return self.outcome is not None

    def apply(self, frame: dict[str, Any]) -> bool:
        """Take one numbered frame; True where it brought something."""
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
        """The reader was told that the rest can't be had."""
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
        """Everything that this reader holds against the relay; empty where all is well."""
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
    """What a `done` frame leaves out of the calls that the vendor had for its answer, each from
    when to when, in seconds. One that was over before its node could note it is not counted."""
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
    """How many characters of `whole` are missing in `text`, and how many it has too many.
    Where the answer did not end, what follows the last that it has is not missing."""
    matcher = difflib.SequenceMatcher(None, whole, text, autojunk=False)
    lost = doubled = 0
    codes = matcher.get_opcodes()
    for number, (tag, a, b, c, d) in enumerate(codes):
        if tag == "equal" or (not ended and number == len(codes) - 1 and tag == "delete"):
            continue
        lost, doubled = lost + b - a, doubled + d - c
    return lost, doubled
