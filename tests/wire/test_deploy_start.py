"""`deploy/run.py` promises a page and a token only where they are its own and work."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import web

from lab.ports import free_port
from lab.waiting import until

ROOT = Path(__file__).parents[2]
RUN = ROOT / "deploy" / "run.py"
PATIENCE = 60.0
VARIABLES = {"SUPPORTED_PROVIDERS": "gpt", "OPENAI_API_KEY": "test-key", "LEASE_SECONDS": "1"}


@pytest.fixture
def run() -> ModuleType:
    """`deploy/run.py` as a module."""
    spec = importlib.util.spec_from_file_location("deploy_run", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def somebody(listener: socket.socket | None = None) -> AsyncIterator[int]:
    """The port of a program that answers every request with 200, as another run's nginx
    answers `/readyz`."""

    async def yes(_: web.Request) -> web.Response:
        return web.Response(text="yes")

    runner = web.ServerRunner(web.Server(yes))  # type: ignore[arg-type]
    await runner.setup()
    if listener is None:
        listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


async def said_by(
    *arguments: str,
    meanwhile: Callable[[], bool] | None = None,
    **variables: str,
) -> tuple[int, str, str]:
    """The exit status, the output and the complaints of a run that ends by itself.
    `meanwhile` is called until it has done what it does during the start."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(RUN), *arguments),
        env={**kept, **VARIABLES, **variables},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            if meanwhile is not None:
                await until(lambda: meanwhile() or process.returncode is not None)
                assert process.returncode is None
            out, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), complaints.decode()


async def test_a_port_that_another_program_answers_on_is_not_promised() -> None:
    async with somebody() as port:
        status, out, complaints = await said_by("--port", str(port))
    assert (status, out) == (1, "")
    assert f"port {port} is taken" in complaints
    assert "--port" in complaints


async def test_a_port_that_is_lost_during_the_start_is_not_promised(tmp_path: Path) -> None:
    port = free_port()
    taken: list[socket.socket] = []

    def take() -> bool:
        if any(tmp_path.glob("relay-deploy-*/node-1.log")):
            taken.append(socket.create_server(("127.0.0.1", port)))
        return bool(taken)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(
            said_by("--port", str(port), meanwhile=take, TMPDIR=str(tmp_path))
        )
        await until(lambda: taken or running.done(), within=PATIENCE)
        async with somebody(taken[0]):
            status, out, complaints = await running
    assert (status, out) == (1, "")
    assert f"port {port} is taken" in complaints


async def test_a_node_that_ends_at_its_start_is_told_with_its_last_words() -> None:
    status, out, complaints = await said_by("--port", "0", FIRST_TOKEN_TIMEOUT="soon")
    assert (status, out) == (1, "")
    assert re.match(r"node-\d ended with 2; it said:\n", complaints)
    assert "FIRST_TOKEN_TIMEOUT" in complaints


@pytest.mark.parametrize("lives", ["0", "0.3"])
async def test_a_redis_that_ends_during_the_start_is_told(lives: str, tmp_path: Path) -> None:
    redis = shutil.which("redis-server")
    assert redis, "redis-server is missing: `make dev` installs it"
    fake = tmp_path / "redis-server"
    fake.write_text(f'#!/bin/sh\n[ {lives} = 0 ] && exit 9\nexec timeout {lives} {redis} "$@"\n')
    fake.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    status, out, complaints = await said_by("--port", "0", PATH=path)
    assert (status, out) == (1, "")
    assert "redis ended with" in complaints


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--port", "70000"], "70000"), (["--nodes", "0"], "--nodes 0")]
)
async def test_numbers_that_make_no_sense_are_refused(arguments: list[str], word: str) -> None:
    status, out, complaints = await said_by(*arguments)
    assert (status, out) == (2, "")
    assert word in complaints.splitlines()[-1]


async def test_loopback_is_asked_without_the_proxy_of_the_environment(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with somebody() as port:
        assert await asyncio.to_thread(run._answers, port)


@pytest.mark.parametrize(
    ("environment", "file", "is_set"),
    [
        (None, None, False),
        (None, (ROOT / ".env.example").read_text("utf-8"), False),
        (None, "RELAY_TOKENS=\n", False),
        (None, 'RELAY_TOKENS=""\n', False),
        (None, "MY_RELAY_TOKENS=alice=0123456789abcdef\n", False),
        (None, "# tokens\nRELAY_TOKENS=alice=0123456789abcdef\n", True),
        (None, "export RELAY_TOKENS = 'alice=0123456789abcdef'\n", True),
        ("alice=0123456789abcdef", None, True),
        ("", "RELAY_TOKENS=alice=0123456789abcdef\n", False),
    ],
)
def test_a_token_is_made_where_the_nodes_find_none(
    run: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: str | None,
    file: str | None,
    is_set: bool,
) -> None:
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.delenv("RELAY_TOKENS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RELAY_TOKENS", environment)
    if file is not None:
        (tmp_path / ".env").write_text(file, encoding="utf-8")
    deployment = run.Deployment(tmp_path, 1, 1)
    assert ("RELAY_TOKENS" in deployment._variables()) is not is_set
