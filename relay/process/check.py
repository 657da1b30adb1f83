"""`relay check`: is the configuration good, and does each provider answer?

Asks each provider for its list of models, which costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from relay.configuration.catalog import Catalog, ProviderConfig
from relay.configuration.deprecations import deprecation_warnings
from relay.core.errors import Code, Fault
from relay.core.provider import Provider
from relay.core.redaction import hide_shapes
from relay.observability.loglines import one_line

PROBE_TIMEOUT = 15.0
"""Seconds that one provider has to answer; the embedded model may have to load first."""

_REMEDIES = {
    Code.PROVIDER_AUTH: "check {key}",
    Code.PROVIDER_RATE_LIMITED: "the key works but is limited; wait, or raise the limit",
    Code.PROVIDER_OVERLOADED: "the provider is overloaded; try again later",
    Code.PROVIDER_TIMEOUT: "it does not answer; check the network and {url}",
    Code.PROVIDER_INTERRUPTED: "it can't be reached; check the network and {url}",
    Code.PROVIDER_ERROR: "it answers with an error; check {url}",
}


async def check(
    catalog: Catalog,
    providers: Mapping[str, Provider],
    *,
    warnings: Sequence[str] = (),
    write: Callable[[str], object] = print,
    within: float = PROBE_TIMEOUT,
) -> int:
    """Probe every provider that is on, all at once, and write one line for each.

    `providers` holds one for every name of `catalog.on`; each has `within` seconds, and the caller
    closes them. Returns the exit status: 0 where at least one is on and each that is on answered,
    else 1.
    """
    models = [model for config in catalog.on.values() for model in config.models]
    for warning in (*warnings, *deprecation_warnings(models)):
        write(f"warning: {one_line(warning)}")
    names = list(catalog.on)
    verdicts = await asyncio.gather(
        *(_probed(catalog.on[name], providers[name], within) for name in names)
    )
    for _, line in verdicts:
        write(line)
    for name, reason in catalog.off.items():
        write(f"{name}: off, {one_line(reason)}")
    if not names:
        write("no provider is on: set a key, or install the embedded model")
    return 0 if names and all(good for good, _ in verdicts) else 1


async def _probed(config: ProviderConfig, provider: Provider, within: float) -> tuple[bool, str]:
    began = perf_counter()
    try:
        async with asyncio.timeout(within):
            await provider.probe()
    except Fault as fault:
        return False, _failed(config, fault.code, fault.message)
    except TimeoutError:
        return False, _failed(config, Code.PROVIDER_TIMEOUT, f"no answer within {within:g} s")
    except Exception as error:  # one provider's defect must not hide the others' lines
        return False, _failed(config, Code.INTERNAL, type(error).__name__)
    milliseconds = round((perf_counter() - began) * 1e3)
    return True, f"{config.name}: ok, {', '.join(config.models)}, answered in {milliseconds} ms"


def _failed(config: ProviderConfig, code: Code, message: str) -> str:
    advice = _REMEDIES.get(code, "see the message").format(
        key=f"{config.env}_API_KEY" if config.env else "the engine",
        url=f"{config.env}_BASE_URL" if config.env else "the engine",
    )
    return one_line(hide_shapes(f"{config.name}: failed, {code}: {message}; {advice}"))
