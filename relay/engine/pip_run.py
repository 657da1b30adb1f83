"""Runs an environment's pip so that it installs only what a lock names, and shows the progress.

The lock is used as it is: no dependency is resolved, every file must have a hash of the lock, and
nothing is built, because what a build needs would be resolved to its newest release. All locked
packages have built files for CPython 3.11 to 3.14 on Linux (x86_64 and aarch64, glibc) and macOS on
ARM.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from relay.engine.pip_failure import NOTHING_FOUND, Failure, explain

AS_LOCKED = ("--require-hashes", "--no-deps", "--only-binary=:all:")
WAY_TO_THE_INDEX = (
    *("index-url", "extra-index-url", "find-links", "no-index"),
    *("proxy", "cert", "client-cert", "trusted-host", "keyring-provider"),
    *("timeout", "default-timeout", "retries", "resume-retries", "cache-dir", "no-cache-dir"),
)
"""The settings of pip that a user may have made and that apply here. All others, such as
`constraint`, `target`, `user` or `no-binary`, could change what is installed or where."""
VARIABLES = {key: f"PIP_{key.upper().replace('-', '_')}" for key in WAY_TO_THE_INDEX}
PLACES = """
import json
from pip._internal.configuration import get_configuration_files
print(json.dumps(get_configuration_files()))
"""
"""Asks pip for the paths of its configuration files. `pip config` would apply the settings while it
lists them."""
LOG = "pip.log"
WRITING = ".writing.stamp"
QUIET = 10
"""Seconds between two lines of progress where no terminal shows them."""


def run(python: Path, command: list[str], lock: Path, notes: Path) -> Failure | None:
    """Have the pip of `python` run `command` with a lock, e.g. ["install"]; None where that
    succeeded. Tried once more without pip's cache where a file is not the locked one, and with a
    log where pip doesn't say why it finds nothing: a log takes seconds to write.

    `notes` is a folder. After a failure pip's output is there in the file LOG. While packages are
    being written the file WRITING is there; left over, it marks an incomplete environment.
    """
    settings, log = environment(python), notes / LOG
    command = [str(python), "-I", "-m", "pip", *command, *AS_LOCKED, "-r", str(lock)]
    said = attempt(command, settings, lock, notes)
    if said is not None and explain(said).altered:
        said = attempt([*command, "--no-cache-dir"], settings, lock, notes)
    elif said is not None and NOTHING_FOUND in said and "Retrying" not in said:
        log.unlink(missing_ok=True)
        said = attempt([*command, f"--log={log}"], settings, lock, notes)
        said = said and log.read_text(encoding="utf-8", errors="replace")
    if said is None:
        return None
    log.write_text(said, encoding="utf-8")
    return explain(said)


def attempt(command: list[str], settings: dict[str, str], lock: Path, notes: Path) -> str | None:
    """Run one command of pip and show its progress; None where it succeeded, else its output."""
    with subprocess.Popen(  # noqa: S603  # of this environment's Python
        command,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None
        progress, said = Progress(lock), list[str]()
        for line in ticking(pip.stdout):
            said.append(line)
            if line.startswith("Installing collected"):
                (notes / WRITING).touch()
            progress.show(line)
        progress.clear()
    if pip.returncode:
        return "".join(said)
    (notes / WRITING).unlink(missing_ok=True)
    return None


def environment(python: Path) -> dict[str, str]:
    """The environment variables for pip: of the user's settings, only those of
    `WAY_TO_THE_INDEX`."""
    asked = {VARIABLES[key]: value for key, value in read_files(configuration_files(python))}
    asked |= {name: os.environ[name] for name in VARIABLES.values() if os.environ.get(name)}
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {
        **others,
        **asked,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_NO_COLOR": "1",
    }


def configuration_files(python: Path) -> list[str]:
    """The files that pip reads settings from, the weakest first."""
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    asking = [str(python), "-I", "-c", PLACES]
    told = subprocess.run(asking, capture_output=True, text=True)  # noqa: S603
    places = json.loads(told.stdout) if told.returncode == 0 else {}
    kinds = ("global", "site") if os.path.exists(named) else ("global", "user", "site")
    return [file for kind in kinds for file in places.get(kind, ())] + [named]


def read_files(files: list[str]) -> Iterator[tuple[str, str]]:
    """The settings of `WAY_TO_THE_INDEX` in pip's files, the weakest first. Files that can't be
    read are skipped."""
    parser = configparser.RawConfigParser()
    for file in files:
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
            parser.read(file)
    for section in ("global", "install"):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            if value and (key := name.replace("_", "-").removeprefix("--")) in VARIABLES:
                yield key, value


def ticking(stream: IO[str]) -> Iterator[str]:
    """The lines of a stream as they come, and an empty text in each second without one."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            line = ""
        if line is None:
            return
        yield line


class Progress:
    """Shows which package of how many pip is working on: in one changing line on a terminal, else
    in a line now and then."""

    def __init__(self, lock: Path) -> None:
        self._terminal = sys.stdout.isatty()
        self._of = len(re.findall(r"^[\w.-]+==", lock.read_text(encoding="utf-8"), re.MULTILINE))
        self._at = 0
        self._doing = "starting pip"
        self._since = self._shown = time.monotonic()

    def show(self, line: str) -> None:
        """Take a line of pip's output, or an empty one, and show the progress."""
        moment = time.monotonic()
        if doing := self._read(line):
            self._doing, self._since = doing, moment
        text = f"  {self._doing}, {moment - self._since:.0f} s"
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            write(f"\r\x1b[K{text[: columns - 1]}")
        elif moment - self._shown >= QUIET:
            write(f"{text}\n")
            self._shown = moment

    def clear(self) -> None:
        """Take the line away from a terminal."""
        if self._terminal:
            write("\r\x1b[K")

    def _read(self, line: str) -> str:
        """What pip does according to a line; empty where the line doesn't say."""
        first, _, rest = line.strip().partition(" ")
        if first == "Ignoring":  # it is for other machines
            self._of -= 1
        elif first in ("Collecting", "Processing", "Requirement"):
            self._at += 1
            return f"{self._at} of {self._of}: {rest.split()[0]}" if first == "Collecting" else ""
        elif first == "Downloading" and ".metadata" not in rest:
            return f"{self._at} of {self._of}: {rest.rpartition('/')[2]}"
        elif first == "Installing":
            return "writing the packages"
        elif "Retrying" in line:
            return f"{self._at} of {self._of}: no answer, trying again"
        return ""


def write(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()
