import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
RELAY, COMPILE, DEV = "requirements.lock", "requirements-compile.lock", "requirements-dev.lock"
LOCKS = (RELAY, COMPILE, DEV, "requirements-local.lock")
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def requirements(file: Path) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_its_requirements_ask_for(lock):
    pins = dict(PIN.findall((ROOT / lock).read_text()))
    for wanted in requirements((ROOT / lock).with_suffix(".txt")):
        name = canonicalize_name(wanted.name)
        assert name in pins, f"{name} is not locked: run `make lock`"
        assert wanted.specifier.contains(pins[name]), f"{name} is out of range: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_of_a_lock_carries_hashes(lock):
    entries = re.split(r"^(?=[\w.-]+==)", (ROOT / lock).read_text(encoding="utf-8"), flags=re.M)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_path(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(
        r"https?://|file:|--index-url|--extra-index-url|--find-links|/opt|/tmp", text
    )


def test_the_tests_run_against_the_versions_that_a_relay_installs():
    versions = re.compile(r"^([\w.-]+==[^\s;]+)", re.MULTILINE)
    relay, compile, dev = (
        set(versions.findall((ROOT / lock).read_text())) for lock in (RELAY, COMPILE, DEV)
    )
    assert relay <= compile <= dev
