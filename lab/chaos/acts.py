"""The acts of a run, each of which checks one question."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace

import aiohttp

from lab.chaos.clients import Client
from lab.chaos.crowd import Crowd
from lab.chaos.disasters import Disasters
from lab.chaos.ground import RESUME_WINDOW, Ground
from lab.chaos.ledger import Ledger
from lab.chaos.node import Node
from lab.chaos.plan import Mishap, Plan
from lab.chaos.story import Story
from lab.waiting import until

QUIET_SECONDS = RESUME_WINDOW + 15.0
"""Seconds within which everything must be back at its base values in the quiet period."""

FILE_SLACK = 4
"""Open files that a node may have in addition to those at its start, without kept connections to
the vendor and to the store."""

KEPT = 512
"""Idle connections that a node keeps at most, to one vendor and to the store."""

TASK_SLACK = 8
"""Tasks that a node may have in addition to those at its start: one for each kept-alive connection
that asked for its metrics or its health."""

RSS_SLACK = 128 * 1024**2
"""Bytes of memory that a node may use in addition to those at its start: an allocator keeps some
after it held about ten megabytes of text in small pieces."""

LONG_WORDS, LONG_GRAIN = 40_000, 50
"""An answer larger than any socket buffer, in pieces large enough to be sent quickly."""


@dataclass(slots=True)
class Acts:
    """What all acts need."""

    ground: Ground
    crowd: Crowd
    ledger: Ledger
    disasters: Disasters
    dice: random.Random

    async def at_random(self, seconds: float) -> None:
        """Random disasters, one after the other, while the crowd reads."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.disasters.one()

    async def kills(self, count: int) -> None:
        """kill -9 of an owning node, repeatedly."""
        for _ in range(count):
            await self._until_told()
            await self.disasters.named("kill -9")

    async def _until_told(self) -> None:
        """Wait for an answer that is being sent, so that a kill hits something."""
        vendor = self.ground.vendor
        await until(
            lambda: any(
                c.reading.text and vendor.teller(c.reading.story) for c in self.crowd.reading
            ),
            within=None,
        )

    # A cut at every frame

    async def cuts(self, frames: int) -> None:
        """One answer for each frame number: the connection is reset right after that frame."""
        clients = []
        for number in range(frames):
            for sse in (False, True):
                story = self.crowd.story(self.dice, frames, 0.01)
                kind: Mishap = "silent" if number % 5 == 4 else "reset"
                clients.append(self.crowd.client(story, Plan([(number, kind)]), sse=sse))
                self.crowd.start(clients[-1])
        await self.crowd.all_done(clients)
        self._expect_one_call_each("a cut at every frame", clients)

    def _expect_one_call_each(self, act: str, clients: list[Client]) -> None:
        again = [c for c in clients if c.kind == "WebSocket"]
        several = [c for c in again if self.ground.vendor.calls_for(c.reading.story) != 1]
        if several:
            self.ledger.loss(f"{act}: {len(several)} answers were not asked for once")

    # Readers that stop

    async def stalled(self, count: int) -> None:
        """Readers stop reading long answers, `count` of them, while others read on."""
        before = [node.rss() for node in self.ground.nodes]
        told = [self.crowd.story(self.dice, LONG_WORDS, 0.0) for _ in range(count)]
        stories = [replace(story, grain=LONG_GRAIN) for story in told]
        size = sum(len(story.text().encode()) for story in stories)
        clients = [
            self.crowd.client(
                story, Plan([(1, "long stall" if number % 4 < 2 else "stall")]), sse=number % 2 == 1
            )
            for number, story in enumerate(stories)
        ]
        for client in clients:
            self.crowd.start(client)
        peaks = before
        while any(client in self.crowd.reading for client in clients):
            peaks = [
                max(peak, node.rss()) for peak, node in zip(peaks, self.ground.nodes, strict=True)
            ]
            await asyncio.sleep(0.2)
        growth = sum(peaks) - sum(before)
        self.ledger.findings.append(
            f"{count} stalled readers: {size / 1e6:.1f} MB of text, "
            f"the nodes grew by {growth / 1e6:.1f} MB at most"
        )

    # A drain under streams

    async def drain_under(self, count: int) -> None:
        """SIGTERM of a node that has just started `count` answers, most of which take longer than
        its deadline."""
        node = self.ground.nodes[0]
        clients = []
        for number in range(count):
            story = self.crowd.story(self.dice, 100, 0.06 if self.ground.store else 0.02)
            clients.append(self.crowd.client(story, Plan(), sse=number % 3 == 0, home=node.name))
            self.crowd.start(clients[-1])
        await self._until_all_told(clients)
        self.ledger.tell("drain")
        began = time.monotonic()
        with self.ground.trouble("drain"):
            refused = asyncio.create_task(self._ask_draining(node))
            status = await node.drain()
            took = time.monotonic() - began
        if status != 0:
            self.ledger.loss(f"a drain under {count} streams ended with {status}")
        answer = await refused
        if answer != "draining":
            self.ledger.loss(f"a draining node said {answer!r} to a new chat")
        await node.start()
        await self.crowd.all_done(clients)
        moved = sum(self.ground.vendor.calls_for(c.reading.story) > 1 for c in clients)
        self.ledger.findings.append(
            f"a drain under {count} streams: exit {status} after {took:.1f} s, "
            f"{moved} streams moved to another node, new chats refused with {answer!r}"
        )

    async def _until_all_told(self, clients: list[Client]) -> None:
        await until(lambda: all(c.reading.text or c.reading.over for c in clients), within=None)

    async def _ask_draining(self, node: Node) -> str:
        """What a node that was told to stop answers to a new chat."""
        async with aiohttp.ClientSession() as http:

            async def is_draining() -> bool:
                async with http.get(f"{node.url}/readyz") as response:
                    return response.status == 503

            await until(is_draining)
            body = {"messages": [{"role": "user", "content": Story(1, 3, 0.0).prompt}]}
            async with http.post(f"{node.url}/chat/gpt", json=body) as response:
                answer = await response.json()
                return str(answer.get("error", {}).get("code", response.status))

    # The end

    async def quiet(self, *, waits: bool) -> None:
        """All clients are gone: nothing may be running, and all resources must be released.
        Without `waits` only the upstream calls are checked, which end soon."""
        await self.ground.close_abandoned()
        look = self._remains if waits else self._running
        end = time.monotonic() + QUIET_SECONDS
        while (found := await look()) and time.monotonic() < end:
            await asyncio.sleep(0.5)
        for what in found:
            self.ledger.loss(what)
        for node in self.ground.nodes:
            gauges, files = await node.gauges(), node.files()
            self.ledger.findings.append(
                f"node {node.name} after the quiet period: {files.own} open files "
                f"({node.base_files.own} at its start), {files.to_vendor} connections kept to "
                f"the vendor, {files.to_store} to the store, {node.rss() / 1e6:.0f} MB "
                f"({node.base_rss / 1e6:.0f} at its start), "
                f"{gauges.get('relay_running_streams', 0):g} streams, "
                f"{gauges.get('relay_connections', 0):g} connections, "
                f"{gauges['relay_tasks']:g} tasks ({node.base_tasks:g} at its start)"
            )

    async def _running(self) -> list[str]:
        running = len(self.ground.vendor.running)
        return [f"{running} upstream calls still run"] if running else []

    async def _remains(self) -> list[str]:
        found = await self._running()
        for node in self.ground.nodes:
            gauges = await node.gauges()
            found += [
                f"node {node.name}: {name} is {gauges[name]:g}"
                for name in ("relay_running_streams", "relay_connections")
                if gauges.get(name)
            ]
            if gauges["relay_tasks"] > node.base_tasks + TASK_SLACK:
                found.append(
                    f"node {node.name}: {gauges['relay_tasks']:g} tasks, "
                    f"{node.base_tasks:g} at first"
                )
            files = node.files()
            if files.own > node.base_files.own + FILE_SLACK or max(files) > KEPT:
                found.append(f"node {node.name}: {files}, {node.base_files} at first")
            if node.rss() > node.base_rss + RSS_SLACK:
                found.append(f"node {node.name}: {node.rss() / 1e6:.0f} MB of memory")
        return found
