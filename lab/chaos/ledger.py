"""What was tried and what was lost: the report's figures, and the verdict."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from lab.chaos.clients import Client
from lab.chaos.fold import difference, misstatements
from lab.chaos.ground import RESUME_WINDOW, Ground
from lab.chaos.story import Story, fingerprint

EMPTIED = frozenset({"redis restart", "redis flush"})
"""Disasters that delete the text of ended answers and of orphans; docs/guarantees.md says so."""

STORE = EMPTIED | {"redis freeze", "redis full", "redis connections"}
"""All disasters of the store."""

UNKNOWN = STORE | {"node frozen"}
"""Disasters after which not every call may be known."""

HONEST: dict[str, frozenset[str]] = {
    "stream_expired": EMPTIED,
    "internal": STORE,
    "draining": STORE,
}
"""The documented errors, each with the disasters that justify it."""

HONEST_IN_MEMORY: dict[str, frozenset[str]] = {
    "stream_expired": frozenset({"drain"}),
    "draining": frozenset({"drain"}),
}
"""The same as `HONEST` for one node without a store."""

GOOD = frozenset({"stop", "cancelled"})


@dataclass(slots=True)
class KillRow:
    """One kill -9 of an owning node, as seen by the reader that had read most."""

    number: int
    node: str
    streams: int
    story: int
    seq: int
    epochs: str
    ms: float | None
    worst_ms: float | None
    text: str
    equal: bool


@dataclass
class Ledger:
    """The counts of a run. `losses` are sentences; empty means that nothing was lost."""

    ground: Ground
    tried: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)
    kills: list[KillRow] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    readers: int = 0
    characters: int = 0
    lost: int = 0
    doubled: int = 0
    restarts: int = 0
    repeated: int = 0
    connections: int = 0

    def tell(self, what: str) -> None:
        """Count something that was done to the relay."""
        self.tried[what] += 1

    def close(self, client: Client) -> None:
        """A reader has ended: judge it."""
        reading = client.reading
        outcome = reading.outcome or "hung"
        self.readers += 1
        self.connections += client.connections
        self.characters += len(reading.text)
        self.restarts += reading.restarts
        self.repeated += reading.repeated
        self.outcomes[outcome] += 1
        self.refusals.update(client.refusals)
        found = reading.verdict()
        if reading.failed and not self._is_honest(client, outcome):
            found.append(f"ended in {outcome} without a cause")
        if outcome == "cancelled" and not client.cancelled and client.kind == "WebSocket":
            found.append("was cancelled without having asked for it")
        found += self._untold(client)
        if found:
            self._count_characters(client)
            who = f"{client.kind} reader of story {reading.story.number} ({reading.stream})"
            state = self.ground.state(reading.stream) if not reading.over else ""
            self.loss(f"{who}: {'; '.join(found)}{state}")

    def _untold(self, client: Client) -> list[str]:
        """What the end of an answer leaves out. Not checked over HTTP, where a story may have
        several answers, nor after a disaster that may hide calls."""
        done = client.reading.done
        since = client.since - 2.0
        if done is None or client.kind != "WebSocket" or self.ground.troubled_since(since, UNKNOWN):
            return []
        return misstatements(done, self.ground.vendor.times_of(client.reading.story))

    def loss(self, what: str) -> None:
        """Something was lost; it is printed at once, with the time."""
        self.losses.append(what)
        print(f"LOST at {time.strftime('%H:%M:%S')}: {what}", flush=True)

    def _is_honest(self, client: Client, code: str) -> bool:
        if code == "stream_expired" and self._is_gone(client.reading.story):
            return True
        rules = HONEST if self.ground.store else HONEST_IN_MEMORY
        causes = rules.get(code, frozenset())
        return self.ground.troubled_since(client.since - 2.0, causes)

    def _is_gone(self, story: Story) -> bool:
        """Whether its reader erased it, or came back after an ended answer expired."""
        told_at = self.ground.vendor.told_at(story)
        late = told_at is not None and time.monotonic() - told_at > RESUME_WINDOW
        return late or story.number in self.ground.erased

    def _count_characters(self, client: Client) -> None:
        reading = client.reading
        if reading.begins < 0:
            ended = reading.outcome == "stop"
            lost, doubled = difference(reading.story.text(), reading.text, ended=ended)
            self.lost, self.doubled = self.lost + lost, self.doubled + doubled

    def kill_row(self, node: str, hit: list[Client]) -> None:
        """Record the effect of a kill on the readers of that node, which have all ended."""
        hit = [client for client in hit if client.reading.begins < 0] or hit
        if not hit:
            return
        seen = next((c for c in hit if c.outage and not c.outage.own_fault), hit[0])
        outage, reading = seen.outage, seen.reading
        assert outage is not None
        outages = [c.outage for c in hit if c.outage and not c.outage.own_fault]
        times = [each.resumed_ms for each in outages if each.resumed_ms is not None]
        equal = [c for c in hit if c.reading.story.text().startswith(c.reading.text)]
        self.kills.append(
            KillRow(
                number=len(self.kills) + 1,
                node=node,
                streams=len({client.reading.story.number for client in hit}),
                story=reading.story.number,
                seq=outage.seq,
                epochs=f"{outage.epoch}→{outage.epoch_then}",
                ms=outage.resumed_ms,
                worst_ms=max(times, default=None),
                text=fingerprint(reading.text),
                equal=len(equal) == len(hit)
                and (reading.outcome != "stop" or reading.text == reading.story.text()),
            )
        )
