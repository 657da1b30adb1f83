"""Clients that come, go, double and return at random: none misses or repeats a character."""

from __future__ import annotations

import random

import pytest

from lab.waiting import until
from tests.wire.socket_relay import Client, Held, SocketRelay, serving

SESSION = "s" * 22


class Reader:
    """One device: what it has applied outlives its connections."""

    def __init__(self, relay: SocketRelay) -> None:
        self.relay = relay
        self.client: Client | None = None
        self.last: dict[str, int] = {}
        self.texts: dict[str, str] = {}

    async def connect(self) -> Client:
        """Come (back), to the session and to what was read."""
        self.client = client = await self.relay.connect()
        client.last, client.texts = self.last, self.texts
        await client.send("hello", session=SESSION, resume=self.last)
        if not self.last:
            await client.chat()
        return client

    def drop(self) -> None:
        if self.client:
            self.client.drop()
        self.client = None

    async def read(self, frames: int) -> None:
        for _ in range(frames):
            if self.client and self.client.last.get("a", -1) < self.reached():
                await self.client.frame()

    def reached(self) -> int:
        streams = self.relay.log._sessions[SESSION].ids if self.last else {}
        return len(streams["a"].records) - 1 if streams else -1


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_to_connections_each_reader_has_the_whole_text(seed: int) -> None:
    dice, held, said = random.Random(seed), Held(), ""
    async with serving(held) as relay:
        readers = [Reader(relay) for _ in range(3)]
        await (await readers[0].connect()).until("start")
        for step in range(60):
            reader = dice.choice(readers)
            match dice.randrange(5):
                case 0 | 1:
                    said += f"{step} "
                    await held.say(f"{step} ")
                case 2 if reader.client is None:
                    await reader.connect()
                case 3:
                    reader.drop()
                case 4:
                    await reader.read(dice.randrange(4))
        held.end()
        for reader in readers:
            client = reader.client or await reader.connect()
            await client.until("done")
        assert [reader.texts.get("a", "") for reader in readers] == [said] * 3
        assert len(relay.provider.calls) == 1
        for reader in readers:
            reader.drop()
        await until(lambda: relay.edge.connections == 0)
        assert relay.log._streams[await relay.log.find(SESSION, "a")].cursors == []
