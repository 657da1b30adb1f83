"""What `docs/client.md` shows works as it stands."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from relay.client.__main__ import EPILOG, parser
from tests.wire.stub_relay import StubRelay, answer

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


async def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    async with StubRelay(lambda _: answer("Rayleigh ", "scattering")).serve() as stub:
        code = example.replace("ws://127.0.0.1:3050/ws", stub.url)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
    assert err == b""
    assert out == b"Rayleigh scattering\n(claude-sonnet-5-5-20261001, stop)\n"


def test_every_option_shown_exists_and_every_exit_code_is_in_the_help() -> None:
    known = {flag for action in parser()._actions for flag in action.option_strings}
    assert set(re.findall(r"(--[a-z][a-z-]*)", TEXT)) <= known
    codes = set(re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE))
    assert {code for cell in codes for code in re.findall(r"\d+", cell)} == set(
        re.findall(r"\b(\d{1,3})\b", EPILOG.partition("The text goes")[0])
    )
