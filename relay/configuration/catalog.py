"""Works out from the settings which providers and routes are on, and which are off and why.

Pure but for `stray_variables`, which looks at the environment's names, and `read_routes`, which
reads `ROUTES_FILE`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values
from pydantic import SecretStr

from relay.configuration.environment import PROVIDER_SUFFIXES, base_url, comma_list, misspelt
from relay.configuration.routes import Routes, RoutesError, Rules, build_routes
from relay.configuration.settings import Settings, env_of, variables
from relay.configuration.variables import SettingsError, refusal
from relay.providers.registry import COMPATIBLE, Vendor, vendor_of


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """All that a provider's constructor needs. `models` holds the default first.

    `kind` is one of `relay.providers.registry`, or `local`. `env` is what its variables
    begin with (`OPENAI`); empty for `local`. `base_url` None means the vendor's own address.
    """

    name: str
    kind: str
    models: tuple[str, ...]
    env: str = ""
    api_key: SecretStr | None = None
    base_url: str | None = None

    @property
    def model(self) -> str:
        """The default model."""
        return self.models[0]


class Catalog(NamedTuple):
    """Providers in the operator's order: those that are on, and for each other why it is off."""

    on: Mapping[str, ProviderConfig]
    off: Mapping[str, str]


def providers_on(settings: Settings, *, local_model: str, local_off: str | None = None) -> Catalog:
    """Whether each name of `SUPPORTED_PROVIDERS` is on, or off and why. `local_off` says why the
    embedded model can't run on this machine, where it can't."""
    on: dict[str, ProviderConfig] = {}
    off: dict[str, str] = {}
    for name in settings.supported_providers:
        if name == "local":
            found: ProviderConfig | str = local_off or ProviderConfig(name, "local", (local_model,))
        else:
            found = _cloud(name, settings.providers[name])
        if isinstance(found, str):
            off[name] = found
        else:
            on[name] = found
    return Catalog(on, off)


def _cloud(name: str, said: Mapping[str, str | SecretStr]) -> ProviderConfig | str:
    """A vendor's provider needs its key. An OpenAI-compatible one needs URL and model; its key is
    optional, because self-hosted servers often need none."""
    vendor, env = vendor_of(name), env_of(name)
    for needed in ("API_KEY",) if vendor else ("BASE_URL", "MODEL_DEFAULT"):
        if needed not in said:
            return f"no {env}_{needed}"
    key = said.get("API_KEY")
    return ProviderConfig(
        name,
        vendor.kind if vendor else COMPATIBLE,
        _models(said, vendor),
        env,
        key if isinstance(key, SecretStr) else None,
        base_url(str(said["BASE_URL"])) if "BASE_URL" in said else None,
    )


def _models(said: Mapping[str, str | SecretStr], vendor: Vendor | None) -> tuple[str, ...]:
    """The default model and its fallbacks. A vendor's built-in fallbacks apply only where the
    operator named neither."""
    default = str(said.get("MODEL_DEFAULT") or (vendor.default_model if vendor else ""))
    if "MODEL_FALLBACKS" in said:
        fallbacks = comma_list(str(said["MODEL_FALLBACKS"]))
    else:
        fallbacks = vendor.fallback_models if vendor and "MODEL_DEFAULT" not in said else ()
    return tuple(dict.fromkeys((default, *fallbacks)))


def routes_of(settings: Settings, catalog: Catalog) -> Routes:
    """Every route on offer. Raises `SettingsError` where `ROUTES_FILE` can't be used."""
    models = {name: config.models for name, config in catalog.on.items()}
    try:
        return build_routes(
            models,
            catalog.off,
            settings.provider_fallbacks,
            rules_of(settings),
            read_routes(settings.routes_file),
            str(settings.routes_file),
        )
    except RoutesError as error:
        raise SettingsError(str(error)) from None


def rules_of(settings: Settings) -> Rules:
    """The rules of a route that sets none itself."""
    return Rules(
        first_token_timeout=settings.first_token_timeout,
        token_idle_timeout=settings.token_idle_timeout,
        hedge_after=settings.hedge_after,
        max_output_tokens=settings.max_output_tokens,
    )


def read_routes(path: Path | None) -> str:
    """The text of `ROUTES_FILE`; empty where there is none. Raises `SettingsError`."""
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(refusal(variables()["ROUTES_FILE"], str(path), reason)) from None


def choose_default(settings: Settings, routes: Routes) -> str | None:
    """The provider of a chat that names none; None where nothing is on.

    Raises `SettingsError` where `DEFAULT_PROVIDER` is off or unknown.
    """
    wanted = settings.default_provider
    if wanted is None:
        return next((name for name in routes.on if name != "local"), next(iter(routes.on), None))
    if wanted in routes.on:
        return wanted
    reason = f"it is off: {routes.off[wanted]}" if wanted in routes.off else "no such name"
    raise SettingsError(refusal(variables()["DEFAULT_PROVIDER"], wanted, reason))


_OURS = ("RELAY_", "RATE_LIMIT_")
"""Prefixes of environment variables that only a relay uses."""


def stray_variables(settings: Settings, env_file: Path | str | None = ".env") -> list[str]:
    """A sentence for each variable that seems meant for the relay but is not used."""
    known = set(variables())
    for provider in settings.providers:
        known |= {f"{env_of(provider)}_{end}" for end in PROVIDER_SUFFIXES}
    written = set(dotenv_values(env_file)) if env_file and Path(env_file).is_file() else set()
    close = misspelt(sorted({*os.environ, *written}), known)
    unread = sorted((written | {n for n in os.environ if n.startswith(_OURS)}) - known)
    lines = [f"{name} is not used; did you mean {like}?" for name, like in close.items()]
    lines += [f"{name} is not used" for name in unread if name not in close]
    if "GOOGLE_API_KEY" in os.environ and not settings.providers.get("gemini"):
        lines.append("GOOGLE_API_KEY is not used; did you mean GEMINI_API_KEY?")
    return lines
