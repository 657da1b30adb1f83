"""Figures of the operating system: processor time by process group, busy cores, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

PROC = Path("/proc")
SYSTEM_CORE = 0
TOOLS_CORE = 1
"""The system under test has a core for itself; upstream, load and this program share the other."""


def pinned(core: int, argv: list[str]) -> list[str]:
    """The command `argv`, restricted to one core."""
    return ["taskset", "-c", str(core), *argv]


def group_pids(leader: int) -> list[int]:
    """The processes of the session that `leader` leads, itself included."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(entry)
            if fields and int(fields[3]) == leader:
                found.append(int(entry.name))
    return found


def _stat(entry: Path) -> list[str]:
    """The fields of /proc/PID/stat after the command's name; empty if the process is gone."""
    try:
        text = (entry / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def cpu_seconds(leader: int) -> float:
    """Processor time that a process group has used, user and kernel, from the scheduler's
    nanosecond accounts (/proc/PID/task/TID/schedstat)."""
    total = 0
    for pid in group_pids(leader):
        for task in (PROC / str(pid) / "task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def rss_mb(leader: int) -> float:
    """Resident memory of a process group, in MB."""
    page = os.sysconf("SC_PAGE_SIZE")
    pages = 0
    for pid in group_pids(leader):
        try:
            pages += int((PROC / str(pid) / "statm").read_text().split()[1])
        except OSError:
            continue
    return pages * page / 1e6


def core_busy(core: int) -> tuple[int, int]:
    """(busy, all) ticks of a core so far."""
    for line in (PROC / "stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            ticks = [int(field) for field in line.split()[1:9]]
            return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    raise SystemExit(f"this machine has no core {core}; the bench needs two")


def describe(python: str) -> dict[str, str]:
    """The machine as described in a results file, and the interpreter that runs the relay."""
    models = [line.partition(":")[2].strip() for line in _lines("cpuinfo", "model name")]
    memory = [line.split()[1] for line in _lines("meminfo", "MemTotal")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory_gb": f"{int(memory[0]) / 1e6:.1f}" if memory else "",
        "kernel": platform.release(),
        "python": _said(python, "-V").removeprefix("Python "),
        "relay": _said(python, "-c", "from relay.process import compiled; print(compiled.use())"),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
    }


def _lines(name: str, start: str) -> list[str]:
    text = (PROC / name).read_text()
    return [line for line in text.splitlines() if line.startswith(start)]


def _said(*command: str) -> str:
    asked = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return asked.stdout.strip()
