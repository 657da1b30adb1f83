"""`WORKERS`: several processes on one port, as `server.py` runs them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from lab.upstreams.scripts import answer
from lab.upstreams.server import Upstream
from lab.waiting import until
from relay.client import RelayClient
from tests.wire.served import server

ANSWER = "Two of us answer, and nobody can tell."


def workers_of(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in command_of(int(pid))]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def listener_of(port: int) -> int:
    """The parent: the one `server.py` that this test's port was given to."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and "server.py" in command_of(int(entry.name)):
            environment = (entry / "environ").read_bytes().split(b"\0")
            mine = f"PORT={port}".encode() in environment
            if mine and workers_of(int(entry.name)):
                return int(entry.name)
    raise AssertionError("no parent is there")


@asynccontextmanager
async def two_workers(tmp_path: Path, **env: str) -> AsyncIterator[tuple[int, Upstream]]:
    async with (
        Upstream(answer(ANSWER)) as upstream,
        server(upstream, tmp_path, WORKERS="2", **env) as port,
    ):
        yield port, upstream


async def until_two(parent: int, without: int = 0) -> list[int]:
    def others() -> list[int]:
        return [pid for pid in workers_of(parent) if pid != without]

    await until(lambda: len(others()) >= 2)
    return others()


async def alive(port: int) -> bool:
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}/readyz") as response,
        ):
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def test_a_worker_that_dies_is_started_anew_and_the_port_serves_on(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (port, _):
        parent = listener_of(port)
        victim = (await until_two(parent))[0]
        os.kill(victim, signal.SIGKILL)
        await until_two(parent, without=victim)
        await until(lambda: alive(port))
        async with RelayClient(f"ws://127.0.0.1:{port}/ws") as client:
            assert await client.chat("hi").text() == ANSWER


async def test_a_signal_to_the_whole_group_ends_every_worker_in_order(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (port, _):
        parent = listener_of(port)
        pids = await until_two(parent)
        for pid in (*pids, parent):
            os.kill(pid, signal.SIGTERM)
        await until(lambda: not any(command_of(pid) for pid in pids))
    stopped = (tmp_path / "worker-1" / "app.log").read_text()
    assert "stopped" in stopped


async def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (port, _):
        parent = listener_of(port)
        pids = await until_two(parent)
        os.kill(parent, signal.SIGKILL)
        await until(lambda: not any("spawn_main" in command_of(pid) for pid in pids))


@pytest.mark.parametrize("held", ["0", "-1", "many"])
def test_workers_takes_a_count(held: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.configuration.load import load_settings
    from relay.configuration.variables import SettingsError

    monkeypatch.setenv("WORKERS", held)
    with pytest.raises(SettingsError, match="WORKERS"):
        load_settings(None)
