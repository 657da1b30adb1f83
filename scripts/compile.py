"""Compile the modules of the hot path with mypyc, unless that was done.

The result goes to build/compiled, where `relay.process.compiled` finds it. The relay also runs
without it, only slower. Needs mypy, setuptools, a C compiler and Python's headers. Exit status 0:
compiled, or compiled before; 1: it failed; 2: this machine lacks something, which is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from relay.process import compiled  # noqa: E402  # from this checkout

HOT = (
    "relay.answering.driver",
    "relay.core.records",
    "relay.edges.delivery.framing",
    "relay.edges.delivery.outlet",
    "relay.edges.relay_v1.sse",
    "relay.failover.attempt",
    "relay.failover.policy",
    "relay.failover.showing",
    "relay.protocol.codec",
    "relay.providers.anthropic.decoder",
    "relay.providers.decoding.decoder",
    "relay.providers.decoding.sse",
    "relay.providers.decoding.toolcalls",
    "relay.providers.gemini.decoder",
    "relay.providers.http.call",
    "relay.providers.http.exchange",
    "relay.providers.http.http1",
    "relay.providers.openai.decoder",
    "relay.stores.memory.stream",
    "relay.stores.reading",
    "relay.stores.redis.encoding",
    "relay.stores.redis.stream",
)
"""The modules that every token passes through. The code that starts a chat is not among them: it
runs rarely, and then compact bytecode costs less than machine code that is out of the CPU's
caches. Modules that await while they handle an exception are not either: a coroutine compiled by
mypyc leaves that exception in the thread, as the context of exceptions raised elsewhere
meanwhile."""

BUILD = """
import json, sys
from mypyc.build import mypycify
from setuptools import setup
files = json.loads(sys.argv.pop())
modules = mypycify(["--config-file=mypy.ini", *files], opt_level="2", debug_level="0")
setup(name="twins", packages=[], ext_modules=modules)
"""
CONFIGURATION = "[mypy]\nstrict = True\npython_version = {}.{}\n"


def main() -> int:
    """Compile what is not compiled yet, or only say whether it can be done; returns the exit
    status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--able", action="store_true", help="only say whether it can be done")
    able = parser.parse_args().able
    if not able and compiled.use() == "compiled":
        return 0
    if lack := missing() or ("" if able or find_spec("mypyc") else "mypy is not installed"):
        print(f"Not compiled: {lack}. The relay runs without, only slower.", flush=True)
        return 2
    return 0 if able else compile_hot()


def compile_hot() -> int:
    """Compile and install, with progress messages; returns the exit status."""
    print("Compiling the hot path, once: takes about half a minute", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="relay-compile-") as folder:
        copy = Path(folder) / "relay"  # the sources may be edited meanwhile
        shutil.copytree(compiled.PACKAGE, copy)
        if error := build(Path(folder)):
            print(f"{error}\nNot compiled. The relay runs without, only slower.", flush=True)
            return 1
        install(Path(folder) / "built", compiled.sources(copy))
    print(f"  done in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def missing() -> str:
    """What compiling needs and this machine lacks; empty if it lacks nothing."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "")
    if not command or not shutil.which(command[0]):
        return "there is no C compiler (on Debian: apt-get install gcc)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python's headers are missing (on Debian: apt-get install python3-dev)"
    return ""


def build(folder: Path) -> str:
    """Compile the copy of the package in `folder`; returns an error message, empty if it worked."""
    (folder / "mypy.ini").write_text(CONFIGURATION.format(*sys.version_info))
    files = [f"{name.replace('.', '/')}.py" for name in HOT]
    command = [sys.executable, "-c", BUILD, "build_ext", "--build-lib=built", json.dumps(files)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if ended.returncode == 0 else f"{ended.stdout[-4_000:]}\n{ended.stderr[-4_000:]}"


def install(built: Path, sources: str) -> None:
    """Copy the built files to where `compiled` looks for them, the manifest last; `sources` is the
    digest of the sources that they were built from."""
    shutil.rmtree(compiled.HOME, ignore_errors=True)
    compiled.HOME.mkdir(parents=True)
    modules = []
    for file in sorted(built.rglob(f"*{compiled.SUFFIX}")):
        name = ".".join(file.relative_to(built).parts).removesuffix(compiled.SUFFIX)
        shutil.copy(file, compiled.HOME / f"{name}{compiled.SUFFIX}")
        modules.append(name)
    manifest = {"sources": sources, "suffix": compiled.SUFFIX, "modules": modules}
    (compiled.HOME / compiled.MANIFEST).write_text(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    sys.exit(main())
