"""Reads the settings, and checks what no field can check alone: what several say together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from relay.configuration.environment import api_key, base_url
from relay.configuration.settings import Settings, env_of, variables
from relay.configuration.variables import SettingsError, provider_variable, refusal
from relay.core.addresses import is_loopback


def load_settings(env_file: Path | str | None = ".env") -> Settings:
    """Read the environment and, beneath it, `env_file`. Raises `SettingsError`."""
    try:
        settings = Settings(_env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(*_refusals(error)) from None
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{env_file} can't be read: {type(error).__name__}") from None
    lines = [*_contradictions(settings), *_provider_refusals(settings)]
    if lines:
        raise SettingsError(*lines)
    return settings


def _refusals(error: ValidationError) -> list[str]:
    known = variables()
    return [
        refusal(known[str(fault["loc"][0])], fault["input"], _reason(fault))
        for fault in error.errors(include_url=False)
    ]


def _reason(fault: Mapping[str, Any]) -> str:
    """What the grammar found; the library's own words only repeat what the variable takes."""
    return str(fault["ctx"]["error"]) if fault["type"] == "value_error" else ""


def _contradictions(settings: Settings) -> list[str]:
    known = variables()
    lines = []
    supported = set(settings.supported_providers)
    named = {n for pair in settings.provider_fallbacks.items() for n in (pair[0], *pair[1])}
    if strangers := sorted(named - supported):
        rules = settings.provider_fallbacks
        written = ";".join(f"{name}={','.join(others)}" for name, others in rules.items())
        reason = f"not in SUPPORTED_PROVIDERS: {', '.join(strangers)}"
        lines.append(refusal(known["PROVIDER_FALLBACKS"], written, reason))
    if "*" in settings.allowed_origins and not settings.relay_tokens:
        reason = "any website could spend your keys; it needs RELAY_TOKENS"
        lines.append(refusal(known["ALLOWED_ORIGINS"], "*", reason))
    closed = settings.relay_tokens or settings.relay_allow_anonymous
    if not closed and not is_loopback(settings.host):
        reason = "others could spend your keys; RELAY_ALLOW_ANONYMOUS=1 accepts that"
        lines.append(refusal(known["HOST"], settings.host, reason))
    return lines


def _provider_refusals(settings: Settings) -> list[str]:
    lines = []
    for provider, said in settings.providers.items():
        for suffix, parse in (("BASE_URL", base_url), ("API_KEY", api_key)):
            held = said.get(suffix)
            value = held.get_secret_value() if isinstance(held, SecretStr) else held
            try:
                parse(value or "http://unset")
            except ValueError as error:
                variable = provider_variable(f"{env_of(provider)}_{suffix}")
                lines.append(refusal(variable, value, str(error)))
    return lines
