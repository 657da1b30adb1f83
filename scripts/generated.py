"""What the scripts that generate files have in common: write them, or see whether they are
in step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(wanted: Mapping[Path, str]) -> int:
    """Write each file's text, or with the argument `--check` name on the standard error the
    files whose text is another; returns the exit status."""
    stale = [path for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.name} is not in step: run python {sys.argv[0]}\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0
