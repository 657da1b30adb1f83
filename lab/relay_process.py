"""The relay as it is run: `server.py` in a process of its own, configured by its environment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from lab.ports import free_port
from lab.waiting import until

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LAST_WORDS = 4000
"""Characters of the log that the message of `RelayFailed` contains."""


class RelayFailed(Exception):
    """The relay did not start, or did not stop in order. `str()` of it includes the relay's
    output."""


class RelayProcess:
    """One `server.py`, which can be stopped, killed, frozen and started again on its port.

    Its environment is `variables`, PATH and HOME, nothing else of this process's. It works in
    `folder`. Its output is added to `log`, or printed if there is none. As a context it is
    started, and stopped at the end.
    """

    def __init__(
        self, folder: Path, variables: Mapping[str, str], *, port: int = 0, log: Path | None = None
    ) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._log = log
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._environment = {**inherited, "PORT": str(self.port), **variables}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs, and before it was started."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start, and wait until it takes chats. Raises `RelayFailed`."""
        command = (sys.executable, str(ROOT / "server.py"))
        with self._log.open("ab") if self._log else nullcontext() as out:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._environment, cwd=self._folder, stdout=out, stderr=out
            )
        try:
            async with aiohttp.ClientSession() as http:
                await until(lambda: self._is_ready(http), within=START_SECONDS)
        except TimeoutError:
            raise RelayFailed(f"the relay did not start{self._last_words()}") from None

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        if self.status is not None:
            raise RelayFailed(f"the relay ended with status {self.status}{self._last_words()}")
        with suppress(aiohttp.ClientConnectionError):
            async with http.get(f"{self.url}/readyz") as response:
                return response.status == 200
        return False

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        said = self._log.read_text(encoding="utf-8", errors="replace")
        return f"; it said:\n{said[-LAST_WORDS:]}"

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the exit status. Raises `TimeoutError` after `STOP_SECONDS`."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)

    async def stop(self) -> int:
        """Send SIGTERM, even if it is frozen or has ended; returns the exit status. If it does not
        end, kills it and raises `RelayFailed`."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return await self.ended()
        except TimeoutError:
            await self.kill()
            raise RelayFailed(f"the relay did not stop{self._last_words()}") from None

    async def kill(self) -> None:
        """End it at once, like a power cut. Idempotent."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
