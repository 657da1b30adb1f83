"""Many clients at once, and their shared objects."""

from __future__ import annotations

import asyncio
import random
import time

from lab.chaos.clients import Client, EventReader, Outage, SocketReader
from lab.chaos.ground import Ground
from lab.chaos.ledger import Ledger
from lab.chaos.plan import Plan, draw_plan
from lab.chaos.story import Story
from lab.waiting import until

PACES = (0.0, 0.01, 0.03, 0.03, 0.06)
"""Seconds between two pieces of an answer."""


class Crowd:
    """Starts clients, waits for their end, and passes each to the ledger."""

    def __init__(self, ground: Ground, ledger: Ledger, seed: int) -> None:
        self.ground = ground
        self.ledger = ledger
        self.reading: set[Client] = set()
        self._seed = seed
        self._stories = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._keepers: list[asyncio.Task[None]] = []

    def story(self, dice: random.Random, words: int = 0, pace: float | None = None) -> Story:
        """A story that nobody asked for before."""
        self._stories += 1
        return Story(
            self._seed * 1_000_000 + self._stories,
            words or dice.choice((8, 40, 80, 160, 240)),
            dice.choice(PACES) if pace is None else pace,
        )

    def dice(self) -> random.Random:
        """A random generator for one client."""
        return random.Random(f"{self._seed}/{self._stories}")

    def client(self, story: Story, plan: Plan, *, sse: bool, home: str | None = None) -> Client:
        """A client for a story; `home` is the node that it asks first."""
        kind = EventReader if sse else SocketReader
        made = kind(self.ground, story, plan, self.dice(), spawn=self.start, tried=self.ledger.tell)
        made.home = home
        return made

    def start(self, client: Client) -> asyncio.Task[None]:
        """Start a client's task."""
        self.reading.add(client)
        task = asyncio.create_task(self._follow(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, client: Client) -> None:
        try:
            await client.read()
        except Exception as error:
            client.reading.faults.append(f"the client failed: {error!r}")
        finally:
            self.reading.discard(client)
            self.ledger.close(client)

    def keep_up(self, count: int) -> None:
        """Keep `count` clients at work, each with one story after the other."""
        self._keepers = [asyncio.create_task(self._keep_one(n)) for n in range(count)]

    async def _keep_one(self, number: int) -> None:
        dice = random.Random(f"{self._seed}/keeper/{number}")
        while True:
            story = self.story(dice)
            client = self.client(story, draw_plan(dice, story.words), sse=dice.random() < 0.4)
            await asyncio.shield(self.start(client))

    async def go_home(self) -> None:
        """Start no more clients, and wait for the running ones."""
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        while self._tasks:
            await asyncio.gather(*list(self._tasks), return_exceptions=True)

    async def all_done(self, clients: list[Client]) -> None:
        """Wait until these clients have ended."""
        await until(lambda: not any(client in self.reading for client in clients), within=None)

    def hit(self, node: str) -> list[Client]:
        """Mark the readers whose answer comes from this node, which is killed now."""
        found = []
        for client in self.reading:
            reading = client.reading
            told_here = self.ground.vendor.teller(reading.story) == node
            if told_here and not reading.over and client.outage is None and reading.text:
                epoch = self.ground.epoch(reading.stream)
                client.outage = Outage(time.monotonic(), reading.last, epoch, client.stalls)
                found.append(client)
        return found
