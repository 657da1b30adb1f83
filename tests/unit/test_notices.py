import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-local.lock")
PINNED = re.compile(r"^([\w.-]+)==\S+", re.MULTILINE)
NOTICES = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")


def pinned(lock: str) -> list[str]:
    return PINNED.findall((ROOT / lock).read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", pinned("requirements.lock") + pinned("requirements-local.lock"))
def test_every_package_that_a_relay_installs_has_its_licence_in_the_notices(package):
    assert re.search(rf"^\| {re.escape(package)}\b[^|]*\|.*\w+.*\|$", NOTICES, re.MULTILINE)


def test_the_notices_name_no_package_that_is_no_longer_installed():
    table = NOTICES.split("## Python packages")[1]
    listed = re.findall(r"^\| ([\w.-]+) \|", table, re.MULTILINE)
    assert set(listed) - {"package", "---"} == set(pinned("requirements.lock"))


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
    relay, dev = (set(versions.findall((ROOT / lock).read_text())) for lock in LOCKS[:2])
    assert relay <= dev
