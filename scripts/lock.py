"""Write requirements/*.lock from requirements.txt and requirements/*.txt: exact versions, with
hashes.

One lock serves every platform and every Python from 3.11 on. The address of the package index is
not written to the files.
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
FOLDER = "requirements"
LOCKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("requirements.txt", "relay.lock", ()),
    (f"{FOLDER}/compile.txt", "compile.lock", (f"--constraint={FOLDER}/relay.lock",)),
    (f"{FOLDER}/dev.txt", "dev.lock", (f"--constraint={FOLDER}/compile.lock",)),
    (f"{FOLDER}/local.txt", "local.lock", ("--no-deps",)),
)
"""Each requirements file, its lock and the lock's own options, in order. Two of them must use the
versions of the one before."""


def main() -> None:
    """Compile every lock. Further arguments are passed to the compiler, e.g. `--upgrade`."""
    for wanted, lock, options in LOCKS:
        files = (wanted, f"--output-file={FOLDER}/{lock}")
        command = [sys.executable, "-m", "uv", "pip", "compile", *COMMON, *options]
        subprocess.run([*command, *sys.argv[1:], *files], cwd=ROOT, check=True)
        print(f"{FOLDER}/{lock}")


if __name__ == "__main__":
    main()
