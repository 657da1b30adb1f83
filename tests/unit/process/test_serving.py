"""What a start says, and what stops it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from loguru import logger

from relay.configuration.load import load_settings
from relay.configuration.settings import Settings
from relay.configuration.variables import SettingsError
from relay.process import app, compiled, serving
from relay.process.app import Relay
from relay.process.serving import CANT_LISTEN, cant_listen, catalog_of, greeting

ROOT = Path(__file__).parents[3]


def lines_of(monkeypatch: pytest.MonkeyPatch, **env: str) -> list[str]:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SUPPORTED_PROVIDERS": "gpt,claude", **env}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(None)
    return greeting(Relay(settings, catalog_of(settings)), 3050)


async def test_a_start_says_where_to_connect_who_answers_and_why_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = lines_of(monkeypatch, OPENAI_API_KEY="sk-secret-secret-secret")
    assert "ws://127.0.0.1:3050/ws" in lines[1]
    assert any("gpt (default): gpt-6-luna, then gpt-6.1-terra" in line for line in lines)
    assert any("claude: no ANTHROPIC_API_KEY" in line for line in lines)
    assert "secret" not in "".join(lines)


async def test_a_start_names_the_provider_that_an_answer_may_move_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "sk-secret-secret-secret"
    env = {"OPENAI_API_KEY": secret, "ANTHROPIC_API_KEY": secret}
    lines = lines_of(monkeypatch, PROVIDER_FALLBACKS="gpt=claude", **env)
    assert any("gpt-6.1-terra, then claude:claude-sonnet-5-5" in line for line in lines)


async def test_a_start_without_any_provider_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "set a key in .env" in lines_of(monkeypatch)[-1]


async def test_a_start_warns_of_a_model_that_will_be_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = {"OPENAI_API_KEY": "sk-secret-secret-secret", "OPENAI_MODEL_DEFAULT": "gpt-4o"}
    assert any("gpt-4o is deprecated" in line for line in lines_of(monkeypatch, **env))


def test_a_start_warns_of_compiled_modules_that_are_not_of_these_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{level} {message}")
    try:
        for state in ("interpreted", "compiled", "outdated"):
            monkeypatch.setattr(compiled, "state", state)
            serving._tell_outdated()
    finally:
        logger.remove(handler)
    assert len(lines) == 1
    assert lines[0].startswith("WARNING the compiled modules")
    assert "make compile" in lines[0]


async def test_a_start_says_that_message_text_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("LOG_CONTENT" in line for line in lines_of(monkeypatch))
    assert any("LOG_CONTENT is on" in line for line in lines_of(monkeypatch, LOG_CONTENT="1"))


async def test_a_name_of_this_machine_that_leads_beyond_it_is_not_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"SUPPORTED_PROVIDERS": "local", "HOST": "localhost", "PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(None)
    relay = Relay(settings, catalog_of(settings))
    async with app.listening(relay) as port:
        assert port
    # As if the resolver had led the name elsewhere; the socket stays on loopback.
    monkeypatch.setattr(app, "is_loopback", lambda host: host == "localhost")
    with pytest.raises(SettingsError, match=r"HOST is 'localhost', which .* resolves to"):
        async with app.listening(relay):
            pytest.fail("served")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"PORT": "x"}, "PORT holds 'x'"),
        ({"HOST": "0.0.0.0"}, "RELAY_TOKENS"),
        ({"RESCUE": "maybe"}, "RESCUE"),
    ],
)
def test_a_bad_configuration_stops_the_start_with_a_sentence(
    env: dict[str, str], said: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "server.py")],
        env={"PATH": "/usr/bin:/bin", "LOG_DIR": "none", **env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_host_that_nobody_knows_is_told_as_such() -> None:
    fault = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    try:
        assert cant_listen(Settings.model_validate({}), fault) == CANT_LISTEN
    finally:
        logger.remove(sink)
    assert "Name or service not known" in said[0]
