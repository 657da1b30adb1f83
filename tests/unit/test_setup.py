"""The set-up script, with pip left out: what is installed when, and what is said."""

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

from relay.engine.pip_failure import Failure

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup.py"
CLOUD = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")


@pytest.fixture
def setup(tmp_path, monkeypatch) -> ModuleType:
    """The script, working in an empty checkout; `setup.calls` are the locks that pip got,
    `setup.failure` is how it ends."""
    spec = importlib.util.spec_from_file_location("checkout_setup", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "requirements").mkdir()
    for name in ("relay.lock", "local.lock", "compile.lock"):
        (tmp_path / "requirements" / name).write_text("one==1\n")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    for name in (*CLOUD, "SUPPORTED_PROVIDERS", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    vars(module).update(calls=[], failure=None)

    def run(python: Path, command: list[str], lock: Path, notes: Path) -> object:
        module.calls.append(lock.name)
        return module.failure

    monkeypatch.setattr(module.pip_run, "run", run)
    return module


def test_without_a_cloud_key_the_embedded_model_is_fetched(setup):
    setup.prepare_run()
    assert setup.calls == ["relay.lock", "local.lock"]


@pytest.mark.parametrize("key", CLOUD)
def test_with_a_cloud_key_it_is_not_fetched(setup, monkeypatch, key):
    monkeypatch.setenv(key, "secret")
    setup.prepare_run()
    assert setup.calls == ["relay.lock"]


def test_an_empty_key_is_no_key(setup, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert setup.wants_local()


def test_asked_for_by_name_it_is_fetched_beside_a_cloud_key(setup, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("SUPPORTED_PROVIDERS", "gpt, local")
    assert setup.wants_local()


@pytest.mark.parametrize(
    "line", ["OPENAI_API_KEY=abc", "export OPENAI_API_KEY='abc'", '  OPENAI_API_KEY = "abc"  ']
)
def test_a_key_in_the_env_file_counts(setup, line):
    (setup.ROOT / ".env").write_text(f"# keys\nPORT=1\n{line}\n")
    assert setup.read_env_file(setup.ROOT / ".env")["OPENAI_API_KEY"] == "abc"
    assert not setup.wants_local()


def test_a_key_that_is_commented_out_does_not_count(setup):
    (setup.ROOT / ".env").write_text(
        "# OPENAI_API_KEY=abc\nOPENAI_API_KEY=\nPORT=1\nGEMINI_API_KEY= # none\n"
    )
    assert setup.wants_local()


def test_the_real_environment_beats_the_env_file(setup, monkeypatch):
    (setup.ROOT / ".env").write_text("OPENAI_API_KEY=abc\n")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert setup.wants_local()


def test_a_second_start_installs_nothing(setup, capsys):
    setup.prepare_run()
    setup.calls.clear()
    capsys.readouterr()
    setup.prepare_run()
    assert setup.calls == []
    assert capsys.readouterr().out == ""


def test_the_compiler_is_installed_where_it_is_asked_for_only(setup):
    setup.prepare_run()
    assert "compile.lock" not in setup.calls
    setup.prepare_compile()
    assert setup.calls[-1] == "compile.lock"


def test_a_changed_lock_is_installed_and_only_that(setup):
    setup.prepare_run()
    setup.calls.clear()
    (setup.ROOT / "requirements" / "relay.lock").write_text("one==2\n")
    setup.prepare_run()
    assert setup.calls == ["relay.lock"]


def test_a_machine_without_a_file_goes_on_without_the_model_and_is_not_asked_again(setup, capsys):
    setup.failure = Failure("xllamacpp: none", none_fits=True)
    setup.install_local()
    assert "`local` stays off" in capsys.readouterr().out
    setup.install_local()
    assert setup.calls == ["local.lock"]


def test_a_package_that_the_relay_needs_is_not_gone_without(setup):
    setup.failure = Failure("aiohttp: none", none_fits=True)
    with pytest.raises(SystemExit, match=r"^aiohttp: none\n.*\.venv/pip\.log"):
        setup.prepare_run()


def test_a_lost_network_stops_the_set_up_and_the_next_start_tries_again(setup):
    setup.failure = Failure("xllamacpp: no connection")
    with pytest.raises(SystemExit, match="no connection"):
        setup.install_local()
    setup.failure = None
    setup.install_local()
    assert len(setup.calls) == 2


# The virtual environment


@pytest.fixture
def made(setup, monkeypatch) -> list[Path]:
    """The environments that were made anew. They hold something that stands for pip."""
    create, anew = venv.create, []

    def create_with_pip(folder: Path, **_: object) -> None:
        anew.append(folder)
        create(folder, symlinks=True)
        (packages,) = (folder / "lib").glob("python*/site-packages")
        (packages / "pip.py").touch()

    monkeypatch.setattr(setup.venv, "create", create_with_pip)
    setup.make_environment()
    assert len(anew) == 1
    return anew


def test_a_whole_environment_is_left_alone(setup, made):
    setup.make_environment()
    assert len(made) == 1


def python_is_gone(folder: Path, monkeypatch) -> None:
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to("/nowhere/python3")


def python_does_not_start(folder: Path, monkeypatch) -> None:
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").write_text("no program")
    (folder / "bin" / "python").chmod(0o755)


def python_is_another_version(folder: Path, monkeypatch) -> None:
    (packages,) = (folder / "lib").glob("python*")
    packages.rename(folder / "lib" / "python3.1")


def another_python_is_named(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON", "python3.99")
    monkeypatch.setattr(sys, "version", "3.99.0 (main)")


def it_was_killed_while_it_wrote(folder: Path, monkeypatch) -> None:
    (folder / ".writing.stamp").touch()


def it_was_killed_before_it_was_made(folder: Path, monkeypatch) -> None:
    (folder / ".python.stamp").unlink()


@pytest.mark.parametrize(
    "happens",
    [
        python_is_gone,
        python_does_not_start,
        python_is_another_version,
        another_python_is_named,
        it_was_killed_while_it_wrote,
        it_was_killed_before_it_was_made,
    ],
)
def test_an_environment_that_is_not_whole_is_made_anew_and_filled_anew(
    setup, made, monkeypatch, happens
):
    setup.prepare_run()
    setup.calls.clear()
    happens(setup.VENV, monkeypatch)
    setup.make_environment()
    assert len(made) == 2
    setup.prepare_run()
    assert setup.calls == ["relay.lock", "local.lock"]


def test_the_named_python_that_it_has_already_changes_nothing(setup, made, monkeypatch):
    monkeypatch.setenv("PYTHON", sys.executable)
    setup.make_environment()
    assert len(made) == 1


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), subprocess.CalledProcessError(1, "ensurepip")]
)
def test_an_environment_that_cannot_be_made_is_told_in_a_sentence(setup, monkeypatch, error):
    def create(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(setup.venv, "create", create)
    with pytest.raises(SystemExit, match="No virtual environment could be made in"):
        setup.make_environment()
    assert not setup.VENV.exists()


# Programs


@pytest.fixture
def apt(setup, tmp_path, monkeypatch) -> Path:
    """An apt-get of the test's own, for root: it succeeds and installs nothing."""
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(setup.os, "geteuid", lambda: 0)
    return program


def test_missing_programs_are_named_where_they_cannot_be_installed(setup, monkeypatch):
    monkeypatch.setattr(setup, "find_program", lambda name: None)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="apt-get install chromium redis-server nginx"):
        setup.install_tools()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo 'E: Unable to locate package chromium' >&2; exit 100",
            r"could not install chromium \(Unable to locate package chromium\)\.",
        ),
        ("exit 0", r"could not install chromium\."),
    ],
)
def test_a_program_that_apt_get_does_not_bring_is_told_in_a_sentence(
    setup, apt, monkeypatch, script, told
):
    apt.write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setattr(setup, "find_program", lambda name: name != "chromium" or None)
    with pytest.raises(SystemExit, match=told):
        setup.install_tools()


