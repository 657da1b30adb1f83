"""The vendor, the store and the nodes, which are started and stopped together."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import redis

from lab.chaos.node import Node
from lab.chaos.vendor import KEY, Vendor
from lab.chaos.wire import SILENT_SECONDS
from lab.redis_process import RedisProcess

HEARTBEAT = 2.0
"""Seconds; short, so that dead peers are found within a run."""

RESUME_WINDOW = 20.0
"""Seconds that ended answers are kept; short, so that leaks show in a quiet period."""

RESUME_GRACE = 30.0
"""Seconds that a running answer waits for a reader. Longer than the window, so that a run shows
whether an orphan waits as long as with its owner."""


class Ground:
    """Enter it to start everything; leaving it ends every process.

    `lease` in seconds is the nodes' LEASE_SECONDS. Without `store` there is one node, which keeps
    its streams in memory. The nodes' output is copied to `logs`.
    """

    def __init__(
        self, *, store: bool, lease: float, nodes: int = 2, logs: Path | None = None
    ) -> None:
        self.vendor = Vendor()
        self.lease = lease
        self.logs = logs
        self.store: RedisProcess | None = RedisProcess() if store else None
        self.nodes: list[Node] = []
        self._count = nodes if store else 1
        self._folder = tempfile.TemporaryDirectory(prefix="relay-chaos-")
        self.erased: set[int] = set()
        self._abandoned: dict[aiohttp.ClientSession, aiohttp.ClientResponse | None] = {}
        self._troubles: list[list[Any]] = []

    @property
    def folder(self) -> Path:
        """The folder of the nodes' output."""
        return Path(self._folder.name)

    async def __aenter__(self) -> Ground:
        await self.vendor.upstream.__aenter__()
        for number in range(self._count):
            name = "abcdefgh"[number]
            self.nodes.append(Node(name, self.folder, self._variables(name)))
        try:
            for node in self.nodes:
                node.vendor_port = self.vendor.upstream.port
                await node.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close_abandoned()
        for node in self.nodes:
            await node.kill()
        if self.store is not None:
            self.store.close()
        await self.vendor.upstream.stop()
        if self.logs is not None:
            shutil.copytree(self.folder, self.logs, dirs_exist_ok=True)
        self._folder.cleanup()

    def _variables(self, name: str) -> dict[str, str]:
        variables = {
            "SUPPORTED_PROVIDERS": "gpt",
            "OPENAI_API_KEY": f"{KEY}{name}",
            "OPENAI_BASE_URL": self.vendor.upstream.base_url("openai"),
            "HEARTBEAT": str(HEARTBEAT),
            "WRITE_TIMEOUT": "8",
            "RESUME_GRACE": str(RESUME_GRACE),
            "RESUME_WINDOW": str(RESUME_WINDOW),
            "DRAIN_TIMEOUT": "3",
            "HEDGE_AFTER": "0",
            "LOG_DIR": "none",
            "LOG_LEVEL": "INFO",
        }
        if self.store is not None:
            variables |= {"REDIS_URL": self.store.url, "LEASE_SECONDS": str(self.lease)}
        return variables

    def abandon(self, http: aiohttp.ClientSession, response: aiohttp.ClientResponse | None) -> None:
        """Leave a connection open without reading it; it is closed at the end at the latest."""
        loop = asyncio.get_running_loop()
        self._abandoned[http] = response
        loop.call_later(SILENT_SECONDS, lambda: loop.create_task(self._close(http)))

    async def _close(self, http: aiohttp.ClientSession) -> None:
        response = self._abandoned.pop(http, None)
        if response is not None:
            response.close()
        await http.close()

    async def close_abandoned(self) -> None:
        """Close all connections that were left open."""
        for http in list(self._abandoned):
            await self._close(http)

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def some_node(self, dice: random.Random) -> Node:
        """A node that takes chats if there is one, as a load balancer would choose it."""
        up = [node for node in self.nodes if node.takes_chats]
        return dice.choice(up or self.nodes)

    @contextmanager
    def trouble(self, kind: str) -> Iterator[None]:
        """Something is broken while this context is active."""
        entry = [kind, float("inf")]
        self._troubles.append(entry)
        try:
            yield
        finally:
            entry[1] = time.monotonic()

    def troubled_since(self, moment: float, kinds: frozenset[str]) -> bool:
        """Whether one of `kinds` was broken at that moment or later."""
        return any(kind in kinds and end >= moment for kind, end in self._troubles)

    def epoch(self, stream: str | None) -> int:
        """The number of writers that a stream has had; 0 if the store does not know it."""
        if self.store is None or stream is None:
            return 0
        try:
            with redis.Redis.from_url(self.store.url, socket_timeout=1) as client:
                return int(client.hget(f"relay:{{{stream}}}", "epoch") or 0)
        except redis.RedisError:
            return 0

    def state(self, stream: str | None) -> str:
        """The store's data about a stream, for debugging."""
        if self.store is None or stream is None:
            return ""
        key = f"relay:{{{stream}}}"
        try:
            with redis.Redis.from_url(self.store.url, socket_timeout=1) as client:
                fields = client.hmget(key, "status", "epoch", "next", "cancel", "erased")
                lease, left = client.get(f"{key}:lease"), client.pttl(f"{key}:lease")
        except redis.RedisError as error:
            return f"; the store: {error}"
        return f"; the store: status, epoch, next, cancel, erased {fields}, lease {lease} {left} ms"
