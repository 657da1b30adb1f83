"""The relay as it is run: `server.py` in a process of its own, set by its environment."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
SETTLED = 5
"""Answers in a row, each within `SETTLED_SECONDS`, by which the relay is done with making
ready for the lab's many hundred models. Cells played meanwhile would be timed too long."""
SETTLED_SECONDS = 0.05


class RelayFailed(Exception):
    """The relay did not start, or did not stop in order. `str()` of it says what it said."""


@asynccontextmanager
async def relay(folder: Path, variables: Mapping[str, str]) -> AsyncIterator[str]:
    """A running relay; gives its address. What it says goes to `relay.log` in `folder`.

    Raises `RelayFailed`.
    """
    port = _free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PORT": str(port), "LOG_DIR": "none", "LOG_LEVEL": "WARNING", **variables}
    log = folder / "relay.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "server.py"),
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    try:
        await _until_alive(port, process, log)
        await _until_settled(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        status = await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        raise RelayFailed("the relay did not stop") from None
    if status:
        raise RelayFailed(f"the relay ended with status {status}")


async def _until_alive(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    try:
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as http:
            while process.returncode is None:
                with suppress(aiohttp.ClientConnectionError):
                    async with http.get(f"http://127.0.0.1:{port}/livez") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    raise RelayFailed(f"the relay did not start:\n{log.read_text(errors='replace')}")


async def _until_settled(port: int) -> None:
    """Wait until the relay answers at once, at most `START_SECONDS`."""
    loop = asyncio.get_running_loop()
    begun, quick = loop.time(), 0
    async with aiohttp.ClientSession() as http:
        while quick < SETTLED and loop.time() - begun < START_SECONDS:
            asked = loop.time()
            async with http.get(f"http://127.0.0.1:{port}/livez"):
                quick = quick + 1 if loop.time() - asked < SETTLED_SECONDS else 0
            await asyncio.sleep(SETTLED_SECONDS)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
