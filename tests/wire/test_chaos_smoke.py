"""A short run of `python -m lab.chaos`, with every kind of act: nothing may be lost. `make chaos`
runs it for as long as you like."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


async def run(*options: str) -> tuple[int | None, str]:
    """Exit status and output of a run."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab.chaos", "--seed", "1", *options),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(100):
            output, _ = await process.communicate()
    except TimeoutError:
        process.terminate()
        raise
    return process.returncode, output.decode()


def count(output: str, what: str) -> int:
    """A number of the report."""
    return int(
        re.findall(rf"\| \**{re.escape(what)}\** \| ([\d,]+) \|", output)[0].replace(",", "")
    )


async def test_cuts_a_drain_and_kills_lose_no_character_and_leave_no_call_running() -> None:
    status, output = await run(
        *("--cuts", "8", "--drain-under", "10", "--kills", "1", "--clients", "6"),
        *("--lease", "1", "--no-quiet"),
    )
    assert status == 0, output
    assert count(output, "kill -9") == 1
    assert count(output, "continuations") > 0
    for lost in ("lost characters", "doubled characters", "upstream calls still running"):
        assert count(output, lost) == 0


async def test_one_node_in_memory_loses_no_character_by_drops_and_stalls() -> None:
    status, output = await run(
        *("--no-redis", "--cuts", "8", "--readers", "4", "--no-quiet"),
    )
    assert status == 0, output
    assert count(output, "lost characters") == count(output, "doubled characters") == 0
    assert count(output, "continuations") == 0
