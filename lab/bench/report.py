"""Tables of a results file: medians with their spread, and ratios within each round."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]
PEERS = ("litellm", "portkey", "nginx")


def values(rows: list[Row], system: str, key: str) -> dict[int, float]:
    """A figure of one system by round, for the rounds in which it was measured."""
    found = {row["round"]: row[key] for row in rows if row["system"] == system}
    return {number: value for number, value in found.items() if value is not None and value >= 0}


def spread(figures: dict[int, float], digits: int = 1) -> str:
    """Median, and after it the lowest and the highest."""
    if not figures:
        return "—"
    low, high = min(figures.values()), max(figures.values())
    middle = f"{median(figures.values()):,.{digits}f}"
    return middle if len(figures) == 1 else f"{middle} ({low:,.{digits}f}–{high:,.{digits}f})"


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """The median of the ratios within each round."""
    shared = [ours[n] / theirs[n] for n in ours.keys() & theirs.keys() if theirs[n]]
    return f"{median(shared):.2f}×" if shared else "—"


def of(results: dict[str, Any], phase: str, streams: int | None = None) -> list[Row]:
    """The rows of one phase."""
    rows: list[Row] = results["rounds"]
    return [
        row
        for row in rows
        if row["phase"] == phase and (streams is None or row["streams"] == streams)
    ]


def held(results: dict[str, Any]) -> list[Row]:
    """The most paced streams that each system could serve, one row per system and round."""
    best: dict[tuple[str, int], int] = {}
    for step in results["ladder"]:
        key = (step["system"], step["round"])
        best[key] = max(best.get(key, 0), step["streams"] if step["held"] else 0)
    return [{"system": s, "round": n, "streams": most} for (s, n), most in best.items()]


def markdown(results: dict[str, Any]) -> str:
    """The tables that docs/performance.md shows."""
    paced, burst = of(results, "paced", 50), of(results, "burst")
    figures: list[tuple[str, list[Row], str, int]] = [
        ("paced streams a core holds", held(results), "streams", 0),
        ("CPU µs a paced token (50 streams)", paced, "cpu_us_per_token", 1),
        ("added time to first token, p50 ms", paced, "first_token_p50_ms", 2),
        ("delivery p99, ms", paced, "delivery_p99_ms", 2),
        ("burst, tokens/s (64 streams)", burst, "tokens_per_s", 0),
        ("CPU µs a burst token", burst, "cpu_us_per_token", 2),
    ]
    systems = list(dict.fromkeys(row["system"] for row in results["rounds"]))
    machine = results["machine"]
    rounds = len({row["round"] for row in results["rounds"]})
    head = (
        f"{results['when']}, rounds: {rounds}, {machine['processor']}, {machine['cores']} cores, "
    )
    head += f"kernel {machine['kernel']}, Python {machine['python']}, commit {machine['commit']}"
    head += f", {machine['relay']}." if machine.get("relay") else "."
    return "\n".join(
        [
            head,
            "",
            *_table(systems, figures, lambda s, rows, key, n: spread(values(rows, s, key), n)),
            "",
            *_ratios(systems, figures),
            *_many(results),
            *_idle(results),
        ]
    )


def _table(
    systems: list[str],
    figures: list[tuple[str, list[Row], str, int]],
    cell: Callable[[str, list[Row], str, int], str],
) -> list[str]:
    names = [name for name, rows, *_ in figures if rows]
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for system in systems:
        cells = [cell(system, rows, key, digits) for _, rows, key, digits in figures if rows]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return lines


def _many(results: dict[str, Any]) -> list[str]:
    rows = of(results, "paced", 500)
    systems = list(dict.fromkeys(row["system"] for row in rows))
    lines = [
        f"- {system}, 500 paced streams: {spread(values(rows, system, 'cpu_us_per_token'))} CPU µs"
        " a token."
        for system in systems
    ]
    return [*lines, ""] if lines else []


def _idle(results: dict[str, Any]) -> list[str]:
    idle = results.get("idle")
    if not idle:
        return []
    kb, share = idle["kb_per_session"], idle["cpu_share"] * 100
    return [f"- {idle['sessions']:,} idle sessions: {kb:.1f} KB each, {share:.1f} % of a core.", ""]


def _ratios(systems: list[str], figures: list[tuple[str, list[Row], str, int]]) -> list[str]:
    ours = [system for system in systems if system.startswith("relay")]
    lines = []
    for peer in PEERS:
        if peer in systems:
            lines += [f"As a ratio to {peer}, within each round:", ""]
            lines += [*_table(ours, figures, _ratio_to(peer)), ""]
    return lines


def _ratio_to(peer: str) -> Callable[[str, list[Row], str, int], str]:
    """The function that writes a cell of the table of ratios to one peer."""
    return lambda system, rows, key, _: ratio(values(rows, system, key), values(rows, peer, key))


if __name__ == "__main__":
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text())))
