"""What the documents show works as it stands: each example against the relay as it is run.

The provider `local` of the examples is replaced by `gpt`, played on loopback, so that the
answer is known to the character.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page, expect

from lab.upstreams.scripts import answer
from lab.upstreams.server import Upstream
from lab.upstreams.steps import Counts, End, Finish, Pause, Token
from tests.node_packages import fetched, node
from tests.wire.browser import browser
from tests.wire.documented import ROOT, blocks, examples
from tests.wire.served import Wire, server

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = examples()

WORDS = ("Grüße, ", "世界 ", "👩‍🚀 ", "a\u2028b ", "«end».")
TEXT = "".join(WORDS)
LONG = tuple(f"word{n} " for n in range(60))
TERMINAL = "readme-terminal"
PATIENCE = 60
"""Seconds that an example may take."""
BROWSER_MS = 30_000
"""Milliseconds that a page may take for a step; an EventSource waits some seconds by itself."""


def named(language: str) -> list[str]:
    """The examples in a language."""
    return [name for name, block in EXAMPLES.items() if block.language == language]


def placed(code: str, port: int) -> str:
    """An example's code, for the relay on `port`."""
    return re.sub(r"\blocal\b", "gpt", code).replace(":3050", f":{port}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """The port of a relay whose `gpt` answers `TEXT`."""
    async with (
        Upstream(answer(*WORDS)) as upstream,
        server(upstream, tmp_path_factory.mktemp("logs")) as given,
    ):
        yield given


@pytest.fixture(scope="module")
def node_packages(request: pytest.FixtureRequest) -> Path:
    """A folder in which node finds the packages of the examples."""
    return fetched(request.config)


@asynccontextmanager
async def started(*command: str | Path, **variables: str) -> AsyncIterator[Process]:
    """A program that runs an example, killed where it does not end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def output(*command: str | Path, **variables: str) -> str:
    """What a program prints. It has to end well, and with nothing to complain of."""
    async with started(*command, **variables) as process, asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def text_of(events: str) -> str:
    """The answer in a body of server-sent events."""
    data = [line[6:] for line in events.split("\n") if line.startswith("data: ")]
    return "".join(frame["text"] for frame in map(json.loads, data) if frame["type"] == "token")


async def until(process: Process, text: str) -> str:
    """Read a program's output up to `text`."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return (await process.stdout.readuntil(text.encode())).decode()


@asynccontextmanager
async def shown(html: str) -> AsyncIterator[Page]:
    """A page of another origin in a browser; it may say nothing on its console."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    application = web.Application()
    application.add_routes([web.get("/page", page)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    complaints: list[str] = []
    try:
        async with browser() as launched:
            opened = await launched.new_page()
            opened.on("pageerror", lambda error: complaints.append(str(error)))
            await opened.goto(f"http://localhost:{runner.addresses[0][1]}/page")
            yield opened
    finally:
        await runner.cleanup()
    assert complaints == []


# Every example


@pytest.mark.parametrize("name", named("python"))
async def test_a_python_example_prints_the_answer(name: str, port: int) -> None:
    assert TEXT in await output(sys.executable, "-c", placed(EXAMPLES[name].code, port))


@pytest.mark.parametrize("name", named("js"))
async def test_a_node_example_prints_the_answer(name: str, port: int, node_packages: Path) -> None:
    file = node_packages / f"{name}-{port}.mjs"
    file.write_text(placed(EXAMPLES[name].code, port), encoding="utf-8")
    try:
        assert await output(node(), file) == TEXT
    finally:
        file.unlink()


@pytest.mark.parametrize("name", named("html"))
async def test_a_page_of_another_origin_shows_the_answer(name: str, port: int) -> None:
    async with shown(placed(EXAMPLES[name].code, port)) as page:
        await expect(page.locator("#answer")).to_contain_text("«end».", timeout=BROWSER_MS)
        assert await page.locator("#answer").text_content() == TEXT


@pytest.mark.parametrize("name", [name for name in named("sh") if name != TERMINAL])
async def test_a_curl_example_prints_the_events(name: str, port: int) -> None:
    assert text_of(await output("bash", "-ec", placed(EXAMPLES[name].code, port))) == TEXT


async def test_the_terminal_example_prints_the_answer(port: int) -> None:
    code = placed(EXAMPLES[TERMINAL].code.strip(), port)
    code = code.replace(".venv/bin/python", sys.executable)
    assert "«end»." in await output("bash", "-ec", f"{code} --url ws://127.0.0.1:{port}/ws")


async def test_the_second_turn_is_asked_with_all_that_was_said(tmp_path: Path) -> None:
    async with Upstream(answer(*WORDS)) as upstream, server(upstream, tmp_path) as port:
        await output(sys.executable, "-c", placed(EXAMPLES["python-two-turns"].code, port))
        asked = [request.body["messages"] for request in upstream.requests]
    first, second = (
        [(turn["role"], turn["content"]) for turn in messages if turn["role"] != "system"]
        for messages in asked
    )
    assert [role for role, _ in second] == ["user", "assistant", "user"]
    assert second[:2] == [*first, ("assistant", TEXT)]


# Examples that say that they come back


@asynccontextmanager
async def cut_in_mid_answer(tmp_path: Path) -> AsyncIterator[tuple[Wire, asyncio.Event, Upstream]]:
    """A wire to a relay whose answer waits after twenty words until the event is set."""
    gate = asyncio.Event()
    tokens = [Token(word) for word in LONG]
    script = [*tokens[:20], Pause(until=gate), *tokens[20:], Finish(), Counts(), End()]
    async with (
        Upstream(script) as upstream,
        server(upstream, tmp_path) as port,
        Wire(port).laid() as wire,
    ):
        yield wire, gate, upstream


@pytest.mark.parametrize("name", ["python-aiohttp", "node-fetch"])
async def test_an_example_that_comes_back_loses_nothing(name: str, tmp_path: Path) -> None:
    async with cut_in_mid_answer(tmp_path) as (wire, gate, upstream):
        file = tmp_path / "example.mjs"
        file.write_text(placed(EXAMPLES[name].code, wire.port), encoding="utf-8")
        program = node() if EXAMPLES[name].language == "js" else sys.executable
        async with started(program, file) as process:
            said = await until(process, "word19 ")
            wire.cut()
            gate.set()
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate()
        assert (process.returncode, said + out.decode()) == (0, "".join(LONG)), err
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("name", ["browser-module", "browser-eventsource"])
async def test_a_page_that_comes_back_loses_nothing(name: str, tmp_path: Path) -> None:
    async with cut_in_mid_answer(tmp_path) as (wire, gate, upstream):
        async with shown(placed(EXAMPLES[name].code, wire.port)) as page:
            await expect(page.locator("#answer")).to_contain_text("word19", timeout=BROWSER_MS)
            wire.cut()
            gate.set()
            await expect(page.locator("#answer")).to_contain_text("word59", timeout=BROWSER_MS)
            assert await page.locator("#answer").text_content() == "".join(LONG)
        assert len(upstream.requests) == 1


async def test_the_stop_button_of_the_page_closes_the_upstream(tmp_path: Path) -> None:
    async with cut_in_mid_answer(tmp_path) as (wire, _, upstream):
        async with shown(placed(EXAMPLES["browser-module"].code, wire.port)) as page:
            await expect(page.locator("#answer")).to_contain_text("word19", timeout=BROWSER_MS)
            await page.click("#stop")
            async with asyncio.timeout(PATIENCE):
                await upstream.requests[0].closed.wait()
        assert upstream.requests[0].cut_off


# The other documents


async def test_what_the_http_document_shows_works(port: int) -> None:
    shown_commands = [block.code for block in blocks("docs/api.md") if block.language == "sh"]
    chat, resume, cancel, models, health = (placed(code, port) for code in shown_commands)
    name = re.compile(r'"stream":"([^"]+)"')
    events = await output("bash", "-ec", chat)
    assert text_of(events) == TEXT
    stream = name.findall(events)[0]
    assert '"stream_expired"' in await output("bash", "-ec", resume, STREAM="nobody")
    again = resume.replace("Last-Event-ID: 41", "Last-Event-ID: 0")
    assert text_of(await output("bash", "-ec", again, STREAM=stream)) == TEXT
    assert await output("bash", "-ec", cancel, STREAM=stream) == ""
    assert '"stream_expired"' in await output("bash", "-ec", cancel, STREAM=stream)
    assert json.loads(await output("bash", "-ec", models))["data"][0]["id"] == "gpt"
    assert json.loads(await output("bash", "-ec", health))["providers"]["gpt"]["status"] == "ok"


async def test_the_sdk_of_the_http_document_prints_the_answer(port: int) -> None:
    (code,) = (block.code for block in blocks("docs/api.md") if block.language == "python")
    assert await output(sys.executable, "-c", placed(code, port)) == TEXT


async def test_the_commands_of_the_clients_document_run(port: int, tmp_path: Path) -> None:
    (code,) = (block.code for block in blocks("docs/client.md") if block.language == "sh")
    url = f"ws://127.0.0.1:{port}/ws"
    relay = f'relay() {{ {sys.executable} -m relay "$@" --url {url}; }}'
    aliases = f"{relay}; git() {{ echo a diff; }}\n"
    written = placed(code, port).replace("review.txt", str(tmp_path / "review.txt"))
    out = await output("bash", "-ec", aliases + written)
    assert "«end»." in out
    assert "gpt" in out.rpartition("«end».")[2]
    assert "«end»." in (tmp_path / "review.txt").read_text(encoding="utf-8")


async def test_the_module_of_the_clients_document_shows_the_answer(port: int) -> None:
    (code,) = (block.code for block in blocks("docs/client.md") if block.language == "js")
    setup = "const box = document.querySelector('#answer');"
    setup += "const show = (text) => box.append(text); const clear = () => box.replaceChildren();"
    module = placed(code, port).replace("'/web/", f"'http://localhost:{port}/web/")
    module = module.replace("new RelayClient()", f"new RelayClient('ws://localhost:{port}/ws')")
    html = f'<!doctype html><pre id="answer"></pre><script type="module">{setup}{module}</script>'
    async with shown(html) as page:
        await expect(page.locator("#answer")).to_contain_text("«end».", timeout=BROWSER_MS)
        assert await page.locator("#answer").text_content() == TEXT
