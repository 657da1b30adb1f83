"""Health over HTTP: `/health` for people, `/livez` and `/readyz` for orchestrators.

`/livez` and `/readyz` report on this process only. An outage of a vendor must not make an
orchestrator remove all nodes, so it is shown on `/health` and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from loguru import logger

from relay.core.errors import Code, Fault, RelayError
from relay.core.provider import Provider
from relay.edges.http import json_response
from relay.observability.health import Health, Report, overall

PROBE_WAIT = 2.0
"""Seconds that a request waits for probes; the results of slower ones appear in the next answer."""

PROBE_TIMEOUT = 10.0
"""Seconds after which a probe is cancelled and reported as `provider_timeout`."""

ProcessPhase = Literal["starting", "ready", "draining"]
"""The state of this process."""


class HealthEdge:
    """`/health`, `/health/{provider}`, `/livez` and `/readyz`.

    `off` gives the reason for each provider that is off. `breaker` returns a provider's circuit
    state (None: unknown), `phase` the process's state, `clock` seconds since the epoch, `store`
    whether the stream log can keep data. Call `close` at the end.
    """

    def __init__(
        self,
        health: Health,
        providers: Mapping[str, Provider],
        off: Mapping[str, str],
        *,
        breaker: Callable[[str], str | None],
        phase: Callable[[], ProcessPhase],
        clock: Callable[[], float],
        store: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._health = health
        self._providers = providers
        self._off = off
        self._breaker = breaker
        self._phase = phase
        self._clock = clock
        self._probes: dict[str, asyncio.Task[None]] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the application."""
        return [
            web.get("/health", self.all),
            web.get("/health/{provider}", self.one),
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
        ]

    async def close(self) -> None:
        """Cancel the running probes. Idempotent."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    async def all(self, request: web.Request) -> web.Response:
        """All providers; 503 if none could answer a chat."""
        await self._refresh(self._health.providers)
        reports = {name: self._report(name) for name in self._health.providers}
        status = overall(report.status for report in reports.values())
        phase = self._phase()
        shown = {name: _shown(report) for name, report in reports.items()}
        shown |= {name: _shown_off(reason) for name, reason in self._off.items()}
        serves = status != "down" and phase != "draining"
        store = "ok" if self._store() else "degraded"
        if store != "ok" and status in ("ok", "unknown"):
            status = "degraded"
        body = {"status": status, "phase": phase, "store": store, "providers": shown}
        return json_response(body, 200 if serves else 503)

    async def one(self, request: web.Request) -> web.Response:
        """One provider; 503 if it is down or off. Raises `RelayError(UNKNOWN_PROVIDER)`."""
        name = request.match_info["provider"]
        if name in self._off:
            return json_response({"provider": name} | _shown_off(self._off[name]), 503)
        if name not in self._health.providers:
            known = ", ".join([*self._health.providers, *self._off])
            raise RelayError(Code.UNKNOWN_PROVIDER, f"provider: there is only {known or 'none'}")
        await self._refresh([name])
        report = self._report(name)
        body = {"provider": name} | _shown(report)
        return json_response(body, 503 if report.status == "down" else 200)

    async def live(self, request: web.Request) -> web.Response:
        """Answers 200: the event loop is running."""
        return json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """Whether this process takes new chats."""
        phase = self._phase()
        return json_response({"status": phase}, 200 if phase == "ready" else 503)

    def _report(self, name: str) -> Report:
        return self._health.report(name, self._breaker(name))

    async def _refresh(self, names: Iterable[str]) -> None:
        """Start the probes that are not up to date; requests at the same time share one probe."""
        names = list(names)
        for name in names:
            if name not in self._probes and self._health.due_for_probe(name, self._clock()):
                self._health.probing(name, self._clock())
                self._probes[name] = asyncio.create_task(self._probe(name), name=f"probe {name}")
        if waiting := [self._probes[name] for name in names if name in self._probes]:
            await asyncio.wait(waiting, timeout=PROBE_WAIT)

    async def _probe(self, name: str) -> None:
        started = asyncio.get_running_loop().time()
        try:
            code = await self._outcome(name)
        finally:
            del self._probes[name]
        ms = round((asyncio.get_running_loop().time() - started) * 1000)
        self._health.probed(name, code, ms, self._clock())

    async def _outcome(self, name: str) -> str | None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._providers[name].probe()
        except Fault as fault:
            return fault.code
        except TimeoutError:
            return Code.PROVIDER_TIMEOUT
        except Exception:
            logger.exception("unexpected error in the probe of {}", name)
            return Code.INTERNAL
        return None


def _shown(report: Report) -> dict[str, Any]:
    return {
        "status": report.status,
        "model": report.model,
        "last_success": _moment(report.last_success),
        "last_error": report.last_error,
        "last_error_at": _moment(report.last_error_at),
        "latency_ms": report.latency_ms,
        "source": report.source,
    }


def _shown_off(reason: str) -> dict[str, Any]:
    return {"status": "off", "reason": reason}


def _moment(seconds: float | None) -> str | None:
    """RFC 3339, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
