"""Finds the line of each key in a TOML file, which `tomllib` does not report.

Pure. A valid file is a sequence of statements (a header, or a key with its value), each of which
parses alone; so lines are gathered until they parse.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

Path: TypeAlias = tuple[str, ...]


class Place(NamedTuple):
    """The place of a key: its first line, counted from 1, and the text of its lines."""

    line: int
    text: str

    def of(self, item: str) -> int:
        """The line of the string `item` in this key's value if it is found there, else the key's
        line."""
        before, found, _ = self.text.partition(item) if item else ("", "", "")
        return self.line + (before.count("\n") if found else 0)


Lines: TypeAlias = dict[Path, Place]


def locate(text: str) -> Lines:
    """The place of every key and table of a TOML text that `tomllib` accepts."""
    lines: Lines = {}
    table: Path = ()
    for place, content in _statements(text):
        header = place.text.lstrip().startswith("[")
        paths = list(_paths(content))
        if header and paths:
            table = paths[-1]
        for path in paths:
            lines.setdefault(path if header else (*table, *path), place)
    return lines


def _statements(text: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    gathered: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        gathered.append(line)
        statement = "\n".join(gathered)
        try:
            content = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # a value that continues on the next line
        yield Place(number - len(gathered) + 1, statement), content
        gathered.clear()


def _paths(content: Any, above: Path = ()) -> Iterator[Path]:
    """Every key of a parsed statement, outer ones first."""
    for key, value in content.items():
        yield (*above, key)
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            yield from _paths(inner, (*above, key))


def syntax_line(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """The line, counted from 1, and the reason of a syntax error."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
    if found is None:
        return 1, str(error)
    return int(found[2] or text.rstrip("\n").count("\n") + 1), found[1]
