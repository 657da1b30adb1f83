"""Packages of npm that tests need: locked in `tests/node`, fetched once, kept in pytest's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

LOCKED = Path(__file__).parent / "node"
PATIENCE = 100
"""Seconds that fetching them may take."""


def node() -> str:
    """Where node is; it needs npm beside it."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.skip("node is not installed, or without npm")
    return found


def fetched(config: pytest.Config) -> Path:
    """A folder in which node finds the packages. Fails where one is not what the lock's digest
    says; skips where the registry can't be reached."""
    node()
    assert config.cache is not None
    digest = hashlib.sha256((LOCKED / "package-lock.json").read_bytes()).hexdigest()
    folder = config.cache.mkdir(f"node-{digest[:16]}")
    if not (folder / "whole").exists():
        shutil.copytree(LOCKED, folder, dirs_exist_ok=True)
        _fetch(folder)
        (folder / "whole").touch()
    return folder


def _fetch(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the npm registry is not reached: no answer in {PATIENCE} s")
    if "EINTEGRITY" in ran.stderr:
        pytest.fail(f"what npm got is not what tests/node locks: {ran.stderr[-300:]}")
    if ran.returncode:
        pytest.skip(f"the npm registry is not reached: {ran.stderr[-200:]}")
