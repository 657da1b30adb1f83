"""Which providers are on, which is the default, and what the operator is told."""

import os

import pytest

from relay.configuration.catalog import (
    choose_default,
    providers_on,
    routes_of,
    stray_variables,
)
from relay.configuration.load import load_settings
from relay.configuration.variables import SettingsError
from relay.providers.registry import VENDORS, build

KEY = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No variable of the machine that runs the test, no file of its folder."""
    for name in tuple(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def catalog(monkeypatch, local_off=None, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    return settings, providers_on(settings, local_model="small", local_off=local_off)


def test_without_a_key_only_the_embedded_model_is_on(monkeypatch):
    _, found = catalog(monkeypatch)
    assert list(found.on) == ["local"]
    assert found.off == {vendor.provider: f"no {vendor.env}_API_KEY" for vendor in VENDORS}


def test_without_its_engine_the_embedded_model_says_why_it_is_off(monkeypatch):
    _, found = catalog(monkeypatch, local_off="no wheel for this machine")
    assert found.on == {}
    assert found.off["local"] == "no wheel for this machine"


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.provider)
def test_built_in_models_hold_only_where_the_operator_named_none(monkeypatch, vendor):
    key = {f"{vendor.env}_API_KEY": KEY}
    _, found = catalog(monkeypatch, **key)
    config = found.on[vendor.provider]
    assert config.models == (vendor.default_model, *vendor.fallback_models)
    assert (config.kind, config.env, config.base_url) == (vendor.kind, vendor.env, None)

    _, found = catalog(monkeypatch, **{f"{vendor.env}_MODEL_DEFAULT": "mine"})
    assert found.on[vendor.provider].models == ("mine",)

    _, found = catalog(monkeypatch, **{f"{vendor.env}_MODEL_FALLBACKS": "a, mine, b"})
    assert found.on[vendor.provider].models == ("mine", "a", "b")

    monkeypatch.delenv(f"{vendor.env}_MODEL_DEFAULT")
    _, found = catalog(monkeypatch)
    assert found.on[vendor.provider].models == (vendor.default_model, "a", "mine", "b")


def test_a_compatible_provider_needs_url_and_model_but_no_key(monkeypatch):
    _, found = catalog(monkeypatch, SUPPORTED_PROVIDERS="ollama")
    assert found.off == {"ollama": "no OLLAMA_BASE_URL"}
    _, found = catalog(monkeypatch, OLLAMA_BASE_URL="http://127.0.0.1:1/v1/")
    assert found.off == {"ollama": "no OLLAMA_MODEL_DEFAULT"}
    _, found = catalog(monkeypatch, OLLAMA_MODEL_DEFAULT="llama3:8b")
    config = found.on["ollama"]
    assert (config.models, config.api_key) == (("llama3:8b",), None)
    assert config.base_url == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.provider)
async def test_what_the_catalog_says_is_enough_to_make_a_provider(monkeypatch, vendor):
    _, found = catalog(monkeypatch, **{f"{vendor.env}_API_KEY": KEY})
    config = found.on[vendor.provider]
    provider = build(
        config.kind,
        name=config.name,
        api_key=config.api_key.get_secret_value(),
        base_url=config.base_url,
    )
    await provider.close()


@pytest.mark.parametrize(
    ("environment", "default"),
    [
        ({}, "local"),
        ({"GEMINI_API_KEY": KEY}, "gemini"),
        ({"GEMINI_API_KEY": KEY, "SUPPORTED_PROVIDERS": "local,gemini"}, "gemini"),
        ({"GEMINI_API_KEY": KEY, "DEFAULT_PROVIDER": "local"}, "local"),
        ({"SUPPORTED_PROVIDERS": "gpt"}, None),
    ],
)
def test_the_default_is_the_first_that_is_on_and_local_last(monkeypatch, environment, default):
    settings, found = catalog(monkeypatch, **environment)
    assert choose_default(settings, routes_of(settings, found)) == default


@pytest.mark.parametrize(
    ("name", "reason"), [("gpt", "it is off: no OPENAI_API_KEY"), ("nobody", "no such name")]
)
def test_a_default_that_is_not_on_stops_the_start(monkeypatch, name, reason):
    settings, found = catalog(monkeypatch, DEFAULT_PROVIDER=name)
    with pytest.raises(SettingsError, match=f"DEFAULT_PROVIDER holds '{name}' .{reason}"):
        choose_default(settings, routes_of(settings, found))


def test_a_routes_file_is_read_and_may_hold_the_default(monkeypatch, tmp_path):
    (tmp_path / "r.toml").write_text('[routes.mine]\ntargets = ["local"]\n', encoding="utf-8")
    settings, found = catalog(monkeypatch, ROUTES_FILE="r.toml", DEFAULT_PROVIDER="mine")
    routes = routes_of(settings, found)
    assert choose_default(settings, routes) == "mine"
    assert routes.on["mine"].targets == routes.on["local"].targets


def test_settings_reach_every_route(monkeypatch):
    settings, found = catalog(
        monkeypatch,
        FIRST_TOKEN_TIMEOUT="1",
        TOKEN_IDLE_TIMEOUT="2",
        HEDGE_AFTER="3",
        MAX_OUTPUT_TOKENS="4",
    )
    route = routes_of(settings, found).on["local"]
    held = (route.first_token_timeout, route.token_idle_timeout, route.hedge_after)
    assert (*held, route.max_output_tokens) == (1, 2, 3, 4)


def test_a_routes_file_that_is_missing_or_wrong_stops_the_start(monkeypatch, tmp_path):
    settings, found = catalog(monkeypatch, ROUTES_FILE="none.toml")
    with pytest.raises(SettingsError, match=r"ROUTES_FILE holds 'none.toml' \(No such file"):
        routes_of(settings, found)
    (tmp_path / "none.toml").write_text("[routes.x]\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^none.toml:1: route 'x' has no targets$"):
        routes_of(settings, found)


def test_variables_that_nothing_reads_are_named(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("OTHER=1\nLOG_LEVELS=2\nPORT=3\n", encoding="utf-8")
    settings, _ = catalog(monkeypatch, RELAY_WHAT="1", OPENAI_API_KEYS="x", GOOGLE_API_KEY="y")
    assert stray_variables(settings) == [
        "LOG_LEVELS is not used; did you mean LOG_LEVEL?",
        "OPENAI_API_KEYS is not used; did you mean OPENAI_API_KEY?",
        "OTHER is not used",
        "RELAY_WHAT is not used",
        "GOOGLE_API_KEY is not used; did you mean GEMINI_API_KEY?",
    ]


def test_a_limit_that_nothing_holds_is_named(monkeypatch):
    settings, _ = catalog(monkeypatch, RATE_LIMIT_CHATS="3")
    assert stray_variables(settings) == ["RATE_LIMIT_CHATS is not used"]


def test_variables_of_providers_are_not_strays(monkeypatch):
    settings, _ = catalog(
        monkeypatch, SUPPORTED_PROVIDERS="relay-x", RELAY_X_BASE_URL="http://x", PORT="1"
    )
    assert stray_variables(settings) == []
