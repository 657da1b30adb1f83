"""What a process reads at its start: precedence, edges, refusals, secrets."""

import os

import pytest

from relay.configuration.load import load_settings
from relay.configuration.settings import SECTIONS, Settings, variables
from relay.configuration.variables import SettingsError
from relay.providers.registry import VENDORS

SECRET = "sk-very-secret-0123456789"
TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No variable of the machine that runs the test, no file of its folder."""
    for name in tuple(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def refused(monkeypatch, **environment):
    with pytest.raises(SettingsError) as error:
        load(monkeypatch, **environment)
    return error.value


def test_an_empty_environment_is_a_whole_configuration(monkeypatch):
    settings = load(monkeypatch)
    assert (settings.host, settings.port) == ("127.0.0.1", 3050)
    assert settings.supported_providers == ("gpt", "claude", "gemini", "local")


def test_the_contracts_defaults_hold(monkeypatch):
    settings = load(monkeypatch)
    held = {name: getattr(settings, name) for name in CONTRACT_DEFAULTS}
    assert held == CONTRACT_DEFAULTS


CONTRACT_DEFAULTS = {
    "first_token_timeout": 120,
    "token_idle_timeout": 15,
    "hedge_after": 8,
    "hedge_budget": 0.1,
    "rescue": "continue",
    "max_output_tokens": 8192,
    "retry_after_max": 3,
    "breaker_cooldown": 10,
    "resume_grace": 300,
    "resume_window": 3600,
    "retained_bytes": 256 * 1024**2,
    "heartbeat": 20,
    "drain_timeout": 25,
    "write_timeout": 30,
    "max_frame_bytes": 8 * 1024**2,
    "max_streams_per_session": 32,
}


def test_the_file_is_read_and_the_real_environment_wins(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("PORT=1111\nLOG_LEVEL=debug\n", encoding="utf-8")
    settings = load(monkeypatch, PORT="2222")
    assert (settings.port, settings.log_level) == (2222, "DEBUG")


def test_a_file_with_a_byte_order_mark_is_read(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("\ufeffPORT=1111\n", encoding="utf-8")
    assert load(monkeypatch).port == 1111


def test_a_file_that_is_not_text_is_refused_by_its_name(monkeypatch, tmp_path):
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    assert str(refused(monkeypatch)).startswith(".env can't be read")


def test_an_empty_value_counts_as_unset_and_hides_the_files(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(f"PORT=1111\nOPENAI_API_KEY={SECRET}\n", encoding="utf-8")
    settings = load(monkeypatch, PORT=" ", OPENAI_API_KEY="")
    assert settings.port == 3050
    assert "API_KEY" not in settings.providers["gpt"]


def test_settings_cannot_be_changed(monkeypatch):
    settings = load(monkeypatch, PROVIDER_FALLBACKS="gpt=claude", OPENAI_API_KEY=SECRET)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1
    for held in (settings.provider_fallbacks, settings.providers, settings.providers["gpt"]):
        with pytest.raises(TypeError):
            held["gpt"] = ()


def test_secrets_show_in_no_repr_and_no_dump(monkeypatch):
    settings = load(monkeypatch, OPENAI_API_KEY=SECRET, RELAY_TOKENS=f"alice={TOKEN}")
    for shown in (repr(settings), str(settings), repr(settings.providers), settings.model_dump()):
        assert SECRET not in str(shown)
        assert TOKEN not in str(shown)


def test_secrets_are_known_to_the_redactor(monkeypatch):
    names = "gpt,mistral"
    settings = load(
        monkeypatch,
        SUPPORTED_PROVIDERS=names,
        OPENAI_API_KEY=SECRET,
        MISTRAL_API_KEY="another-key-42",
        RELAY_TOKENS=f"alice={TOKEN}",
    )
    assert set(settings.secrets()) == {SECRET, "another-key-42", TOKEN}
    assert settings.token_subjects() == {TOKEN: "alice"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("HEARTBEAT", "0"),
        ("HEARTBEAT", "-1"),
        ("FIRST_TOKEN_TIMEOUT", "0"),
        ("TOKEN_IDLE_TIMEOUT", "nan"),
        ("HEDGE_AFTER", "-0.1"),
        ("HEDGE_AFTER", "inf"),
        ("HEDGE_BUDGET", "1.01"),
        ("HEDGE_BUDGET", "-0.01"),
        ("RESCUE", "maybe"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_OUTPUT_TOKENS", "0"),
        ("MAX_STREAMS_PER_SESSION", "1.5"),
        ("MAX_FRAME_BYTES", "1023"),
        ("RETAINED_BYTES", "much"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("LOG_CONTENT", "perhaps"),
        ("RELAY_ALLOW_ANONYMOUS", "2"),
        ("SUPPORTED_PROVIDERS", "gpt,gpt"),
        ("PROVIDER_FALLBACKS", "gpt"),
        ("PROVIDER_FALLBACKS", "gpt=mistral"),
        ("ALLOWED_ORIGINS", "example.com"),
        ("ALLOWED_ORIGINS", "*"),
        ("TRUSTED_PROXIES", "proxy"),
        ("HOST", "0.0.0.0"),
        ("OPENAI_BASE_URL", "api.openai.com"),
    ],
)
def test_a_bad_value_is_refused_by_name_value_and_what_it_takes(monkeypatch, name, value):
    (line,) = refused(monkeypatch, **{name: value}).lines
    assert line.startswith(f"{name} holds '{value}")
    assert f"it takes {variables()[name].takes}" in line


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("DRAIN_TIMEOUT", "0", 0),
        ("HEDGE_AFTER", "0.25", 0.25),
        ("HEDGE_BUDGET", "1", 1),
        ("HEDGE_BUDGET", "0", 0),
        ("RESCUE", "Restart", "restart"),
        ("MAX_FRAME_BYTES", "1024", 1024),
        ("MAX_FRAME_BYTES", "1MiB", 1024**2),
        ("RETAINED_BYTES", "256MB", 256_000_000),
        ("LOG_FORMAT", "JSON", "json"),
        ("LOG_CONTENT", "yes", True),
        ("HOST", "localhost", "localhost"),
    ],
)
def test_a_value_at_its_edge_is_taken(monkeypatch, name, value, held):
    assert getattr(load(monkeypatch, **{name: value}), name.lower()) == held


def test_every_bad_value_has_its_line(monkeypatch):
    lines = refused(monkeypatch, PORT="x", RESCUE="y", HEDGE_BUDGET="z").lines
    assert sorted(line.split()[0] for line in lines) == ["HEDGE_BUDGET", "PORT", "RESCUE"]


def test_a_refusal_is_one_line_whatever_the_value_holds(monkeypatch):
    (line,) = refused(monkeypatch, PORT="1\n2\x1b[31m\u2028" + "9" * 1000).lines
    assert len(line.splitlines()) == 1
    assert len(line) < 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", f'"{SECRET}"'),
        ("OPENAI_API_KEY", f"{SECRET} x"),
        ("RELAY_TOKENS", "alice=tooshort"),
        ("PORT", SECRET),
        ("OPENAI_BASE_URL", f"https://user:{SECRET}@example.com"),
    ],
)
def test_a_refusal_shows_no_secret(monkeypatch, name, value):
    line = str(refused(monkeypatch, **{name: value}))
    assert line.startswith(f"{name} holds ")
    assert "tooshort" not in line
    assert SECRET not in line


def test_an_open_bind_needs_tokens_or_the_operators_word(monkeypatch):
    assert "RELAY_ALLOW_ANONYMOUS" in str(refused(monkeypatch, HOST="0.0.0.0"))
    assert load(monkeypatch, HOST="0.0.0.0", RELAY_TOKENS=TOKEN).relay_tokens
    monkeypatch.delenv("RELAY_TOKENS")
    assert load(monkeypatch, RELAY_ALLOW_ANONYMOUS="1").relay_allow_anonymous


def test_any_origin_needs_tokens(monkeypatch):
    settings = load(monkeypatch, ALLOWED_ORIGINS="*", RELAY_TOKENS=TOKEN)
    assert settings.allowed_origins == ("*",)


def test_a_further_providers_variables_are_read_and_refused_by_their_own_names(monkeypatch):
    environment = {"SUPPORTED_PROVIDERS": "my-llm", "MY_LLM_MODEL_DEFAULT": "m"}
    settings = load(monkeypatch, **environment)
    assert settings.providers["my-llm"] == {"MODEL_DEFAULT": "m"}
    assert str(refused(monkeypatch, MY_LLM_BASE_URL="x")).startswith("MY_LLM_BASE_URL holds 'x'")


def test_a_further_providers_variables_may_stand_in_the_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("SUPPORTED_PROVIDERS=a\nA_BASE_URL=http://a/v1\n")
    assert load(monkeypatch).providers["a"]["BASE_URL"] == "http://a/v1"


def test_a_variable_of_another_case_is_another_variable(monkeypatch):
    assert load(monkeypatch, port="1").port == 3050


def test_every_variable_says_what_it_is_for_and_every_heading_has_its_variable():
    for variable in variables().values():
        assert variable.sentence.endswith(".")
        assert variable.takes
    assert set(SECTIONS) < set(variables())


def test_every_vendor_has_its_four_variables():
    for vendor in VENDORS:
        for suffix in ("API_KEY", "BASE_URL", "MODEL_DEFAULT", "MODEL_FALLBACKS"):
            assert f"{vendor.env}_{suffix}" in variables()


def test_every_field_is_a_variable():
    assert {name.upper() for name in Settings.model_fields} - {"PROVIDERS"} <= set(variables())