def test_lists_that_cannot_be_renewed_stop_nothing_that_the_old_ones_can_install(
    setup, apt, tmp_path, monkeypatch
):
    there = tmp_path / "chromium"
    apt.write_text(f'#!/bin/sh\n[ "$1" = install ] && touch {there} && exit 0\nexit 100\n')
    monkeypatch.setattr(
        setup, "find_program", lambda name: there.exists() or None if name == "chromium" else name
    )
    setup.install_tools()
    assert there.exists()


# Which Python


def python(tmp_path: Path, name: str, script: str) -> None:
    """A program on the test's path."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / name).chmod(0o755)


def chosen(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "bin").mkdir(exist_ok=True)
    environment = {"PATH": str(tmp_path / "bin"), **variables}
    command = ["/bin/sh", str(SCRIPT.with_name("python.sh"))]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


WHOLE = f'exec {sys.executable} "$@"'
BARE = f'PYTHONPATH=${{0%/*}}/bare exec {sys.executable} "$@"'
"""As Debian's python3 without python3-venv: `bare` holds an ensurepip that can't be imported."""


def bare(tmp_path: Path) -> None:
    (tmp_path / "bin" / "bare").mkdir(parents=True, exist_ok=True)
    lack = "raise ImportError(name='ensurepip')"
    (tmp_path / "bin" / "bare" / "ensurepip.py").write_text(lack)


def test_the_first_python_that_does_is_chosen(tmp_path):
    python(tmp_path, "python3", WHOLE)
    assert chosen(tmp_path).stdout == "python3\n"


@pytest.mark.parametrize(
    "unfit",
    [
        BARE,
        "exit 1",  # too old
        "echo 'pyenv: python3: command not found' >&2; exit 127",
        "exec /nowhere/python",
    ],
)
def test_a_python_that_does_not_do_is_passed_over(tmp_path, unfit):
    bare(tmp_path)
    python(tmp_path, "python3", unfit)
    python(tmp_path, "python3.12", WHOLE)
    found = chosen(tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, "python3.12\n", "")


def test_where_none_does_it_is_said_what_the_found_one_lacks(tmp_path):
    bare(tmp_path)
    python(tmp_path, "python3", BARE)
    found = chosen(tmp_path)
    assert found.returncode == 1
    assert "python3 lacks its module ensurepip (on Debian: apt-get install python3-venv)" in (
        found.stderr
    )
    assert found.stderr.count("\n") == 1


def test_a_named_python_comes_first_and_is_told_of_where_it_does_not_do(tmp_path):
    python(tmp_path, "python3", WHOLE)
    python(tmp_path, "my python", WHOLE)
    named = str(tmp_path / "bin" / "my python")
    assert chosen(tmp_path, PYTHON=named).stdout == f"{named}\n"
    other = chosen(tmp_path, PYTHON="/nowhere/python")
    assert other.stdout == "python3\n"
    assert "/nowhere/python" in other.stderr
