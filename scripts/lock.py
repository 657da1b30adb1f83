"""Write requirements*.lock from requirements*.txt: exact versions, with hashes.

One lock serves every platform and every Python from 3.11 on. No address of a package index
gets into the files.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMON = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-config",
    "--quiet",
    "--custom-compile-command=make lock",
)
LOCKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("requirements", ()),
    ("requirements-compile", ("--constraint=requirements.lock",)),
    ("requirements-dev", ("--constraint=requirements-compile.lock",)),
    ("requirements-local", ("--no-deps",)),
)
"""Each lock and its own options, in order: two are held to the versions of the one before."""


def main() -> None:
    """Compile every lock. Further arguments go to the compiler, e.g. `--upgrade`."""
    for name, options in LOCKS:
        files = (f"{name}.txt", f"--output-file={name}.lock")
        command = [sys.executable, "-m", "uv", "pip", "compile", *COMMON, *options]
        subprocess.run([*command, *sys.argv[1:], *files], cwd=ROOT, check=True)
        print(f"{name}.lock")


if __name__ == "__main__":
    main()
