"""A real, headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}


def chromium() -> str:
    """Where Chromium is: `CHROMIUM`, or what the system has."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not found:
        pytest.skip("chromium is not installed")
    return found


@asynccontextmanager
async def browser(*arguments: str) -> AsyncIterator[Browser]:
    """A browser of its own, started with these arguments too, ended afterwards."""
    path = chromium()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=path, args=[*ARGUMENTS, *arguments]
        )
        try:
            yield launched
        finally:
            await launched.close()


@asynccontextmanager
async def page_at(url: str, **options: Any) -> AsyncIterator[Page]:
    """A page at `url`. Whatever it says on its console as an error fails the test, failing
    connections excepted: tests cut those."""
    async with browser() as launched:
        context = await launched.new_context(**options)
        page = await context.new_page()
        page.set_default_timeout(15_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: _note(said.type, said.text, complaints))
        await page.goto(url)
        await page.wait_for_selector("#provider:not([disabled])")
        yield page
        assert complaints == []


def _note(kind: str, text: str, complaints: list[str]) -> None:
    if kind == "error" and "WebSocket connection" not in text:
        complaints.append(text)
