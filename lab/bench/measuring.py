"""One measurement: a load on one system, and the operating system's figures for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab.bench.machine import SYSTEM_CORE, TOOLS_CORE, core_busy, cpu_seconds, pinned, rss_mb
from lab.bench.systems import PROCESSES, SHAPES, SYSTEMS, UPSTREAM_PORT, WORK, Process
from lab.ports import listens
from lab.waiting import block_until

START_TIMEOUT = 120.0
NOISY = 0.15
"""Share of the system's core used by other programs, above which a measurement is repeated."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """How many answers are requested, and the measuring time in seconds."""

    phase: str
    streams: int
    ramp: float = 2.8
    warm: float = 0.4
    measure: float = 5.0

    @property
    def tokens(self) -> int:
        """Tokens of one answer."""
        return int(self._script[1][1:])

    @property
    def first_ms(self) -> int:
        """Milliseconds before the upstream's own first token."""
        return int(self._script[3][1:])

    @property
    def _script(self) -> list[str]:
        script: list[str] = SHAPES[self.phase].split("-")
        return script


class Bench:
    """The running processes. Enter as a context; leaving it stops them."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Bench:
        upstream = Process(UPSTREAM_PORT, (str(WORK / "upstream"), str(UPSTREAM_PORT)))
        self._start("upstream", upstream, TOOLS_CORE)
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
        for child in self._children.values():
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)

    def start(self, name: str) -> None:
        """Start a system's process unless it runs."""
        if name not in self._children:
            self._start(name, PROCESSES[name], SYSTEM_CORE)

    def _start(self, name: str, process: Process, core: int) -> None:
        if listens(process.port):
            raise SystemExit(f"port {process.port} is in use; {name} needs it")
        with (WORK / f"{name}.out").open("wb") as out:
            child = subprocess.Popen(
                pinned(core, list(process.argv)),
                env=os.environ | process.env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._children[name] = child
        with contextlib.suppress(TimeoutError):
            block_until(
                lambda: listens(process.port) or child.poll() is not None,
                within=START_TIMEOUT,
                pause=0.2,
            )
        if child.poll() is not None or not listens(process.port):
            raise SystemExit(f"{name} does not start; see {WORK / name}.out")

    def measure(self, system: str, load: Load) -> Result:
        """Put `load` on `system`; once more if other programs were busy on its core."""
        result = self._measure(system, load)
        if result["others"] > NOISY:
            result = self._measure(system, load) | {"repeated": True}
        return result

    def idle(self, count: int) -> Result:
        """The cost of `count` WebSocket sessions that sent a hello and nothing else."""
        leader = self._children["relay"].pid
        before = rss_mb(leader)
        argv = [str(WORK / "load"), "-m", "idle", "-p", str(PROCESSES["relay"].port), "-u", "/ws"]
        argv += ["-b", '{"type":"hello"}', "-n", str(count), "-r", str(count / 2000)]
        argv += ["-w", "2", "-d", "3"]
        with subprocess.Popen(pinned(TOOLS_CORE, argv), stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            used, after = cpu_seconds(leader), rss_mb(leader)
            result: Result = json.loads(child.stdout.readline())
            used = cpu_seconds(leader) - used
        return {
            "sessions": result["open"],
            "kb_per_session": (after - before) * 1e3 / max(1, result["open"]),
            "cpu_share": used / result["seconds"],
        }

    def _measure(self, name: str, load: Load) -> Result:
        leader = self._children[SYSTEMS[name].process].pid
        with _load_process(name, load) as child:
            assert child.stdout is not None
            child.stdout.readline()
            before, busy = cpu_seconds(leader), core_busy(SYSTEM_CORE)
            line = child.stdout.readline()
            used = cpu_seconds(leader) - before
            busy_after = core_busy(SYSTEM_CORE)
        if not line:
            raise SystemExit(f"the load on {name} ended early")
        result: Result = json.loads(line)
        share = used / load.measure
        core = (busy_after[0] - busy[0]) / max(1, busy_after[1] - busy[1])
        return result | {
            "system": name,
            "phase": load.phase,
            "cpu_us_per_token": used / result["tokens"] * 1e6 if result["tokens"] else None,
            "cpu_share": share,
            "others": max(0.0, core - share),
            "rss_mb": rss_mb(leader),
        }


@contextlib.contextmanager
def _load_process(name: str, load: Load) -> Iterator[subprocess.Popen[bytes]]:
    system = SYSTEMS[name]
    argv = [str(WORK / "load"), "-m", system.mode, "-p", str(PROCESSES[system.process].port)]
    argv += ["-u", system.path(load.phase), "-b", system.body(load.phase)]
    argv += ["-n", str(load.streams), "-e", str(load.tokens), "-f", str(load.first_ms)]
    argv += ["-r", str(load.ramp), "-w", str(load.warm), "-d", str(load.measure)]
    for header in system.headers:
        argv += ["-H", header]
    with subprocess.Popen(pinned(TOOLS_CORE, argv), stdout=subprocess.PIPE) as child:
        yield child
