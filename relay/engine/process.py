"""The owner of the engine's child process: start, readiness, restart after a crash, end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.engine.model import MODEL_NAME, find_model

SLOTS = 4
"""Answers at once; further calls wait inside the engine."""
CONTEXT_TOKENS = 2048
"""Tokens of one call: prompt and answer together. Memory grows with SLOTS times this."""
START_TIMEOUT = 30.0
"""Seconds from the start of the process to its readiness; 0.5 s is usual."""
STOP_TIMEOUT = 2.0
"""Seconds that the process is given to exit before it is killed."""
DYING_TIME = 0.2
"""Seconds within which the death of a process is known after its connections broke."""
KEPT_LINES = 20
"""Last lines of the engine's own output, for the message of a failed start."""
SOCKET_NAME = "engine.sock"
LONGEST_SOCKET_PATH = 103
"""Bytes that `sun_path` holds beside its NUL: 107 on Linux, 103 on macOS and the BSDs."""
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""The environment variables that the child gets: it must not see the vendors' keys."""


class EngineFailed(Exception):
    """The engine could not be started. The message tells a user why."""


@dataclass(frozen=True, slots=True)
class EngineEndpoint:
    """Where a running engine is reached: OpenAI-compatible HTTP on a Unix socket, with the bearer
    token that it requires. Stays the same over restarts."""

    socket: str
    api_key: str


class Engine:
    """One child process that runs the model; restarted on use after it died.

    Call `start` once a loop runs, so that the first chat doesn't wait for the load; each
    call of the engine waits for `ready` before. `close` ends the child in every state.
    Not thread-safe: all calls on one loop.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        """`command` replaces the child's program, for tests; it gets the socket's path as
        its last argument."""
        self._command = command
        self._folder = ""
        self._endpoint: EngineEndpoint | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The running child's process id, or None."""
        return self._process.pid if self._process and self._alive() else None

    def start(self) -> None:
        """Begin to start the child in the background, unless it runs or starts already. `ready`
        raises the errors."""
        if self._closed or self._starting or self._alive():
            return
        self._starting = asyncio.create_task(self._launch(), name="engine-start")
        self._starting.add_done_callback(self._started)

    async def ready(self) -> EngineEndpoint:
        """Wait until the engine takes calls; start it where it is not running.

        Raises `EngineFailed` when it can't be started, or is closed. A caller that is
        cancelled leaves the start under way for the others.
        """
        if self._closed:
            raise EngineFailed("the embedded model is being stopped")
        self.start()
        if self._starting:
            await asyncio.shield(self._starting)
        if self._endpoint is None:
            raise EngineFailed("the embedded model is being stopped")
        return self._endpoint

    async def settled(self) -> None:
        """Wait until it is known whether the child survived. Call it when a call broke: a
        dying process loses its connections a moment before its parent hears of its death."""
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DYING_TIME):
                    await self._process.wait()

    async def close(self) -> None:
        """End the child, also in mid-answer or mid-start, and remove its socket. Idempotent."""
        self._closed = True
        if self._starting:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await self._end()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # seen here, so that an unawaited failure isn't reported as lost

    async def _launch(self) -> None:
        await self._end()
        self._endpoint = self._endpoint or self._new_endpoint()
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._spawn(self._endpoint)
        except (TimeoutError, OSError, EngineFailed) as error:
            await self._end()
            raise EngineFailed(self._reason(error)) from error
        except asyncio.CancelledError:
            await self._end()
            raise

    def _new_endpoint(self) -> EngineEndpoint:
        self._folder = private_folder()
        return EngineEndpoint(str(Path(self._folder, SOCKET_NAME)), secrets.token_urlsafe(24))

    async def _spawn(self, endpoint: EngineEndpoint) -> None:
        """Start the child in a session of its own, so that a terminal's Ctrl-C reaches only
        the parent, and wait for its `ready`."""
        pipe = asyncio.subprocess.PIPE
        self._lines.clear()
        self._process = process = await asyncio.create_subprocess_exec(
            *(self._command or engine_command()),
            endpoint.socket,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._reader = asyncio.create_task(self._read(process.stderr), name="engine-output")
        process.stdin.write(endpoint.api_key.encode() + b"\n")
        if await process.stdout.readline() != b"ready\n":
            await asyncio.wait([self._reader], timeout=STOP_TIMEOUT)
            raise EngineFailed("it ended before it was ready")

    async def _read(self, output: asyncio.StreamReader) -> None:
        """Keep the last lines of the engine's output. It must be read, or the engine would
        stop at a full pipe."""
        while chunk := await output.read(65536):
            self._lines.extend(chunk.decode(errors="replace").splitlines())

    async def _end(self) -> None:
        """End the child if there is one: by the end of its stdin, else by SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            await _end_process(process)
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _reason(self, error: Exception) -> str:
        what = "it took too long" if isinstance(error, TimeoutError) else str(error)
        last = next((line.strip() for line in reversed(self._lines) if line.strip()), "")
        return f"the embedded model did not start: {what}" + (f" ({last})" if last else "")


def engine_command() -> list[str]:
    """The child's command line without its last argument, the socket's path.

    Raises `EngineFailed` where the model's file is missing.
    """
    model = find_model()
    if model is None:
        raise EngineFailed("its model file is missing")
    program = Path(__file__).with_name("serve.py")
    options = [str(SLOTS), str(CONTEXT_TOKENS), MODEL_NAME]
    return [sys.executable, "-P", str(program), str(model), *options]


def private_folder() -> str:
    """A new directory that only this user can enter, short enough to hold a Unix socket."""
    room = LONGEST_SOCKET_PATH - len(SOCKET_NAME) - len("/chat-relay-12345678/")
    roots = (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp")  # noqa: S108
    for root in roots:
        if root and len(os.fsencode(root)) <= room and os.access(root, os.W_OK | os.X_OK):
            return tempfile.mkdtemp(prefix="chat-relay-", dir=root)
    raise EngineFailed("no temporary directory with a path short enough for a Unix socket")


async def _end_process(process: asyncio.subprocess.Process) -> None:
    if process.stdin:
        process.stdin.close()
    leaving = asyncio.ensure_future(process.wait())
    # No asyncio.timeout: a task that is being cancelled comes here, and up to Python 3.11.3 a
    # timeout in it ends as another cancellation, before the child is killed.
    await asyncio.wait([leaving], timeout=STOP_TIMEOUT)
    if not leaving.done():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await leaving
