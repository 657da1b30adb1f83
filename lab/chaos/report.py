"""The report: what was tried, what was lost, and one row for each kill."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from lab.chaos.ledger import KillRow, Ledger

SHOWN_LOSSES = 20


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def kill_table(rows: Sequence[KillRow]) -> str:
    """One row a kill -9."""
    head = ("kill", "node", "streams", "story", "seq", "epochs", "ms", "worst ms", "text", "whole")
    return table(head, map(_kill_cells, rows))


def _kill_cells(row: KillRow) -> tuple[object, ...]:
    place = (row.number, row.node, row.streams, row.story, row.seq, row.epochs)
    whole = "yes" if row.equal else "NO"
    return (*place, _ms(row.ms), _ms(row.worst_ms), row.text, whole)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def report(ledger: Ledger, *, seed: int, seconds: float) -> str:
    """The whole report, in Markdown."""
    vendor = ledger.ground.vendor
    parts = [
        f"# Chaos, {seconds:.0f} s, seed {seed}",
        "## Tried",
        table(("what", "times"), sorted(ledger.tried.items())),
        "## How answers ended",
        table(("outcome", "readers"), sorted(ledger.outcomes.items())),
        "## Refusals after which a client asked again",
        table(("code", "times"), sorted(ledger.refusals.items())),
    ]
    if ledger.kills:
        parts += ["## Kills", kill_table(ledger.kills), _kill_times(ledger.kills)]
    parts += ["## Found", *(f"- {line}" for line in ledger.findings)]
    parts += [
        "## Lost",
        table(
            ("", "count"),
            (
                ("readers", ledger.readers),
                ("connections", ledger.connections),
                ("characters read", f"{ledger.characters:,}"),
                ("upstream calls", vendor.calls),
                ("continuations", vendor.continued),
                ("restarted answers (`keep: false`)", ledger.restarts),
                ("frames sent again and dropped", ledger.repeated),
                ("**lost characters**", ledger.lost),
                ("**doubled characters**", ledger.doubled),
                ("**upstream calls still running**", len(vendor.running)),
                ("**broken promises**", len(ledger.losses)),
            ),
        ),
    ]
    parts += [f"- {line}" for line in ledger.losses[:SHOWN_LOSSES]]
    return "\n\n".join(parts)


def _kill_times(rows: Sequence[KillRow]) -> str:
    times = sorted(row.ms for row in rows if row.ms is not None)
    if not times:
        return ""
    return (
        f"From kill to next token: median {statistics.median(times):.0f} ms, "
        f"longest {times[-1]:.0f} ms."
    )
