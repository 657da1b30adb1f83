"""Fails the run on any skipped test that `allowed_skips.txt` doesn't name with its reason.

A test that silently stops running looks like one that passes. So a skip must be written
down before it may happen.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
FAILED = 1


class Skip(NamedTuple):
    """A skipped test: its node id and the reason it gave. In the list of allowed ones both
    are patterns with `*`."""

    test: str
    reason: str


def parse(text: str) -> list[Skip]:
    """The allowed skips: one a line, `test pattern | reason pattern`; `#` begins a comment.

    Raises `ValueError` for a line without a reason.
    """
    lines = [line.strip() for line in text.splitlines()]
    return [_entry(line) for line in lines if line and not line.startswith("#")]


def unlisted(skips: Iterable[Skip], allowed: Iterable[Skip]) -> list[Skip]:
    """Those of `skips` that no entry of `allowed` covers."""
    entries = list(allowed)
    return [skip for skip in skips if not any(_covers(entry, skip) for entry in entries)]


class Gate:
    """The pytest plugin. It changes the exit status only of a run that went well."""

    def __init__(self, allowed: list[Skip]) -> None:
        self._allowed = allowed
        self._skips: list[Skip] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a skipped test; an expected failure is no skip."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skips.append(Skip(report.nodeid, _reason(report)))

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that was skipped as a whole."""
        if report.skipped:
            self._skips.append(Skip(report.nodeid, _reason(report)))

    def pytest_sessionfinish(self, session: Any, exitstatus: int) -> None:
        """Fail the run where a skip is not allowed."""
        if exitstatus == 0 and unlisted(self._skips, self._allowed):
            session.exitstatus = FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name the skips that are not allowed."""
        for skip in unlisted(self._skips, self._allowed):
            terminalreporter.write_line(
                f"SKIP NOT ALLOWED {skip.test}: {skip.reason} "
                f"(run it, or list it with its reason in tests/{ALLOWED.name})",
                red=True,
            )


def _entry(line: str) -> Skip:
    test, bar, reason = (part.strip() for part in line.partition("|"))
    if not (bar and test and reason):
        raise ValueError(f"{ALLOWED.name}: a line is `test pattern | reason pattern`: {line!r}")
    return Skip(test, reason)


def _covers(entry: Skip, skip: Skip) -> bool:
    return fnmatchcase(skip.test, entry.test) and fnmatchcase(skip.reason, entry.reason)


def _reason(report: Any) -> str:
    words = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(words).removeprefix("Skipped: ")
