"""A package index on 127.0.0.1 as package installers know it (PEP 503), and checkouts to set up
from it.

It holds what this repository's locks pin, as wheels that hold nothing but the metadata of the
real ones, and a newer release of every one of them. What it answers can be made to fail.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import threading
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import NamedTuple, cast

from tests.wire.documented import ROOT

NEWER = ".0.9999"
"""What the version of every newer release ends with: in the range that dependants ask for."""
ENTRY = re.compile(r"^(?=[\w.-]+==)", re.MULTILINE)
PIN = re.compile(r"([\w.-]+)==([^\s;\\]+)")
SET_UP = (
    "scripts/setup.py",
    *(f"relay/{name}" for name in ("__init__.py", "engine/__init__.py")),
    *(f"relay/engine/{name}.py" for name in ("pip_run", "pip_failure")),
)
"""The files of this repository that a set-up is made of."""


class Fault(NamedTuple):
    """What happens to the answers to requests whose path holds a text: another status, or
    the body cut in the middle, or of the right length and other content."""

    status: int = 200
    cut: bool = False
    altered: bool = False


class PackageIndex:
    """The index while it is served: `url` is what an installer is told, `requests` the paths
    asked for, `faults` maps a part of a path to what goes wrong with it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.faults: dict[str, Fault] = {}
        self._files: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple/"

    def add(self, file: str, content: bytes) -> None:
        """Offer a file."""
        self._files[file] = content

    @contextmanager
    def served(self) -> Iterator[PackageIndex]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def body(self, path: str) -> bytes | None:
        """What lies at a path; None where nothing does."""
        folder, _, name = path.strip("/").partition("/")
        if folder == "files":
            content = self._files.get(name.removesuffix(".metadata"))
            return metadata_of(content) if content and name.endswith(".metadata") else content
        links = [
            f'<a href="/files/{file}#sha256={digest(content)}" '
            f'data-core-metadata="sha256={digest(metadata_of(content))}">{file}</a><br>'
            for file, content in self._files.items()
            if file.split("-")[0].replace("_", "-").lower() == name
        ]
        return f"<!DOCTYPE html>{''.join(links)}".encode() if links else None

    def fault(self, path: str) -> Fault:
        """What goes wrong with the answer to a request."""
        found = (fault for part, fault in self.faults.items() if part in path)
        return next(found, Fault())

    def _handler(index) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.requests.append(self.path)
                body, fault = index.body(self.path), index.fault(self.path)
                status = fault.status if body else 404
                answer(self, status, body or b"nothing here", fault)

            def log_message(self, *_: object) -> None:
                """Silent: the tests look at `requests`."""

        return Handler


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, fault: Fault) -> None:
    """Answer as package indexes do, files to be kept for ever, or as the fault says."""
    handler.send_response(status)
    kind = "application/octet-stream" if handler.path.startswith("/files") else "text/html"
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    if handler.path.startswith("/files") and status == 200:
        handler.send_header("Cache-Control", "max-age=365000000, immutable, public")
    handler.end_headers()
    if fault.altered:
        body = body[:-1] + bytes([body[-1] ^ 1])
    handler.wfile.write(body[: len(body) // 2] if fault.cut else body)
    handler.close_connection = True


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def metadata_of(wheel: bytes) -> bytes:
    """The metadata that an index offers beside a wheel (PEP 658)."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return archive.read(file)


def wheel(name: str, version: str, real: Message | None, tag: str = "py3-none-any") -> bytes:
    """A wheel that holds what the real one says of its dependencies and extras."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    for field in ("Requires-Dist", "Provides-Extra"):
        lines += [f"{field}: {value}" for value in (real.get_all(field) if real else None) or ()]
    folder = f"{escaped(name)}-{version}.dist-info"
    files = {
        "METADATA": "\n".join(lines) + "\n",
        "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = [f"{folder}/{file},," for file in (*files, "RECORD")]
    files["RECORD"] = "\n".join(record) + "\n"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{file}"), text)  # without the time
    return written.getvalue()


def escaped(name: str) -> str:
    """A package's name as a wheel's file name has it."""
    return re.sub(r"[-_.]+", "_", name)


def real_metadata(name: str) -> Message | None:
    """What an installed package says of itself; None for those of other platforms."""
    try:
        return cast(Message, metadata(name))
    except PackageNotFoundError:
        return None


def offer(index: PackageIndex, lock: str, tag: str = "py3-none-any") -> str:
    """Let the index hold what a lock pins, and a newer release of each; the lock's text, with
    the hashes of those files."""
    written = []
    for entry in ENTRY.split(lock)[1:]:
        name, version = PIN.match(entry).groups()
        real = real_metadata(name)
        content = wheel(name, version, real, tag)
        index.add(f"{escaped(name)}-{version}-{tag}.whl", content)
        newer = version + NEWER
        index.add(f"{escaped(name)}-{newer}-{tag}.whl", wheel(name, newer, real, tag))
        marked = entry.splitlines()[0].rstrip(" \\")
        written.append(f"{marked} \\\n    --hash=sha256:{digest(content)}\n")
    return "".join(written)


def checkout(folder: Path, locks: dict[str, str]) -> Path:
    """A folder that has this repository's set-up, and locks by their names."""
    (folder / "requirements").mkdir(parents=True, exist_ok=True)
    for file in SET_UP:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    for name, text in locks.items():
        (folder / "requirements" / name).write_text(text, encoding="utf-8")
    return folder


def environment(folder: Path, pip: Path) -> Path:
    """A virtual environment with the pip of a wheel, as a set-up leaves one."""
    venv.create(folder, symlinks=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(pip) as archive:
        archive.extractall(packages)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--help"]
    subprocess.run(command, check=True, capture_output=True)  # leaves its modules compiled
    (folder / ".python.stamp").touch()
    return folder
