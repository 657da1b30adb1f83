"""One node: a `server.py` process that can be drained, killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0


class Files(NamedTuple):
    """How many files a node has open: its own and its clients', kept connections to the
    vendor, and Unix sockets, which lead to the store."""

    own: int
    to_vendor: int
    to_store: int


class Node:
    """A relay on a port of its own, which it keeps when it is started again."""

    def __init__(self, name: str, port: int, folder: Path, variables: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.takes_chats = False
        self.started = 0
        self.vendor_port = 0
        self.base_files = Files(0, 0, 0)
        self.base_rss = 0
        self.base_tasks = 0.0
        self._log = folder / f"node-{name}.log"
        self._folder = folder
        self._variables = {"PORT": str(port), **variables}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start, and wait until it takes chats. Raises `RuntimeError` with what it said."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with self._log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / "server.py"),
                env={**inherited, **self._variables},
                cwd=self._folder,
                stdout=out,
                stderr=out,
            )
        await self._until_ready()
        self.started += 1
        self.takes_chats = True
        self.base_files, self.base_rss = self.files(), self.rss()
        self.base_tasks = (await self.gauges())["relay_tasks"]

    async def _until_ready(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as http:
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError(f"node {self.name} ended:\n{self._log.read_text()[-2000:]}")
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def drain(self) -> int:
        """SIGTERM; returns the exit status."""
        self.takes_chats = False
        self._signal(signal.SIGTERM)
        assert self._process is not None
        return await self._process.wait()

    async def kill(self) -> None:
        """As a power cut would. Idempotent."""
        self.takes_chats = False
        with suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    def freeze(self) -> None:
        """It keeps its connections and does nothing, as behind a partition."""
        self.takes_chats = False
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, not knowing what it missed."""
        self._signal(signal.SIGCONT)
        self.takes_chats = True

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def files(self) -> Files:
        """Its open files, sockets included, by what they are for."""
        names = [_link(f"/proc/{self.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{self.pid}/fd")]
        vendor, store = _inodes_to(self.pid, self.vendor_port), _inodes_of_unix(self.pid)
        sockets = [name[8:-1] for name in names if name.startswith("socket:[")]
        to_vendor = sum(inode in vendor for inode in sockets)
        to_store = sum(inode in store for inode in sockets)
        return Files(len(names) - to_vendor - to_store, to_vendor, to_store)

    def rss(self) -> int:
        """Resident memory, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    async def gauges(self) -> dict[str, float]:
        """What its metrics say, summed over labels."""
        found: dict[str, float] = {}
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as response:
            for line in (await response.text()).splitlines():
                if line and not line.startswith("#"):
                    name, value = line.rsplit(" ", 1)
                    name = name.partition("{")[0]
                    found[name] = found.get(name, 0.0) + float(value)
        return found


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # closed meanwhile
        return ""


def _inodes_to(pid: int, port: int) -> set[str]:
    """The TCP sockets whose other end is a port (proc(5), /proc/net/tcp)."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if int(row[2].rpartition(":")[2], 16) == port}


def _inodes_of_unix(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
    return {line.split()[6] for line in lines}
