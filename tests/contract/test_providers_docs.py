"""What `docs/providers.md` shows works, and what it tables is so."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lab import upstreams as up
from relay.core.errors import Code, Fault
from relay.core.events import Event, Finish, FinishReason, Served, Text
from relay.core.provider import Call
from relay.core.request import ChatRequest, Turn
from relay.providers import awaited, registry
from relay.providers.decoding.reasons import REASONS
from relay.providers.families import FAMILIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CALL = Call("acme-1", ChatRequest("acme", (Turn("user", "Hi"),)), 64)
ANSWER = b'data: {"model": "acme-1b"}\n\ndata: {"text": "Hi"}\n\ndata: {"text": " you"}\n\n'
END = b'data: {"end": true}\n\n'


@pytest.fixture
def acme(monkeypatch):
    """The file and the row that the document shows, put in place."""
    module = ModuleType("relay.providers.acme")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(BLOCKS[0], "acme.py", "exec"), module.__dict__)
    row = eval(BLOCKS[1].strip().rstrip(","), {"Vendor": registry.Vendor})
    monkeypatch.setattr(registry, "VENDORS", (*registry.VENDORS, row))
    monkeypatch.setitem(registry._MODULES, row.kind, row.module)


async def ask(*steps: up.Step) -> list[Event]:
    events: list[Event] = []
    async with up.Upstream(list(steps)) as upstream, asyncio.timeout(10):
        vendor = registry.vendor_of("acme")
        provider = registry.build(vendor.kind, name="acme", api_key="k", base_url=upstream.url)
        try:
            await awaited.begin_and_wait(provider, CALL, events.extend)
        finally:
            await provider.close()
    return events


async def test_the_documented_vendor_answers(acme):
    expected = [Served("acme-1b"), Text("Hi"), Text(" you"), Finish(FinishReason.STOP)]
    assert await ask(up.Raw(ANSWER), up.Raw(END)) == expected


async def test_the_documented_vendor_never_takes_a_break_for_an_end(acme):
    for ending in (up.Close(), up.Reset()):
        with pytest.raises(Fault) as caught:
            await ask(up.Raw(ANSWER), ending)
        assert caught.value.code is Code.PROVIDER_INTERRUPTED


async def test_the_documented_vendor_never_takes_an_error_for_an_end(acme):
    for odd in (b'data: {"error": "gone"}\n\n', b"error: gone\n\n", b'data: {"text": true}\n\n'):
        with pytest.raises(Fault):
            await ask(up.Raw(ANSWER), up.Raw(odd), up.Raw(END))


async def test_the_documented_vendors_words_may_be_of_another_type(acme):
    assert Text("5") in await ask(up.Raw(b'data: {"text": 5, "model": 3}\n\n'), up.Raw(END))


async def test_the_documented_vendors_refusals_are_faults(acme):
    with pytest.raises(Fault) as caught:
        await ask(up.Refuse("rate_limit", retry_after=3))
    assert (caught.value.code, caught.value.retry_after) == (Code.PROVIDER_RATE_LIMITED, 3)


def test_every_finish_reason_is_in_the_table():
    (row,) = re.findall(r"^\| `Finish` reason.*?\n\n", TEXT, re.DOTALL | re.MULTILINE)
    told = {word.lower() for word in re.findall(r"`([A-Za-z_]+)`", row)}
    assert {word for word in REASONS if not word.startswith("image_")} <= told


def test_every_vendor_has_families_in_the_table():
    named = {"openai": "| OpenAI |", "anthropic": "| Anthropic |", "gemini": "| Gemini |"}
    for vendor in FAMILIES:
        assert named.get(vendor, "compatible server") in TEXT
