"""The examples of the documents: found by the comment in front of each code block.

`<!-- example: NAME -->` marks a block that a test runs, `<!-- settings -->` one that is good
as a `.env`, `<!-- unrun: REASON -->` one that no test can run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/integration.md", "docs/migration.md")
"""The documents whose blocks are marked."""

LANGUAGES = frozenset({"python", "js", "html", "sh"})
"""`test_documented_examples` runs every example in these."""

DEPLOYED = frozenset({"nginx", "systemd", "probes"})
"""The examples that `test_documented_deployment` tries."""

BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>example|settings|unrun)(?:: (?P<said>[^>]+))? -->\n+)?"
    r"^```(?P<language>[a-z]*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A code block; `mark` is empty where nothing stands before it, `said` the name or the
    reason."""

    document: str
    mark: str
    said: str
    language: str
    code: str


def blocks(document: str) -> list[Block]:
    """Every code block of a document, which is named by its path from the root."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(document, found["mark"] or "", found["said"] or "", found["language"], found["code"])
        for found in BLOCK.finditer(text)
    ]


def examples() -> dict[str, Block]:
    """The examples by their names."""
    found = [block for name in DOCUMENTS for block in blocks(name) if block.mark == "example"]
    named = {block.said: block for block in found}
    assert len(named) == len(found), "two examples of one name"
    return named
