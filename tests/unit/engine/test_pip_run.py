"""What the set-up takes over of a user's settings for pip, and the progress that it shows."""

import os
import sys
from pathlib import Path

import pytest

from relay.engine import pip_run

LOCK = "".join(f"{name}==1 \\\n    --hash=sha256:0\n" for name in ("one", "two", "three"))


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """A folder for pip's files; the only settings are those that a test makes."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(
        pip_run, "configuration_files", lambda python: sorted(tmp_path.glob("*.conf"))
    )
    return tmp_path


def settings() -> dict[str, str]:
    own = ("CONFIG_FILE", "DISABLE_PIP_VERSION_CHECK", "NO_INPUT", "NO_COLOR")
    environment = pip_run.environment(Path(sys.executable))
    assert environment["PIP_CONFIG_FILE"] == os.devnull
    pips = {name[4:]: value for name, value in environment.items() if name.startswith("PIP_")}
    return {name: value for name, value in pips.items() if name not in own}


def test_the_way_to_the_index_is_kept_and_nothing_else(files, monkeypatch):
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_CERT", "/cert.pem")
    (files / "pip.conf").write_text(
        "[global]\nindex-url = https://a.test/%20\nconstraint = c.txt\nextra_index_url =\n"
        "    https://b.test\n    https://c.test\n[install]\nproxy = p:1\nuser = yes\n"
        "[freeze]\ntimeout = 10\n"
    )
    assert settings() == {
        "INDEX_URL": "https://a.test/%20",
        "EXTRA_INDEX_URL": "\nhttps://b.test\nhttps://c.test",
        "PROXY": "p:1",
        "CERT": "/cert.pem",
    }


def test_a_variable_beats_a_file_and_an_empty_one_does_not(files, monkeypatch):
    monkeypatch.setenv("PIP_PROXY", "variable:1")
    monkeypatch.setenv("PIP_CERT", "")
    (files / "pip.conf").write_text("[global]\nproxy = file:1\ncert = file.pem\n")
    assert settings() == {"PROXY": "variable:1", "CERT": "file.pem"}


def test_of_two_files_the_later_one_counts_and_the_section_install_before_global(files):
    (files / "a.conf").write_text("[global]\nproxy = a:1\ncert = a.pem\n[install]\nretries = 1\n")
    (files / "b.conf").write_text("[global]\nproxy = b:1\nretries = 2\n")
    assert settings() == {"PROXY": "b:1", "CERT": "a.pem", "RETRIES": "1"}


@pytest.mark.parametrize("broken", [b"no section = 1\n", b"[global]\nproxy = \xff\n", None])
def test_a_file_that_cannot_be_read_is_passed_over(files, broken):
    (files / "a.conf").write_text("[global]\nproxy = a:1\n")
    if broken is None:
        (files / "b.conf").symlink_to("/nowhere")
    else:
        (files / "b.conf").write_bytes(broken)
    assert settings() == {"PROXY": "a:1"}


def test_no_file_counts_where_the_user_wants_none(monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert pip_run.configuration_files(Path(sys.executable)) == []


def test_a_file_that_the_user_names_counts_last_and_in_place_of_the_users_own(
    tmp_path, monkeypatch
):
    (tmp_path / "pip.conf").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    own = str(tmp_path / "pip" / "pip.conf")
    assert own in pip_run.configuration_files(Path(sys.executable))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    found = pip_run.configuration_files(Path(sys.executable))
    assert found[-1] == str(tmp_path / "pip.conf")
    assert own not in found


# Progress


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Time:
    clock = Time()
    monkeypatch.setattr(pip_run, "time", clock)
    return clock


@pytest.fixture
def progress(tmp_path, clock) -> pip_run.Progress:
    (tmp_path / "relay.lock").write_text(LOCK)
    return pip_run.Progress(tmp_path / "relay.lock")


def test_a_line_now_and_then_tells_a_pipe_which_package_of_how_many(progress, clock, capsys):
    progress.show("Ignoring three: markers 'x' don't match your environment\n")
    progress.show("Collecting one==1 (from -r relay.lock (line 1))\n")
    clock.now = 9
    progress.show("  Downloading https://files.test/one-1-py3-none-any.whl (4.5 MB)\n")
    assert capsys.readouterr().out == ""
    clock.now = 19
    progress.show("")
    clock.now = 20
    progress.show("Collecting two==1\n")
    assert capsys.readouterr().out == "  1 of 2: one-1-py3-none-any.whl (4.5 MB), 10 s\n"
    clock.now = 30
    progress.show("  WARNING: Retrying (Retry(total=4)) after connection broken\n")
    clock.now = 40
    progress.show("Installing collected packages: one, two\n")
    assert capsys.readouterr().out.splitlines() == [
        "  2 of 2: no answer, trying again, 0 s",
        "  writing the packages, 0 s",
    ]


def test_a_terminal_gets_one_line_that_changes_and_goes(progress, clock, capsys, monkeypatch):
    progress._terminal = True
    progress.show("Requirement already satisfied: one==1 in .venv\n")
    progress.show("Collecting two==1\n")
    clock.now = 2
    progress.show("")
    progress.clear()
    *_, last, gone = capsys.readouterr().out.split("\r\x1b[K")
    assert (last, gone) == ("  2 of 3: two==1, 2 s", "")
