"""The table of vendors. A new one is one folder and one row here.

A vendor's SDK takes up to a second and tens of megabytes to import, so a row names its module
instead of importing it: only configured vendors are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from relay.core.provider import Provider


@dataclass(frozen=True, slots=True)
class Vendor:
    """One row. `provider` is the name clients use; `env` begins the names of its variables
    (`{env}_API_KEY` …). `module` has a function `kind` that takes name, API key, base URL
    and Unix socket path, and returns a `Provider`. The models are the defaults for
    `{env}_MODEL_DEFAULT` and `{env}_MODEL_FALLBACKS`."""

    kind: str
    provider: str
    env: str
    module: str
    default_model: str
    fallback_models: tuple[str, ...]


VENDORS: tuple[Vendor, ...] = (
    Vendor(
        "openai",
        "gpt",
        "OPENAI",
        "relay.providers.openai.provider",
        "gpt-6-luna",
        ("gpt-6.1-terra",),
    ),
    Vendor(
        "anthropic",
        "claude",
        "ANTHROPIC",
        "relay.providers.anthropic.provider",
        "claude-sonnet-5-5",
        ("claude-haiku-5-5",),
    ),
    Vendor(
        "gemini",
        "gemini",
        "GEMINI",
        "relay.providers.gemini.provider",
        "gemini-3.8-flash",
        ("gemini-3.5-flash-lite",),
    ),
)

COMPATIBLE = "compatible"
"""The kind of every provider without a row: a server of OpenAI's chat.completions wire, configured
by environment variables alone."""

_MODULES = {vendor.kind: vendor.module for vendor in VENDORS} | {
    COMPATIBLE: "relay.providers.openai.provider"
}


def vendor_of(provider: str) -> Vendor | None:
    """The row of the provider that clients call `provider`; None for a compatible one."""
    return next((vendor for vendor in VENDORS if vendor.provider == provider), None)


def build(
    kind: str,
    *,
    name: str,
    api_key: str | None,
    base_url: str | None,
    uds: str | None = None,
    lean: bool = True,
) -> Provider:
    """Make a provider. `kind` is a row's or `COMPATIBLE`; `name` is what clients call it;
    `base_url` follows the SDK's convention (OpenAI's ends in `/v1`, the others' are bare),
    None for the vendor's own; `uds` is the path of a Unix socket to connect to instead of
    the URL's host; `lean` False sends every request through the SDK. Imports the SDK.

    Raises `ValueError` for an unknown kind, a vendor without its key, and a compatible
    server without its base URL.
    """
    if kind not in _MODULES:
        raise ValueError(f"{kind!r} is not a kind of provider; expected one of {sorted(_MODULES)}")
    if kind == COMPATIBLE and not base_url:
        raise ValueError(f"provider {name!r} needs a base URL")
    if kind != COMPATIBLE and not api_key:
        raise ValueError(f"provider {name!r} needs an API key")
    factory: Callable[..., Provider] = getattr(import_module(_MODULES[kind]), kind)
    return factory(name, api_key, base_url, uds, lean=lean)
