"""Runs the cells: one relay process, one loopback server, many chats at once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from lab.faults.breaks import BREAKS
from lab.faults.clock import CLOCK
from lab.faults.field import FIELD
from lab.faults.matrix import TRANSPORTS, VENDORS, Cell, Profile
from lab.faults.opening import OPENING
from lab.faults.play import play
from lab.faults.scenario import Fault, Played
from lab.faults.served import relay
from lab.faults.stage import Stage

FAULTS: tuple[Fault, ...] = tuple(
    sorted((*OPENING, *BREAKS, *CLOCK, *FIELD), key=lambda fault: fault.number)
)
JOBS = 48
"""Cells that run at the same time. Most of them wait."""

QUIET_JOBS = 4
"""The same for cells whose time is measured in milliseconds."""

TRACES = ("Traceback (most recent call last)", "Task exception was never retrieved")
"""Texts that the relay must never write to its log."""


@dataclass(frozen=True)
class Result:
    """The result of a cell. `attempts` were counted at the upstream; `note` has a value measured
    in addition to the time."""

    fault: str
    title: str
    vendor: str
    transport: str
    passed: bool
    attempts: int
    seconds: float
    note: str
    misses: list[str]


@dataclass(frozen=True)
class Report:
    """A whole run. `defects` are the errors found in the relay's own log."""

    profile: str
    results: list[Result]
    defects: list[str]

    @property
    def passed(self) -> bool:
        """Whether no cell missed."""
        return bool(self.results) and not self.missed and not self.defects

    @property
    def missed(self) -> list[Result]:
        """The cells that missed."""
        return [result for result in self.results if not result.passed]

    def as_json(self) -> dict[str, object]:
        """The run as plain values."""
        return {
            "profile": self.profile,
            "passed": self.passed,
            "defects": self.defects,
            "results": [asdict(result) for result in self.results],
        }


def choose(
    faults: Sequence[str] = (), vendors: Sequence[str] = (), transports: Sequence[str] = ()
) -> list[tuple[Fault, Cell]]:
    """The cells of these rows and columns; empty means all. `F08` includes its variants."""
    rows = [f for f in FAULTS if not faults or f.key in faults or f.number in faults]
    return [
        (fault, Cell(fault.key, vendor, transport, number))
        for number, (fault, vendor, transport) in enumerate(
            (fault, vendor, transport)
            for fault in rows
            for vendor in VENDORS
            for transport in TRANSPORTS
            if vendor in fault.vendors
            and (not vendors or vendor in vendors)
            and (not transports or transport in transports)
        )
    ]


async def run(
    cells: Iterable[tuple[Fault, Cell]],
    profile: Profile,
    *,
    jobs: int = JOBS,
    tell: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Play all cells and judge them; `tell` is called for each one that ends.

    Raises `RelayFailed`.
    """
    stage = Stage()
    async with stage.upstream, aiohttp.ClientSession(**_PATIENT) as http:  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            cast = [_cast(stage, profile, fault, cell, http) for fault, cell in cells]
            routes = Path(folder, "routes.toml")
            routes.write_text(stage.routes_file(), encoding="utf-8")
            variables = {**stage.environment(), **profile.settings, "ROUTES_FILE": str(routes)}
            async with relay(Path(folder), variables) as address:
                results = await _play_all(cast, address, jobs, tell)
            defects = _defects(Path(folder, "relay.log"))
    order = [fault.key for fault in FAULTS]
    results.sort(key=lambda r: (order.index(r.fault), r.vendor, r.transport))
    return Report(profile.name, results, defects)


_PATIENT = {
    "connector": None,
    "timeout": aiohttp.ClientTimeout(total=None, sock_connect=30),
    "read_bufsize": 2**20,
}


def _cast(
    stage: Stage, profile: Profile, fault: Fault, cell: Cell, http: aiohttp.ClientSession
) -> Played:
    scenario = fault.make(profile, cell.vendor)
    cast = stage.cast(cell, scenario.scripts, prefill=scenario.prefill)
    return Played(cell, fault, scenario, profile, cast, http, "")


async def _play_all(
    cast: Sequence[Played], address: str, jobs: int, tell: Callable[[Result], None]
) -> list[Result]:
    """Play the long cells first, and those that need a quiet machine last."""
    results: list[Result] = []

    async def one(played: Played, turn: asyncio.Semaphore) -> None:
        async with turn:
            played.relay = address
            await play(played)
        result = _result(played)
        results.append(result)
        tell(result)

    for quiet, at_once in ((False, jobs), (True, min(jobs, QUIET_JOBS))):
        turn = asyncio.Semaphore(at_once)
        batch = [played for played in cast if played.fault.quiet is quiet]
        batch.sort(key=lambda played: -played.fault.length)
        await asyncio.gather(*(one(played, turn) for played in batch))
    return results


def _result(played: Played) -> Result:
    cell, seconds = played.cell, played.seconds
    return Result(
        fault=cell.fault,
        title=played.fault.title,
        vendor=cell.vendor,
        transport=cell.transport,
        passed=not played.misses,
        attempts=len(played.cast.requests),
        seconds=round(played.seen.seconds if seconds is None else seconds, 3),
        note=played.note,
        misses=played.misses,
    )


def _defects(log: Path) -> list[str]:
    said = log.read_text(encoding="utf-8", errors="replace")
    return [said[at : at + 2000] for trace in TRACES if (at := said.find(trace)) >= 0]
