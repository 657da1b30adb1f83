"""Disasters for nodes and the store, one at a time; each is repaired before the next."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import redis

from lab.chaos.clients import Client
from lab.chaos.crowd import Crowd
from lab.chaos.ground import Ground
from lab.chaos.ledger import Ledger
from lab.chaos.node import Node

Disaster = Callable[[], Awaitable[None]]

STORE_FROZEN = 5.0
STORE_FULL = 4.0
"""Seconds."""


class Disasters:
    """Draws disasters and carries them out. `describe` names the current one, for the progress
    line."""

    def __init__(self, ground: Ground, crowd: Crowd, ledger: Ledger, dice: random.Random) -> None:
        self.describe = "calm"
        self._ground = ground
        self._crowd = crowd
        self._ledger = ledger
        self._dice = dice
        self._rows: set[asyncio.Task[None]] = set()
        self._all: dict[str, tuple[float, Disaster]] = {"drain": (1.5, self.drain)}
        if ground.store is not None:
            self._all |= {
                "kill -9": (4.0, self.kill),
                "node frozen": (1.5, self.freeze_node),
                "redis restart": (1.0, self.restart_store),
                "redis freeze": (0.6, self.freeze_store),
                "redis connections": (1.5, self.cut_store),
                "redis flush": (1.0, self.flush_store),
                "redis full": (0.8, self.fill_store),
            }

    async def one(self) -> None:
        """A random disaster."""
        names = list(self._all)
        weights = [weight for weight, _ in self._all.values()]
        name = self._dice.choices(names, weights)[0]
        await self.named(name)

    async def named(self, name: str) -> None:
        """The disaster of that name, then a calm period."""
        self.describe = name
        self._ledger.tell(name)
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        with self._ground.trouble(name):
            await self._all[name][1]()
        self.describe = "calm"
        await asyncio.sleep(self._ground.lease + self._dice.uniform(0.3, 2.0))

    # Nodes

    def _busiest(self) -> Node:
        """The node that is sending most answers."""
        vendor = self._ground.vendor
        told = [vendor.teller(client.reading.story) for client in self._crowd.reading]
        return max(self._ground.nodes, key=lambda node: told.count(node.name))

    async def kill(self) -> None:
        """kill -9 of a node that owns streams; it is started again."""
        node = self._busiest()
        hit = self._crowd.hit(node.name)
        await node.kill()
        row = asyncio.create_task(self._note_kill(node.name, hit))
        self._rows.add(row)
        row.add_done_callback(self._rows.discard)
        await asyncio.sleep(self._dice.uniform(0.0, 1.0))
        await node.start()

    async def _note_kill(self, node: str, hit: list[Client]) -> None:
        await self._crowd.all_done(hit)
        self._ledger.kill_row(node, hit)

    async def rows_done(self) -> None:
        """Wait until every kill has its row."""
        await asyncio.gather(*self._rows)

    async def drain(self) -> None:
        """SIGTERM; the exit status must be 0. The node is started again."""
        node = self._busiest()
        status = await node.drain()
        if status != 0:
            self._ledger.loss(f"node {node.name} was drained and ended with {status}")
        await node.start()

    async def freeze_node(self) -> None:
        """A partition: the node is frozen for longer than its lease, then continues as if it still
        owned its streams."""
        node = self._busiest()
        node.freeze()
        await asyncio.sleep(self._ground.lease * self._dice.uniform(0.5, 3.0))
        node.thaw()

    # The store

    async def restart_store(self) -> None:
        """Kill the store and start it again empty, at once or after a while."""
        store = self._ground.store
        assert store is not None
        store.kill()
        await asyncio.sleep(self._dice.choice((0.0, 0.5, 3.0)))
        store.start()

    async def freeze_store(self) -> None:
        """Freeze the store with its connections open."""
        store = self._ground.store
        assert store is not None
        store.freeze()
        await asyncio.sleep(STORE_FROZEN)
        store.thaw()

    async def cut_store(self) -> None:
        """Close every connection to the store."""
        self._command("CLIENT", "KILL", "TYPE", "normal")
        self._command("CLIENT", "KILL", "TYPE", "pubsub")

    async def flush_store(self) -> None:
        """Delete all data in the store."""
        self._command("FLUSHALL")

    async def fill_store(self) -> None:
        """Let the store refuse writes, as if its memory were full."""
        self._command("CONFIG", "SET", "maxmemory", "1mb")
        await asyncio.sleep(STORE_FULL)
        self._command("CONFIG", "SET", "maxmemory", "0")

    def _command(self, *words: str) -> None:
        store = self._ground.store
        assert store is not None
        with suppress(redis.ConnectionError), redis.Redis.from_url(store.url) as client:
            client.execute_command(*words)
