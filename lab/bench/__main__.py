"""`python -m lab.bench`: compares the relay and its peers on two cores of one machine.

Installs what is missing below lab/bench/work, runs paired rounds (every system in turn, round
after round), and writes lab/bench/results/<time>.json, .md and two plots. `--quick` is one round
in under three minutes once everything is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time

from lab.bench import machine
from lab.bench.measuring import Bench, Load, Result
from lab.bench.report import markdown
from lab.bench.systems import HERE, SYSTEMS, install, install_plotting, relay_python

PEERS = ("nginx", "litellm", "portkey")
QUICK = (*PEERS, "relay-ws")
PACED = (Load("paced", 50, measure=6.0),)
BURST = (Load("burst", 64, ramp=0, warm=1.2, measure=3.0),)
MANY = Load("paced", 500, ramp=3.0, measure=5.0)
SLOW_WARM, SLOW_MEASURE = 4.0, 6.0
"""A system of a few answers a second needs longer before a burst reaches its full speed."""

IDLE_SESSIONS = 10_000
MAX_FILES = 20_000
"""Limit of open files for every process here: a gateway needs two for each stream."""

LADDER_START = 10
LADDER_STEP = 1.12
MAX_STREAMS = 5_000
LADDER_LIMIT_MS = 20.0
"""A core can serve a number of paced streams if the 99th percentile of delivery stays below
this."""


def loads(system: str, quick: bool) -> list[Load]:
    """What is measured of a system, in addition to the ladder."""
    chosen = [*PACED, *BURST] if "burst" in SYSTEMS[system].phases else [*PACED]
    if system == "litellm":
        chosen = [_slowed(load) if load.phase == "burst" else load for load in chosen]
    if not quick and system in ("nginx", "relay-ws"):
        chosen.append(MANY)
    return chosen


def _slowed(load: Load) -> Load:
    return Load(load.phase, load.streams, load.ramp, SLOW_WARM, SLOW_MEASURE)


def ladder(bench: Bench, system: str, guess: int) -> list[Result]:
    """Find the most paced streams that a core can serve: starting from `guess`, or by doubling if
    nothing is known yet, then in small steps; downwards if the guess is too high."""
    steps: list[Result] = []

    def holds(streams: int) -> bool:
        step = bench.measure(system, Load("steady", streams, ramp=5.2, warm=0.5, measure=4.0))
        step["held"] = _held(step)
        steps.append(step)
        _say(step)
        return bool(step["held"])

    streams, limit = guess, MAX_STREAMS
    if not holds(streams):
        while (streams := int(streams / LADDER_STEP)) and not holds(streams):
            pass
        return steps
    while guess == LADDER_START and streams * 2 < limit:
        if not holds(streams * 2):
            limit = streams * 2
            break
        streams *= 2
    while (streams := int(streams * LADDER_STEP) + 1) < limit and holds(streams):
        pass
    return steps


def _held(step: Result) -> bool:
    expected = step["streams"] * 50 * 0.95  # a token each 20 ms
    on_time = 0 <= step["delivery_p99_ms"] < LADDER_LIMIT_MS
    return bool(on_time and step["tokens_per_s"] > expected and not step["failures"])


def _say(step: Result) -> None:
    cpu = step["cpu_us_per_token"]
    print(
        f"{step['system']:14} {step['phase']:7} {step['streams']:5} streams"
        f" {step['tokens_per_s']:9.0f} tokens/s  {cpu or 0:8.1f} us/token"
        f"  first {step['first_token_p50_ms']:8.2f} ms  p99 {step['delivery_p99_ms']:8.2f} ms"
        f"  failures {step['failures']}{'  noisy' if step['others'] > 0.15 else ''}",
        flush=True,
    )


def run(systems: list[str], rounds: int, *, quick: bool, climb: bool) -> dict[str, object]:
    """All rounds; the content of a results file."""
    measured: list[Result] = []
    climbed: list[Result] = []
    guesses = dict.fromkeys(systems, LADDER_START)
    with Bench() as bench:
        for system in systems:
            bench.start(SYSTEMS[system].process)
        # First, because a process that has served many streams has memory left for idle sessions.
        idle = bench.idle(IDLE_SESSIONS) if not quick and "relay-ws" in systems else None
        for number in range(rounds):
            for system in systems:
                for load in loads(system, quick):
                    result = bench.measure(system, load) | {"round": number}
                    measured.append(result)
                    _say(result)
            if climb:
                climbed += _climb_all(bench, systems, guesses, number)
    return {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine.describe(relay_python()),
        "rounds": measured,
        "ladder": climbed,
        "idle": idle,
    }


def _climb_all(
    bench: Bench, systems: list[str], guesses: dict[str, int], number: int
) -> list[Result]:
    climbed: list[Result] = []
    for system in systems:
        if "steady" not in SYSTEMS[system].phases:
            continue
        steps = ladder(bench, system, guesses[system])
        held = [step["streams"] for step in steps if step["held"]]
        guesses[system] = max(held, default=max(1, steps[-1]["streams"] // 2))
        climbed += [step | {"round": number} for step in steps]
    return climbed


def main() -> None:
    """Read the command line, install, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, no ladder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--no-ladder",
        action="store_true",
        help="do not look for the most streams a core holds, which takes most of the hour",
    )
    parser.add_argument("--systems", default="", help=f"some of {','.join(SYSTEMS)}")
    options = parser.parse_args()
    chosen = (
        options.systems.split(",") if options.systems else list(QUICK if options.quick else SYSTEMS)
    )
    if unknown := set(chosen) - SYSTEMS.keys():
        parser.error(f"no such system: {', '.join(sorted(unknown))}")
    os.sched_setaffinity(0, {machine.TOOLS_CORE})
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    install({SYSTEMS[name].process for name in chosen})
    results = run(
        chosen,
        1 if options.quick else options.rounds,
        quick=options.quick,
        climb=not (options.quick or options.no_ladder),
    )
    target = HERE / "results" / time.strftime("%Y%m%d-%H%M%S")
    target.parent.mkdir(exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(results, indent=1))
    target.with_suffix(".md").write_text(markdown(results))
    print(markdown(results))
    subprocess.run(
        [install_plotting(), str(HERE / "plot.py"), str(target.with_suffix(".json"))], check=True
    )


if __name__ == "__main__":
    main()
