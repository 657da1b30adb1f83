"""A run as a table for the terminal and as a page of the documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from lab.faults.matrix import COLUMN_TITLES, TRANSPORTS, VENDORS
from lab.faults.run import FAULTS, Report, Result
from lab.faults.scenario import Fault

BENCHMARK = tuple(f"F{n:02}" for n in range(1, 17))
"""The scenarios of the public benchmark."""

MIDSTREAM = ("F08", "F09", "F14")
"""The scenarios among them in which an answer breaks after text was shown."""

_EVERY = (
    "## Every fault",
    "",
    "Passed on so many of the three wires; attempts at the upstream, and seconds until the",
    "answer was whole (from the fastest to the slowest).",
)


class Group(NamedTuple):
    """Faults whose keys begin with `letter`, and the text above their table."""

    letter: str
    words: tuple[str, ...]


GROUPS = (
    Group("F", ("### F: what breaks in front of a gateway",)),
    Group(
        "V",
        (
            "### V: what vendors and gateways send beside their wire's rules",
            "",
            "Shapes seen in the field, written in each wire's own events. V01 to V05 are signs of",
            "failure with an end marker behind them: a broken answer must never look whole. V06 to",
            "V09 are fields of another type, which must not cost the answer, and V10 to V12 tool",
            "calls that only their index tells apart, or not even that. V13 to V15 are refusals",
            "that another target may not make, and a server that does not stream. Where each",
            "target does the same each time (`for ever`), none is asked more than twice.",
        ),
    ),
)

_NUMBER = re.compile(r"\d+(?:\.\d+)?")

PUBLISHED_BEST = "11 of 16"
PUBLISHED = "public benchmark of gateway failover, published September 2026"


def table(report: Report) -> str:
    """One line for each fault, one column for each vendor and transport: attempts and seconds, or
    `MISS`."""
    columns = [(vendor, transport) for vendor in VENDORS for transport in TRANSPORTS]
    columns = [c for c in columns if any((r.vendor, r.transport) == c for r in report.results)]
    by_place = {(r.fault, r.vendor, r.transport): r for r in report.results}
    lines = [f"{'':15}" + "".join(f"{f'{v} {t}':>13}" for v, t in columns)]
    for fault in _played(report):
        cells = (_short(by_place.get((fault.key, *column))) for column in columns)
        lines.append(f"{fault.key:15}" + "".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def _short(result: Result | None) -> str:
    if result is None:
        return "-"
    return f"{result.attempts} {result.seconds:5.1f} s" if result.passed else "MISS"


def document(report: Report) -> str:
    """The page: the results, next to those that others have published."""
    parts = [*_head(report), *_comparison(report), "", *_EVERY]
    for group in GROUPS:
        parts += ["", *group.words, "", *_rows(report, group.letter)]
    return "\n".join(parts) + "\n"


def _head(report: Report) -> list[str]:
    passed = sum(result.passed for result in report.results)
    return [
        "# Faults survived",
        "",
        "Written by `python -m lab.faults --document docs/faults.md`. It starts the relay as it",
        "runs, with loopback upstreams that speak the vendors' wires and misbehave in each of",
        "these ways, and asks over each transport. To pass, an answer must be",
        "equal to the canonical text to the character, end in one terminal frame, name the model",
        "that gave it, keep to the bounds on attempts and time, leave no upstream open, and a",
        "healthy chat must be answered afterwards.",
        "",
        f"{passed} of {len(report.results)} cells passed, with {report.profile}.",
        "",
    ]


def _comparison(report: Report) -> list[str]:
    ours = [_scenarios(report, transport) for transport in TRANSPORTS]
    counts = [f"{len(passed)} of {len(BENCHMARK)}" for passed in ours]
    rescued = ["all" if set(MIDSTREAM) <= passed else "not all" for passed in ours]
    names = [f"this relay, {COLUMN_TITLES[transport]}" for transport in TRANSPORTS]
    rows = [
        f"| {name} | {count} | {rescue} | this run |"
        for name, count, rescue in zip(names, counts, rescued, strict=True)
    ]
    return [
        "## Beside other gateways",
        "",
        "| | scenarios F01 to F16 passed | broken mid-answer (F08, F09, F14) | source |",
        "| --- | --- | --- | --- |",
        *rows,
        f"| best of the other gateways | {PUBLISHED_BEST} | none | {PUBLISHED}; not run here |",
        "",
        "The published figures are others' measurements, on their machines. For this relay a",
        "scenario counts as passed when it passed on all three vendors' wires, variants included.",
        "GPT models are never offered a prefill, so on that wire F14 has nothing to refuse.",
    ]


def _scenarios(report: Report, transport: str) -> set[str]:
    """The benchmark's scenarios that passed over a transport on every vendor's wire."""
    results = [result for result in report.results if result.transport == transport]
    played = {result.fault.partition(" ")[0] for result in results}
    missed = {result.fault.partition(" ")[0] for result in results if not result.passed}
    return (played - missed) & set(BENCHMARK)


def _rows(report: Report, letter: str) -> list[str]:
    lines = [
        "| | fault | " + " | ".join(COLUMN_TITLES[t] for t in TRANSPORTS) + " | attempts | s |",
        "| --- | --- |" + " --- |" * len(TRANSPORTS) + " --- | --- |",
    ]
    for fault in _played(report):
        if not fault.key.startswith(letter):
            continue
        results = [result for result in report.results if result.fault == fault.key]
        shown = [_verdict([r for r in results if r.transport == t]) for t in TRANSPORTS]
        attempts = _span([str(r.attempts) for r in sorted(results, key=lambda r: r.attempts)])
        seconds = _span([f"{r.seconds:.1f}" for r in sorted(results, key=lambda r: r.seconds)])
        worst = _worst([r.note for r in results if r.note])
        cells = [fault.key, fault.title, *shown, attempts, f"{seconds}{worst}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _verdict(results: Sequence[Result]) -> str:
    return f"{sum(result.passed for result in results)} of {len(results)}" if results else "not run"


def _worst(notes: Sequence[str]) -> str:
    """The largest of the values measured in addition to the time."""
    if not notes:
        return ""
    return f" (at worst {max(notes, key=lambda note: [float(n) for n in _NUMBER.findall(note)])})"


def _span(ordered: Sequence[str]) -> str:
    ends = dict.fromkeys((ordered[0], ordered[-1]))
    return " to ".join(ends)


def _played(report: Report) -> list[Fault]:
    played = {result.fault for result in report.results}
    return [fault for fault in FAULTS if fault.key in played]
