"""The proxy, unit and probes that docs/integration.md shows, tried on the relay as it is run."""

from __future__ import annotations

import asyncio
import configparser
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template

import aiohttp
import pytest
from playwright.async_api import expect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lab.ports import free_port, listens
from lab.upstreams.server import Upstream
from lab.upstreams.steps import Counts, End, Finish, Pause, Token
from lab.waiting import until
from relay.configuration.load import load_settings
from relay.process.serving import BAD_CONFIGURATION
from tests.wire.browser import browser
from tests.wire.documented import ROOT, examples
from tests.wire.served import server

EXAMPLES = examples()
HOST = "chat.example.com"
TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BEHIND_A_PROXY = {"RELAY_TOKENS": f"alice={TOKEN}", "TRUSTED_PROXIES": "127.0.0.1"}
TEMPLATE = ROOT / "deploy" / "relay.conf.template"
FILLED_IN = {"NODES": "server 127.0.0.1:3050;", "LISTEN": "80", "SERVER_NAME": HOST}
"""What stands in the document for the names of the template."""
PATIENCE = 30
"""Seconds that anything may take."""


@asynccontextmanager
async def nginx(folder: Path, relay: int) -> AsyncIterator[int]:
    """nginx as the document has it, in front of the relay on a port; gives its own port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program, "nginx is missing: `make dev` installs it"
    port = free_port()
    shown = EXAMPLES["nginx"].code.replace("127.0.0.1:3050", f"127.0.0.1:{relay}")
    shown = shown.replace("listen 80;", f"listen 127.0.0.1:{port};")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder / 'pid'}; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{places}{shown}}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        program, "-p", folder, "-e", "stderr", "-c", file
    )
    try:
        await until(lambda: listens(port) or process.returncode is not None)
        assert process.returncode is None, "nginx ended at its start"
        yield port
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)


@asynccontextmanager
async def proxied(tmp_path: Path, gate: asyncio.Event) -> AsyncIterator[int]:
    """The port of nginx before a relay whose answer waits for `gate` after one word."""
    script = [Token("first "), Pause(until=gate), Token("last"), Finish(), Counts(), End()]
    async with (
        Upstream(script) as upstream,
        server(upstream, tmp_path, **BEHIND_A_PROXY) as relay,
        nginx(tmp_path, relay) as port,
    ):
        yield port


def test_the_document_shows_the_file_that_is_deployed() -> None:
    """One text: what is mended in the one is mended in the other."""
    _, server_and_more = TEMPLATE.read_text("utf-8").split("\n\n", 1)
    assert EXAMPLES["nginx"].code == Template(server_and_more).safe_substitute(FILLED_IN)


@asynccontextmanager
async def socket_through(port: int, authority: str, origin: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket through the proxy on a port, as a page of an origin opens it."""
    async with connect(
        f"ws://{authority}/ws",
        host="127.0.0.1",
        port=port,
        origin=origin,  # type: ignore[arg-type]
        additional_headers=BEARER,
    ) as socket:
        yield socket


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("its_port", ["", ":8443", ":PORT"])
async def test_a_websocket_passes_nginx_and_no_token_waits_for_the_next(
    its_port: str, scheme: str, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    async with asyncio.timeout(PATIENCE), proxied(tmp_path, gate) as port:
        authority = HOST + its_port.replace("PORT", str(port))
        async with socket_through(port, authority, f"{scheme}://{authority}") as socket:
            assert await texts_of(socket, gate) == ["first ", "last"]


async def texts_of(socket: ClientConnection, gate: asyncio.Event) -> list[str]:
    """The pieces of an answer, of which the second is let through once the first is here."""
    await socket.send('{"type": "chat", "messages": "hi"}')
    texts = []
    async for message in socket:
        frame = json.loads(message)
        if frame["type"] == "token":
            texts.append(frame["text"])
            gate.set()
        if frame["type"] == "done":
            break
    return texts


async def test_a_page_of_another_port_is_another_origin(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE), proxied(tmp_path, asyncio.Event()) as port:
        with pytest.raises((InvalidStatus, ConnectionClosed), match="403"):
            async with socket_through(port, f"{HOST}:8443", f"https://{HOST}") as socket:
                await socket.recv()


async def test_the_relays_own_page_works_behind_nginx_on_any_port(tmp_path: Path) -> None:
    gate = asyncio.Event()
    gate.set()
    resolved = f"--host-resolver-rules=MAP {HOST} 127.0.0.1"
    async with (
        asyncio.timeout(2 * PATIENCE),
        proxied(tmp_path, gate) as port,
        browser(resolved) as launched,
    ):
        page = await launched.new_page()
        await page.goto(f"http://{HOST}:{port}/")
        await page.fill("#token", TOKEN)
        await page.press("#token", "Enter")
        await page.wait_for_selector("#provider:not([disabled])")
        await page.fill("#prompt", "hi")
        await page.keyboard.press("Enter")
        await expect(page.locator(".answer .text")).to_have_text("first last")


async def test_events_pass_nginx_and_no_token_waits_for_the_next(tmp_path: Path) -> None:
    gate = asyncio.Event()
    headers = {"Host": HOST, **BEARER, "Origin": f"https://{HOST}"}
    async with (
        asyncio.timeout(PATIENCE),
        proxied(tmp_path, gate) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.post("/chat/gpt", data='{"messages": "hi"}', headers=headers) as response:
            assert response.status == 200
            lines = []
            async for line in response.content:
                lines.append(line)
                if b'"first "' in line:
                    gate.set()
        assert any(b'"last"' in line for line in lines)
        async with http.post("/chat/gpt", data='{"messages": "hi"}', headers={"Host": HOST}) as no:
            assert no.status == 401


def test_nginx_takes_as_large_a_body_as_the_relay() -> None:
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", EXAMPLES["nginx"].code)
    assert int(megabytes) * 2**20 == load_settings(None).max_frame_bytes


def test_the_unit_gives_answers_their_time_and_does_not_restart_a_bad_configuration() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(EXAMPLES["systemd"].code)
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) > load_settings(None).drain_timeout
    assert int(service["RestartPreventExitStatus"]) == BAD_CONFIGURATION
    program, script = service["ExecStart"].split()
    assert program == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert (ROOT / script).is_file()


async def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    file = tmp_path / "chat-relay.service"
    there = EXAMPLES["systemd"].code.replace("/opt/chat-relay/.venv/bin/python", "/bin/true")
    file.write_text(there)
    process = await asyncio.create_subprocess_exec(
        program, "verify", "--man=no", "--recursive-errors=no", file, stderr=asyncio.subprocess.PIPE
    )
    _, complaints = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, complaints) == (0, b"")


async def test_the_probes_are_answered_beyond_loopback_and_without_a_token(tmp_path: Path) -> None:
    shown = EXAMPLES["probes"].code
    variables = dict(re.findall(r"\{ name: (\w+), value: \"?([^\s\"]+)\"? \}", shown))
    paths = re.findall(r"path: (\S+), port: 3050", shown)
    assert len(paths) == 2
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", shown)
    assert int(grace) > load_settings(None).drain_timeout
    assert "name: RELAY_TOKENS, valueFrom:" in shown
    variables |= {"RELAY_TOKENS": TOKEN}
    async with (
        Upstream() as upstream,
        server(upstream, tmp_path, **variables) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        for path in paths:
            async with http.get(path, headers={"Host": "10.244.1.7:3050"}) as response:
                assert response.status == 200
