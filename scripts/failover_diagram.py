"""Writes the failover policy's state diagram into docs/failover.md, between its markers.

Run it after a change to the table in relay/failover/flow.py: `python scripts/failover_diagram.py`.
With `--check` it writes nothing and exits with 1 if the page is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "failover.md"
BEGIN = "<!-- states: written by scripts/failover_diagram.py -->"
END = "<!-- /states -->"

sys.path.insert(0, str(ROOT))

from generated import write_or_check  # noqa: E402

from relay.failover.flow import diagram  # noqa: E402


def with_diagram(page: str) -> str:
    """The page with the current table's diagram. Raises `ValueError` if a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} has no place for the diagram: {BEGIN} … {END}")
    return f"{before}{BEGIN}\n```mermaid\n{diagram()}\n```\n{END}{after}"


if __name__ == "__main__":
    sys.exit(write_or_check({PAGE: with_diagram(PAGE.read_text(encoding="utf-8"))}))
