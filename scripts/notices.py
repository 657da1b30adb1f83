"""Print the table of THIRD_PARTY_NOTICES.md from the installed packages' own metadata.

Packages of the lock that this platform doesn't install print as `?`: look those up manually.
"""

from __future__ import annotations

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(r"^([\w.-]+)==", re.MULTILINE)


def locked(lock: str) -> list[str]:
    """The names that a lock pins."""
    return PINNED.findall((ROOT / lock).read_text(encoding="utf-8"))


def licence(package: str) -> str:
    """The licence that an installed package states: expression, field or classifier."""
    try:
        told = cast(Message, metadata(package))
    except PackageNotFoundError:
        return "?"
    classifiers = [
        line.split(" :: ")[-1]
        for line in told.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    field = (told.get("License") or "").splitlines()
    return told.get("License-Expression") or (field or classifiers or ["?"])[0]


def main() -> None:
    """Print one row a package."""
    for package in locked("requirements/relay.lock"):
        print(f"| {package} | {licence(package)} |")


if __name__ == "__main__":
    main()
