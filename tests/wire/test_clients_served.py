"""Both clients against the relay as it is run: page in a browser, and the command line."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from playwright.async_api import expect

from lab.upstreams.scripts import answer
from lab.upstreams.server import Upstream
from lab.upstreams.steps import Counts, End, Finish, Pause, Token
from relay.client import RelayClient, Text
from tests.wire.browser import PHONE, page_at
from tests.wire.served import Wire, server
from tests.wire.test_client import command
from tests.wire.test_page import ask, last_text

WORDS = [f"word{n} " for n in range(60)]
TEXT = "".join(WORDS)


def halted(at: int, gate: asyncio.Event) -> list[object]:
    """The answer, its rest held back until `gate` is set."""
    tokens = [Token(word) for word in WORDS]
    return [*tokens[:at], Pause(until=gate), *tokens[at:], Finish(), Counts(), End()]


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
async def test_the_page_shows_an_answer(tmp_path: Path, options: dict) -> None:
    async with (
        Upstream(answer(*WORDS)) as upstream,
        server(upstream, tmp_path) as port,
        page_at(f"http://127.0.0.1:{port}/", **options) as page,
    ):
        await ask(page, "hi")
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == TEXT
        await expect(page.locator(".who")).to_contain_text("GPT")


async def test_the_page_shows_markup_as_text(tmp_path: Path) -> None:
    evil = '<img src=x onerror="document.title=1">'
    async with (
        Upstream(answer(evil)) as upstream,
        server(upstream, tmp_path) as port,
        page_at(f"http://127.0.0.1:{port}/") as page,
    ):
        await ask(page, "hi")
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == evil
        assert await page.locator("#log img").count() == 0


async def test_the_page_comes_back_after_a_cut_and_the_text_is_whole(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream(halted(20, gate)) as upstream,
        server(upstream, tmp_path) as port,
        Wire(port).laid() as wire,
        page_at(f"http://127.0.0.1:{wire.port}/") as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_contain_text("word19")
        wire.cut()
        gate.set()
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == TEXT
        assert len(upstream.requests) == 1


async def test_the_page_takes_an_answer_up_after_a_reload(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream(halted(20, gate)) as upstream,
        server(upstream, tmp_path) as port,
        page_at(f"http://127.0.0.1:{port}/") as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_contain_text("word19")
        await page.reload()
        await expect(last_text(page)).to_contain_text("word19")
        gate.set()
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == TEXT
        assert len(upstream.requests) == 1


async def test_stop_closes_the_upstream(tmp_path: Path) -> None:
    async with (
        Upstream(halted(20, asyncio.Event())) as upstream,
        server(upstream, tmp_path) as port,
        page_at(f"http://127.0.0.1:{port}/") as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_contain_text("word19")
        await page.keyboard.press("Escape")
        await expect(page.locator(".foot")).to_contain_text("Stopped")
        async with asyncio.timeout(10):
            await upstream.requests[0].closed.wait()
        assert upstream.requests[0].cut_off


@pytest.mark.parametrize("every", [1, 7, 25])
async def test_the_client_has_the_whole_text_after_cuts(tmp_path: Path, every: int) -> None:
    gates = [asyncio.Event() for _ in WORDS]
    paced = zip(gates, WORDS, strict=True)
    steps = [step for gate, word in paced for step in (Pause(until=gate), Token(word))]
    count = 6 * every if every < 10 else len(WORDS)
    script = [*steps[: 2 * count], Finish(), Counts(), End()]
    seen = 0
    async with (
        Upstream(script) as upstream,
        server(upstream, tmp_path) as port,
        Wire(port).laid() as wire,
        RelayClient(f"127.0.0.1:{wire.port}") as relay,
    ):
        gates[0].set()
        chat = relay.chat("hi")
        async for event in chat:
            if isinstance(event, Text):
                seen += event.text.count(" ")
                if seen % every == 0:
                    wire.cut()
                if seen < len(gates):
                    gates[seen].set()
        assert chat.answer.text == "".join(WORDS[:count])
        assert wire.connections > 2
        assert len(upstream.requests) == 1


async def test_the_command_is_answered(tmp_path: Path) -> None:
    async with (
        Upstream(answer(*WORDS)) as upstream,
        server(upstream, tmp_path) as port,
        command("hi", "--url", f"ws://127.0.0.1:{port}/ws") as process,
    ):
        out, err = await process.communicate()
    assert out.decode() == TEXT + "\n"
    assert err.startswith(b"[gpt ")


async def test_the_command_says_which_provider_is_off(tmp_path: Path) -> None:
    async with Upstream() as upstream, server(upstream, tmp_path) as port:
        arguments = ("hi", "--provider", "claude", "--url", f"ws://127.0.0.1:{port}/ws")
        async with command(*arguments) as process:
            _, err = await process.communicate()
    assert process.returncode == 1
    assert err.startswith(b"error: unknown_provider: ")
    assert b"--providers" in err


async def test_ctrl_c_closes_the_upstream(tmp_path: Path) -> None:
    async with (
        Upstream(halted(2, asyncio.Event())) as upstream,
        server(upstream, tmp_path) as port,
        command("hi", "--url", f"ws://127.0.0.1:{port}/ws") as process,
    ):
        assert process.stdout is not None
        assert await process.stdout.readexactly(12) == b"word0 word1 "
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        async with asyncio.timeout(10):
            await upstream.requests[0].closed.wait()
        assert upstream.requests[0].cut_off
