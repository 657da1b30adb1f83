"""Compiled modules, the *twins* of those that every token passes through, and when they are used.

`make compile` builds them with mypyc from the Python modules, which stay the source. A twin does
the same as its module, only faster. Twins built from other sources, or for another Python, are
never used.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Literal

PACKAGE = Path(__file__).resolve().parent.parent
HOME = PACKAGE.parent / "build" / "compiled"
"""The folder of the twins, each named after its module, and of `MANIFEST`."""

MANIFEST = "manifest.json"
"""It holds `sources` and `suffix`, as below, for which the twins were built, and `modules`: their
names."""

SUFFIX = EXTENSION_SUFFIXES[0]
"""How a twin's file name ends; it holds Python's version and the machine's kind."""

INTERPRETED = "--interpreted"
"""The argument of `relay serve` that leaves the twins out."""

TwinState = Literal["compiled", "interpreted", "outdated"]

state: TwinState = "interpreted"
"""What `use` found; shown at the start."""


class Twins(MetaPathFinder):
    """Finds the modules that have a twin in `home`, and no others."""

    def __init__(self, home: Path, modules: Sequence[str]) -> None:
        self._files: Mapping[str, Path] = {name: home / f"{name}{SUFFIX}" for name in modules}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The import spec of a module's twin; None for a module without one."""
        file = self._files.get(name)
        if file is None:
            return None
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, str(file)))


def use(home: Path = HOME, arguments: Sequence[str] = ()) -> TwinState:
    """Import twins from now on, where there are any that were built from these sources.

    Call it before anything else of `relay` is imported: what was imported before stays as it is.
    Returns `outdated` where there are twins, but of other sources or another Python, or not all.
    """
    global state
    manifest = _manifest(home)
    if not manifest or INTERPRETED in arguments:
        state = "interpreted"
    elif _fits(manifest, home):
        state = "compiled"
        sys.meta_path.insert(0, Twins(home, manifest["modules"]))
    else:
        state = "outdated"
    return state


def sources(package: Path = PACKAGE) -> str:
    """A digest of all modules of the package, because a twin depends on the modules that it
    imports."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package).as_posix()}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _fits(manifest: Mapping[str, str | list[str]], home: Path) -> bool:
    return (
        manifest.get("suffix") == SUFFIX
        and manifest.get("sources") == sources()
        and all((home / f"{name}{SUFFIX}").is_file() for name in manifest.get("modules", ()))
    )


def _manifest(home: Path) -> dict[str, str | list[str]]:
    try:
        found = json.loads((home / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
