"""`python -m lab.chaos --minutes 10`: break a relay for that time, and report what was lost."""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import time
from pathlib import Path

from lab.chaos.acts import Acts
from lab.chaos.crowd import Crowd
from lab.chaos.disasters import Disasters
from lab.chaos.ground import Ground
from lab.chaos.ledger import Ledger
from lab.chaos.report import report

EPILOG = """\
The order is: cuts, stalled readers, a drain with running streams, kills, minutes of random
disasters, a quiet period. Exit status: 0 nothing was lost; 1 something was, see the report.
The same seed draws the same mishaps; their effect depends on the machine's timing."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m lab.chaos",
        description="Break a relay on purpose and count what its clients lost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--minutes", type=float, default=0.0, help="minutes of random disasters")
    add("--clients", type=int, default=24, help="clients at work at any time")
    add("--kills", type=int, default=0, help="kill -9s of the node that owns a stream")
    add("--readers", type=int, default=0, help="readers that stop reading, all at the same time")
    add("--drain-under", type=int, default=0, help="streams running on a node when it is drained")
    add("--cuts", type=int, default=0, help="cut the connection after each of this many frames")
    add("--lease", type=float, default=2.0, help="LEASE_SECONDS of the nodes")
    add("--no-redis", action="store_true", help="one node that keeps its streams in memory")
    add("--no-quiet", action="store_true", help="look for running calls only, without waiting")
    add("--seed", type=int, default=None, help="draw the same mishaps again")
    add("--report", type=Path, default=None, help="write the report to this file too")
    add("--logs", type=Path, default=None, help="copy what the nodes said to this folder")
    add("--progress", type=float, default=5.0, help="seconds between two lines of progress")
    return made


async def run(options: argparse.Namespace) -> int:
    """Run all acts; returns the exit status."""
    seed = secrets.randbelow(10_000) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    async with Ground(store=not options.no_redis, lease=options.lease, logs=options.logs) as ground:
        ledger = Ledger(ground)
        crowd = Crowd(ground, ledger, seed)
        disasters = Disasters(ground, crowd, ledger, random.Random(seed))
        acts = Acts(ground, crowd, ledger, disasters, random.Random(seed + 1))
        progress = asyncio.create_task(_progress(ledger, crowd, disasters, options.progress))
        try:
            await _acts(acts, options)
        finally:
            progress.cancel()
        text = report(ledger, seed=seed, seconds=time.monotonic() - began)
    print(text, flush=True)
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")
    print("NOTHING WAS LOST" if not ledger.losses else "SOMETHING WAS LOST", flush=True)
    return 1 if ledger.losses else 0


async def _acts(acts: Acts, options: argparse.Namespace) -> None:
    if options.cuts:
        await acts.cuts(options.cuts)
    if options.readers:
        await acts.stalled(options.readers)
    if options.drain_under:
        await acts.drain_under(options.drain_under)
    if options.kills or options.minutes:
        acts.crowd.keep_up(options.clients)
    if options.kills:
        await acts.kills(options.kills)
    await acts.at_random(options.minutes * 60)
    await acts.crowd.go_home()
    await acts.disasters.rows_done()
    await acts.quiet(waits=not options.no_quiet)


async def _progress(ledger: Ledger, crowd: Crowd, disasters: Disasters, every: float) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(every)
        print(
            f"{time.monotonic() - began:5.0f} s  {ledger.readers} read, {len(crowd.reading)} "
            f"reading, {ledger.characters:,} characters, {len(ledger.kills)} kills, "
            f"{len(ledger.losses)} losses; now: {disasters.describe}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    if options.no_redis and options.kills:
        parser().error("--kills needs Redis: without it a killed node loses its streams")
    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
