"""`python -m lab.bench.publish RESULTS.json`: puts a run's tables and plots into the docs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from lab.bench.report import markdown
from lab.bench.systems import ROOT

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures begin -->", "<!-- figures end -->"


def main() -> None:
    """Replace the text between the page's markers, and copy the plots next to the page."""
    source = Path(sys.argv[1])
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    parts = [markdown(json.loads(source.read_text())).rstrip()]
    for name in ("cpu", "latency"):
        drawn = source.with_name(f"{source.stem}-{name}.svg")
        if drawn.exists():
            shutil.copy(drawn, PAGE.with_name(f"performance-{name}.svg"))
            parts.append(f"![{name}](performance-{name}.svg)")
    body = "\n\n".join(parts)
    PAGE.write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
