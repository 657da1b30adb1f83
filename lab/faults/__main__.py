"""`python -m lab.faults`: play the matrix, show progress, print the table."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from lab.faults.matrix import REAL, TRANSPORTS, VENDORS, compressed
from lab.faults.report import document, table
from lab.faults.run import JOBS, Report, Result, choose, run
from lab.relay_process import RelayFailed

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 if every cell passed, 1 if one missed, 2 if there is nothing to
    run or the relay did not start."""
    options = _parser().parse_args(arguments)
    cells = choose(options.fault, options.vendor, options.transport)
    if not cells:
        sys.stderr.write("no such fault; expected F01 to F24 or V01 to V15\n")
        return 2
    began = time.monotonic()
    counter = _Counter(len(cells))
    profile = compressed() if options.fast else REAL
    try:
        report = asyncio.run(run(cells, profile, jobs=options.jobs, tell=counter.tell))
    except RelayFailed as error:
        sys.stderr.write(f"{error}\n")
        return 2
    _publish(report, time.monotonic() - began, options)
    return 0 if report.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.faults", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="compress all waits by settings")
    parser.add_argument("--fault", action="append", default=[], metavar="F08", type=str)
    parser.add_argument("--vendor", action="append", default=[], choices=VENDORS)
    parser.add_argument("--transport", action="append", default=[], choices=TRANSPORTS)
    parser.add_argument("--jobs", type=int, default=JOBS, help="cells at once (%(default)s)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="results (%(default)s)")
    parser.add_argument("--document", type=Path, help="write the results as Markdown")
    return parser


class _Counter:
    """Prints one line for each finished cell."""

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._done = 0

    def tell(self, result: Result) -> None:
        """A cell has ended: print its line."""
        self._done += 1
        verdict = "pass" if result.passed else "MISS"
        name = f"{result.fault} {result.vendor} {result.transport}"
        line = f"{self._done:4}/{self._cells}  {verdict}  {name:32} {result.attempts:3} attempts"
        sys.stdout.write(f"{line} {result.seconds:6.1f} s  {result.note}\n")
        for miss in result.misses:
            sys.stdout.write(f"{'':14}{miss}\n")
        sys.stdout.flush()


def _publish(report: Report, seconds: float, options: argparse.Namespace) -> None:
    sys.stdout.write(f"\n{table(report)}\n")
    for defect in report.defects:
        sys.stdout.write(f"\nThe relay's log contains an error:\n{defect}\n")
    missed = len(report.missed)
    verdict = f"{missed} missed" if missed else "all passed"
    sys.stdout.write(f"\n{len(report.results)} cells, {verdict}, {seconds:.0f} s\n")
    options.json.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if options.document:
        options.document.write_text(document(report), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
