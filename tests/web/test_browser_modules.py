"""The browser's modules, run by node's own test runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def node() -> str:
    """Node's path; without it the modules are still run by the page's test in a browser."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda file: file.name)
def test_the_modules_hold_in_node(file: Path) -> None:
    run = subprocess.run([node(), "--test", file], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout
    assert "# fail 0" in run.stdout
    assert "# pass 0" not in run.stdout


@pytest.mark.parametrize("file", sorted(Path("relay/web").glob("*.js")), ids=lambda file: file.name)
def test_a_module_parses_and_stays_small(file: Path) -> None:
    subprocess.run([node(), "--check", file], check=True, timeout=60)
    assert len(file.read_text(encoding="utf-8").splitlines()) < 420
