import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"^([\w.-]+)==\S+", re.MULTILINE)
NOTICES = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")


def pinned(lock: str) -> list[str]:
    return PINNED.findall((ROOT / "requirements" / lock).read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", pinned("relay.lock") + pinned("local.lock"))
def test_every_package_that_a_relay_installs_has_its_licence_in_the_notices(package):
    assert re.search(rf"^\| {re.escape(package)}\b[^|]*\|.*\w+.*\|$", NOTICES, re.MULTILINE)


def test_the_notices_name_no_package_that_is_no_longer_installed():
    table = NOTICES.split("## Python packages")[1]
    listed = re.findall(r"^\| ([\w.-]+) \|", table, re.MULTILINE)
    wanted = set(pinned("relay.lock"))
    assert set(listed) - {"package", "---"} == wanted, "run python scripts/notices.py"
