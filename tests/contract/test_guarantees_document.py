"""docs/guarantees.md: every promise names tests, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "guarantees.md"
NAMED = re.compile(r"`(tests/[\w./]+\.py)::(\w+)`")
HEADS = ("| promise | mode | held by | limits |", "| promise | held by | limits |")


def promises() -> list[str]:
    """The rows of the tables of promises."""
    found: list[str] = []
    within = False
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line in HEADS:
            within = True
        elif not line.startswith("|"):
            within = False
        elif within and not line.startswith("| ---"):
            found.append(line)
    return found


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file, those of its classes included."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def test_there_are_promises_in_every_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert sum(text.count(f"{head}\n") for head in HEADS) >= 4
    assert len(promises()) >= 20


@pytest.mark.parametrize("row", promises(), ids=lambda row: row[2:42])
def test_a_promise_names_tests_that_there_are(row: str) -> None:
    named = NAMED.findall(row)
    assert named, "no test holds this promise"
    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert name in names_in(path), f"{path}::{name}"


def test_every_test_named_anywhere_in_it_is_there() -> None:
    for path, name in NAMED.findall(DOCUMENT.read_text(encoding="utf-8")):
        assert name in names_in(path), f"{path}::{name}"
