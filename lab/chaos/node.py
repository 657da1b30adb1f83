"""One node: a `server.py` process that can be drained, killed, frozen and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import aiohttp

from lab.relay_process import RelayProcess


class Files(NamedTuple):
    """The number of a node's open files: its own and its clients', kept connections to the vendor,
    and Unix sockets, which lead to the store."""

    own: int
    to_vendor: int
    to_store: int


class Node(RelayProcess):
    """A relay with a name that records its base values when it is started."""

    def __init__(self, name: str, folder: Path, variables: Mapping[str, str]) -> None:
        super().__init__(folder, variables, log=folder / f"node-{name}.log")
        self.name = name
        self.takes_chats = False
        self.started = 0
        self.vendor_port = 0
        self.base_files = Files(0, 0, 0)
        self.base_rss = 0
        self.base_tasks = 0.0

    async def start(self) -> None:
        """Start, and wait until it takes chats. Raises `RelayFailed`."""
        await super().start()
        self.started += 1
        self.takes_chats = True
        self.base_files, self.base_rss = self.files(), self.rss()
        self.base_tasks = (await self.gauges())["relay_tasks"]

    async def drain(self) -> int:
        """SIGTERM; returns the exit status."""
        self.takes_chats = False
        return await self.stop()

    async def kill(self) -> None:
        """End the process at once, like a power cut. Idempotent."""
        self.takes_chats = False
        await super().kill()

    def freeze(self) -> None:
        """Stop the process but keep its connections, like a partition."""
        self.takes_chats = False
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process; it does not notice the pause."""
        self.signal(signal.SIGCONT)
        self.takes_chats = True

    def files(self) -> Files:
        """The number of its open files, sockets included, by purpose."""
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
        """Its metrics, summed over labels."""
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
