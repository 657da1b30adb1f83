"""The variables of several nodes: what they take, and that the URL's password stays secret."""

import os

import pytest

from relay.configuration.load import load_settings
from relay.configuration.variables import SettingsError

URL = "rediss://user:sEcReT@redis.example:6380/2"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    for name in tuple(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_a_url_streams_live_in_the_process():
    assert load_settings().redis_url is None


def test_the_url_is_a_secret(monkeypatch):
    monkeypatch.setenv("REDIS_URL", URL)
    settings = load_settings()
    assert settings.redis_url.get_secret_value() == URL
    assert URL in settings.secrets()
    assert "sEcReT" not in repr(settings)


@pytest.mark.parametrize("url", ["redis://h", "rediss://h:1/0", "unix:///run/redis.sock"])
def test_urls_that_the_client_takes(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    assert load_settings().redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url", ["http://:sEcReT@h", "redis://", "unix://", "redis://:sEcReT@h:nine", "sEcReT"]
)
def test_any_other_stops_the_start_without_showing_it(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "REDIS_URL" in str(caught.value)
    assert "sEcReT" not in str(caught.value)


@pytest.mark.parametrize(("lease", "taken"), [("0.5", True), ("0.49", False), ("nan", False)])
def test_a_lease_is_half_a_second_at_least(monkeypatch, lease, taken):
    monkeypatch.setenv("LEASE_SECONDS", lease)
    if taken:
        assert load_settings().lease_seconds == 0.5
        return
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "LEASE_SECONDS" in str(caught.value)
