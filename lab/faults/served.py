"""The relay under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from lab.relay_process import RelayFailed, RelayProcess

SETTLE_SECONDS = 60.0
SETTLED = 5
"""Number of consecutive answers, each within `SETTLED_SECONDS`, after which the relay counts as
ready. Before that it prepares the lab's many hundred models, and cells would take too long."""
SETTLED_SECONDS = 0.05


@asynccontextmanager
async def relay(folder: Path, variables: Mapping[str, str]) -> AsyncIterator[str]:
    """A running relay; yields its address. Its output goes to `relay.log` in `folder`.

    Raises `RelayFailed`, also if the relay ends with a status other than 0.
    """
    quiet = {"LOG_DIR": "none", "LOG_LEVEL": "WARNING"}
    process = RelayProcess(folder, {**quiet, **variables}, log=folder / "relay.log")
    async with process:
        await _until_settled(process.url)
        yield process.url
    if process.status:
        raise RelayFailed(f"the relay ended with status {process.status}")


async def _until_settled(url: str) -> None:
    """Wait until the relay answers at once, at most `SETTLE_SECONDS`."""
    loop = asyncio.get_running_loop()
    begun, quick = loop.time(), 0
    async with aiohttp.ClientSession() as http:
        while quick < SETTLED and loop.time() - begun < SETTLE_SECONDS:
            asked = loop.time()
            async with http.get(f"{url}/livez"):
                quick = quick + 1 if loop.time() - asked < SETTLED_SECONDS else 0
            await asyncio.sleep(SETTLED_SECONDS)
