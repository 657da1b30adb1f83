"""Packages of npm that tests need: named with their version, fetched once, kept in pytest's
cache."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def node() -> str:
    """Where node is; it needs npm beside it."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.skip("node is not installed, or without npm")
    return found


def fetched(config: pytest.Config, package: str) -> Path:
    """A folder in which node finds a package, named as in `openai@6.49.0`."""
    node()
    assert config.cache is not None
    folder = config.cache.mkdir("node-" + package.replace("@", "-"))
    name = package.rpartition("@")[0]
    if not (folder / "node_modules" / name / "package.json").is_file():
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        ran = subprocess.run(
            ["npm", "install", *options, "--no-save", "--prefix", folder, package],
            capture_output=True,
            text=True,
            timeout=100,
        )
        if ran.returncode:
            pytest.skip(f"the npm registry is not reached: {ran.stderr[-200:]}")
    return folder
