"""`deploy/`: two nodes, Redis and nginx, started by one command; the compose file says the
same. There is no Docker engine here, so of the containers only the files are held."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
import yaml

from lab.upstreams import Counts, End, Finish, Pause, Request, Step, Token, Upstream, continues
from lab.waiting import until
from relay.configuration.settings import Settings, variables

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TOKEN = "a-token-of-the-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
WORDS = ["Once", *(f" upon[{n}]" for n in range(59))]
TEXT = "".join(WORDS)
HALF = 25
PATIENCE = 60.0


class Model:
    """Halts in the middle of its first answer. Whoever asks it to go on gets the last few
    words again and then the rest."""

    def __init__(self) -> None:
        self.never = asyncio.Event()

    def __call__(self, request: Request) -> Sequence[Step]:
        if request.number:
            return continues(*WORDS, overlap=50)(request)
        ahead = [*map(Token, WORDS[:HALF]), Pause(until=self.never)]
        return [*ahead, Counts(), Finish(), End()]


class Deployment:
    """What `deploy/run.py` printed."""

    def __init__(self, lines: list[str]) -> None:
        said = "\n".join(lines)
        self.url = re.findall(r"^chat page +(\S+)/$", said, re.M)[0]
        self.websocket = re.findall(r"^WebSocket +(\S+)$", said, re.M)[0]
        nodes = re.findall(r"^node-\d +(\S+) +process (\d+)$", said, re.M)
        self.nodes = [(url, int(pid)) for url, pid in nodes]

    async def owner(self) -> int:
        """The process that writes the one answer under way."""
        async with aiohttp.ClientSession(headers=BEARER) as http:

            async def found() -> int:
                for url, pid in self.nodes:
                    async with http.get(f"{url}/metrics") as response:
                        if "\nrelay_running_streams 1.0" in await response.text():
                            return pid
                return 0

            return await until(found, within=PATIENCE)


@asynccontextmanager
async def deployed(upstream: Upstream) -> AsyncIterator[Deployment]:
    """`deploy/run.py` as it is run; stopped as Ctrl-C stops it."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(str(DEPLOY / "run.py"), "--port", "0"),
        env={
            **environment,
            "SUPPORTED_PROVIDERS": "gpt",
            "OPENAI_API_KEY": "test-key",
            "OPENAI_BASE_URL": upstream.base_url("openai"),
            "RELAY_TOKENS": f"tester={TOKEN}",
            "LEASE_SECONDS": "1",
            "HEDGE_AFTER": "0",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Deployment(await _said(process))
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _said(process: asyncio.subprocess.Process) -> list[str]:
    """The lines of the start, up to the last one."""
    lines: list[str] = []
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while not lines or "Ctrl-C" not in lines[-1]:
            line = await process.stdout.readline()
            assert line, f"it ended: {lines}"
            lines.append(line.decode().rstrip())
    return lines


class Text:
    """The text so far, held to be gapless."""

    def __init__(self) -> None:
        self.last = -1
        self.text = ""
        self.over = False

    def apply(self, frame: dict[str, Any]) -> None:
        if "seq" not in frame:
            assert frame["type"] in ("ready", "ping", "pong"), frame
            return
        assert frame.get("first", frame["seq"]) == self.last + 1, frame
        self.last = frame["seq"]
        assert frame["type"] != "error", frame
        if frame["type"] == "token":
            self.text += frame["text"]
        elif frame["type"] == "fallback" and not frame["keep"]:
            self.text = ""
        self.over = frame["type"] == "done"


async def read_socket(where: Deployment, text: Text, until: int | None = None) -> None:
    """One WebSocket through nginx, from the first chat or from where `text` stands."""
    hello: dict[str, Any] = {"type": "hello", "session": "s" * 24}
    if text.last >= 0:
        hello["resume"] = {"a": text.last}
    async with websockets.connect(where.websocket, additional_headers=BEARER, proxy=None) as ws:
        await ws.send(json.dumps(hello))
        if text.last < 0:
            await ws.send(json.dumps({"type": "chat", "id": "a", "messages": "Tell!"}))
        while not text.over and (until is None or text.last < until):
            text.apply(json.loads(await ws.recv()))


async def follow_events(response: aiohttp.ClientResponse, text: Text, until: int | None) -> None:
    async for line in response.content:
        if line.startswith(b"data:"):
            text.apply(json.loads(line[5:]))
            if text.over or (until is not None and text.last >= until):
                return


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(Model()) as vendor:
        yield vendor


async def test_a_websocket_behind_nginx_finds_its_answer_whole_after_its_node_was_killed(
    upstream: Upstream,
) -> None:
    async with deployed(upstream) as where:
        text = Text()
        async with asyncio.timeout(PATIENCE):
            await read_socket(where, text, until=HALF)
            os.kill(await where.owner(), signal.SIGKILL)
            while not text.over:
                with suppress(OSError, websockets.WebSocketException):
                    await read_socket(where, text)
        assert text.text == TEXT
    for _, pid in where.nodes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_events_behind_nginx_go_on_after_last_event_id_when_their_node_was_killed(
    upstream: Upstream,
) -> None:
    async with deployed(upstream) as where, aiohttp.ClientSession(headers=BEARER) as http:
        text = Text()
        async with asyncio.timeout(PATIENCE):
            body = {"messages": [{"role": "user", "content": "Tell!"}]}
            async with http.post(f"{where.url}/chat/gpt", json=body) as response:
                stream = response.headers["X-Stream-Id"]
                await follow_events(response, text, HALF)
            os.kill(await where.owner(), signal.SIGKILL)
            while not text.over:
                headers = {"Last-Event-ID": str(text.last)}
                with suppress(aiohttp.ClientError):
                    url = f"{where.url}/streams/{stream}"
                    async with http.get(url, headers=headers) as response:
                        assert response.status == 200
                        await follow_events(response, text, None)
        assert text.text == TEXT


async def test_nginx_hides_the_metrics_and_asks_for_the_token(upstream: Upstream) -> None:
    async with deployed(upstream) as where, aiohttp.ClientSession() as http:
        for path, status in (("/metrics", 403), ("/v1/models", 401), ("/readyz", 200)):
            async with http.get(f"{where.url}{path}", headers={}) as response:
                assert response.status == status, path


# The files


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return loaded


def nginx_seconds(name: str) -> float:
    text = (DEPLOY / "relay.conf.template").read_text("utf-8")
    return float(re.findall(rf"{name} (\d+)s;", text)[0])


def default(name: str) -> Any:
    return Settings.model_fields[name].default


def test_nginx_waits_for_longer_than_the_relay_is_ever_silent() -> None:
    assert nginx_seconds("proxy_read_timeout") > 2 * default("heartbeat")
    assert nginx_seconds("proxy_send_timeout") > 2 * default("heartbeat")


def test_nodes_in_containers_have_time_to_drain() -> None:
    for name in ("node-1", "node-2"):
        grace = compose()["services"][name]["stop_grace_period"]
        assert float(grace.removesuffix("s")) > default("drain_timeout")


def test_the_compose_file_sets_only_variables_that_there_are() -> None:
    for name in ("node-1", "node-2"):
        node = compose()["services"][name]
        assert set(node["environment"]) <= set(variables())
        assert node["environment"]["REDIS_URL"].split("/")[2].split(":")[0] in compose()["services"]


def test_the_compose_files_nodes_are_those_that_nginx_asks_and_believe_it() -> None:
    services = compose()["services"]
    asked = re.findall(r"server ([\w-]+):(\d+)", services["nginx"]["environment"]["NODES"])
    assert [name for name, _ in asked] == [name for name in services if name.startswith("node")]
    address = services["nginx"]["networks"]["inner"]["ipv4_address"]
    for name, port in asked:
        assert services[name]["environment"]["PORT"] == port
        assert services[name]["environment"]["TRUSTED_PROXIES"] == address


def test_nginxs_template_needs_only_what_both_ways_fill_in() -> None:
    nginx = compose()["services"]["nginx"]
    text = (DEPLOY / "relay.conf.template").read_text("utf-8")
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    assert set(re.findall(r"\$\{(\w+)\}", code)) == set(nginx["environment"])
    mounted = nginx["volumes"][0].split(":")[0]
    assert (DEPLOY / mounted).is_file()


def test_the_image_copies_files_that_there_are_and_runs_the_server() -> None:
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    compiled = ["--from=compiler", "/app/build"]
    assert compiled in copies
    copied = [name for names in copies if names != compiled for name in names]
    assert all((ROOT / name).exists() for name in copied)
    assert lines[-1] == 'CMD ["python", "server.py"]'
    assert "USER relay" in lines
