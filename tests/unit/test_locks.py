import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "requirements"
RELAY, COMPILE, DEV = "relay.lock", "compile.lock", "dev.lock"
LOCKS = (RELAY, COMPILE, DEV, "local.lock")
PINNED = re.compile(r"^[\w.-]+==.+$", re.MULTILINE)
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def requirements(file: Path) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def asked_for(lock: str) -> Path:
    """The file whose requirements a lock pins."""
    return ROOT / "requirements.txt" if lock == RELAY else (FOLDER / lock).with_suffix(".txt")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_its_requirements_ask_for(lock):
    pins = dict(PIN.findall((FOLDER / lock).read_text()))
    for wanted in requirements(asked_for(lock)):
        name = canonicalize_name(wanted.name)
        assert name in pins, f"{name} is not locked: run `make lock`"
        assert wanted.specifier.contains(pins[name]), f"{name} is out of range: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_of_a_lock_carries_hashes(lock):
    text = (FOLDER / lock).read_text(encoding="utf-8")
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_path(lock):
    text = (FOLDER / lock).read_text(encoding="utf-8")
    assert not re.search(
        r"https?://|file:|--index-url|--extra-index-url|--find-links|/opt|/tmp", text
    )


def test_the_tests_run_against_the_versions_that_a_relay_installs():
    versions = re.compile(r"^([\w.-]+==[^\s;]+)", re.MULTILINE)
    relay, compile, dev = (
        set(versions.findall((FOLDER / lock).read_text())) for lock in (RELAY, COMPILE, DEV)
    )
    assert relay <= compile <= dev


# The locks are whole


MACHINES = [
    {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": platform,
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[platform],
        "platform_machine": machine,
    }
    for python in ("3.11.0", "3.11.3", "3.12.0", "3.13.0", "3.14.0")
    for platform, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]
"""CPython on the machines that the relay is installed on, in terms of markers."""
ELSEWHERE = {"async-timeout"}
"""What is locked for some of these machines, and not installed here; it depends on nothing."""


@cache
def entries(lock: str) -> list[Requirement]:
    """All that a lock pins, for whatever machine."""
    lines = PINNED.findall((FOLDER / lock).read_text(encoding="utf-8"))
    return [Requirement(line.rstrip(" \\")) for line in lines]


def locked(lock: str, machine: dict[str, str]) -> dict[str, str]:
    """What a lock installs on a machine: versions by name."""
    return {
        entry.name: str(entry.specifier).removeprefix("==")
        for entry in entries(lock)
        if entry.marker is None or entry.marker.evaluate(machine)
    }


@cache
def needs_of(name: str) -> list[Requirement]:
    """What an installed package says that it needs, for whatever machine."""
    return [Requirement(need) for need in distribution(name).requires or []]


def needed(name: str, extras: frozenset[str], machine: dict[str, str]) -> Iterator[Requirement]:
    """What an installed package with some of its extras needs on a machine."""
    try:
        needs = needs_of(name)
    except PackageNotFoundError:
        assert name in ELSEWHERE, f"{name} is locked and not installed: run `make dev`"
        return
    for need in needs:
        if applies(need.marker, extras, machine):
            yield need


def applies(marker: Marker | None, extras: frozenset[str], machine: dict[str, str]) -> bool:
    return marker is None or any(
        marker.evaluate({**machine, "extra": extra}) for extra in ("", *extras)
    )


@pytest.mark.parametrize("lock", [RELAY, COMPILE, DEV])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: "-".join(machine.values()))
def test_a_lock_holds_all_that_its_packages_need(lock, machine):
    """It is installed without a look at what packages depend on."""
    machine = {**default_environment(), **machine}
    pins = locked(lock, machine)
    asked = [(name, frozenset()) for name in pins]
    seen = set()
    while asked:
        name, extras = asked.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for need in needed(name, extras, machine):
            wanted = canonicalize_name(need.name)
            assert wanted in pins, f"{name} needs {need}: run `make lock`"
            assert need.specifier.contains(pins[wanted], prereleases=True), f"{name} needs {need}"
            asked.append((wanted, frozenset(need.extras)))


def test_the_packages_of_npm_are_locked_by_what_they_hold_and_name_no_registry():
    text = (ROOT / "tests/node/package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    wanted = json.loads((ROOT / "tests/node/package.json").read_text())["dependencies"]
    assert packages[""]["dependencies"] == wanted
    del packages[""]
    assert {f"node_modules/{name}" for name in wanted} <= packages.keys()
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "://" not in text


@pytest.mark.parametrize("lock", sorted((FOLDER / "pips").glob("*.lock")), ids=lambda f: f.stem)
def test_each_pip_of_the_tests_is_locked_under_its_own_name(lock):
    pin = re.escape(lock.stem.replace("-", "=="))
    assert re.fullmatch(rf"{pin} --hash=sha256:[0-9a-f]{{64}}\n", lock.read_text())
