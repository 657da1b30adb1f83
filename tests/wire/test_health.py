"""Health over HTTP: true, cheap, and never a reason to empty a fleet."""

import asyncio
import json

import pytest
from aiohttp import web

from lab.waiting import until
from relay.core.errors import Code, Fault
from relay.edges import health as edge_module
from relay.edges import http
from relay.edges.health import HealthEdge, ProcessPhase
from relay.observability.health import Health
from tests.wire.http_relay import RawClient, listening

T = 1_700_000_000.0


class Probed:
    """A provider of which only the probe is used."""

    def __init__(self, name):
        self.name = name
        self.probes = 0
        self.fault = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def probe(self):
        self.probes += 1
        await self.gate.wait()
        if self.fault:
            raise self.fault


class Served:
    """The edge on a socket, with everything it depends on in hand."""

    def __init__(self, names=("gpt", "claude"), off=None):
        self.now = T
        self.phase: ProcessPhase = "ready"
        self.breakers = {}
        self.providers = {name: Probed(name) for name in names}
        self.health = Health([(name, f"{name}-model") for name in names])
        self.edge = HealthEdge(
            self.health,
            self.providers,
            off or {},
            breaker=self.breakers.get,
            phase=lambda: self.phase,
            clock=lambda: self.now,
        )

    async def __aenter__(self):
        app = web.Application(middlewares=[http.errors])
        app.add_routes(self.edge.routes())
        self.listening = listening(app)
        self.port = await self.listening.__aenter__()
        return self

    async def __aexit__(self, *failure):
        await self.edge.close()
        await self.listening.__aexit__(*failure)

    async def get(self, path, method="GET"):
        sender = await RawClient.connect(self.port)
        try:
            body = await sender.ask(method, path)
        finally:
            sender.close()
        return sender.status, json.loads(body)


@pytest.fixture
async def served():
    async with Served(off={"gemini": "GEMINI_API_KEY is not set"}) as made:
        yield made


async def test_it_shows_what_is_known_of_each_provider(served):
    served.providers["claude"].fault = Fault(Code.PROVIDER_AUTH, "the key was refused")
    served.health.attempt("gpt", "gpt-served", "ok", 321, T)
    status, body = await served.get("/health")
    assert status == 200
    assert (body["status"], body["phase"]) == ("ok", "ready")
    assert body["providers"]["gpt"] == {
        "status": "ok",
        "model": "gpt-served",
        "last_success": "2023-11-14T22:13:20.000+00:00",
        "last_error": None,
        "last_error_at": None,
        "latency_ms": 321,
        "source": "traffic",
    }
    claude = body["providers"]["claude"]
    assert (claude["status"], claude["last_error"]) == ("down", "provider_auth")
    assert claude["source"] == "probe"
    assert body["providers"]["gemini"] == {"status": "off", "reason": "GEMINI_API_KEY is not set"}


async def test_it_probes_what_traffic_is_silent_about_once_a_minute(served):
    gpt, claude = served.providers["gpt"], served.providers["claude"]
    served.health.attempt("gpt", "m", "ok", 1, T)
    for _ in range(3):
        await served.get("/health")
    assert (gpt.probes, claude.probes) == (0, 1)
    served.now += 59.9
    await served.get("/health")
    assert (gpt.probes, claude.probes) == (0, 1)
    served.now += 0.1
    await served.get("/health")
    assert (gpt.probes, claude.probes) == (1, 2)


async def test_requests_at_the_same_time_share_one_probe(served):
    gpt = served.providers["gpt"]
    gpt.gate.clear()
    asking = [asyncio.create_task(served.get("/health/gpt")) for _ in range(5)]
    await until(lambda: gpt.probes == 1)
    gpt.gate.set()
    assert {status for status, _ in await asyncio.gather(*asking)} == {200}
    assert gpt.probes == 1


async def test_a_slow_probe_does_not_hold_the_answer_up(served, monkeypatch):
    monkeypatch.setattr(edge_module, "PROBE_WAIT", 0.01)
    gpt = served.providers["gpt"]
    gpt.gate.clear()
    status, body = await served.get("/health/gpt")
    assert (status, body["status"]) == (200, "unknown")
    gpt.gate.set()
    await until(lambda: served.health.report("gpt").status == "ok")


async def test_a_probe_that_never_comes_back_is_given_up(served, monkeypatch):
    monkeypatch.setattr(edge_module, "PROBE_TIMEOUT", 0.01)
    served.providers["gpt"].gate.clear()
    _, body = await served.get("/health/gpt")
    assert (body["status"], body["last_error"]) == ("degraded", "provider_timeout")


async def test_a_probe_that_fails_unforeseen_is_a_failure_and_no_500(served):
    served.providers["gpt"].fault = KeyError("sk-secret")
    status, body = await served.get("/health/gpt")
    assert (status, body["last_error"]) == (200, "internal")


async def test_one_provider_alone_and_only_it_is_probed(served):
    status, body = await served.get("/health/gpt")
    assert (status, body["provider"], body["status"]) == (200, "gpt", "ok")
    assert served.providers["claude"].probes == 0


async def test_one_that_is_down_or_off_is_503_and_an_unknown_one_404(served):
    served.breakers["gpt"] = "open"
    assert (await served.get("/health/gpt"))[0] == 503
    status, body = await served.get("/health/gemini")
    assert (status, body["reason"]) == (503, "GEMINI_API_KEY is not set")
    status, body = await served.get("/health/nobody")
    assert (status, body["error"]["code"]) == (404, "unknown_provider")


async def test_503_where_nothing_can_serve(served):
    served.breakers |= {"gpt": "open", "claude": "open"}
    status, body = await served.get("/health")
    assert (status, body["status"]) == (503, "down")


async def test_503_where_no_provider_is_on():
    async with Served(names=(), off={"gpt": "no key"}) as served:
        assert (await served.get("/health"))[0] == 503


async def test_503_while_draining(served):
    served.phase = "draining"
    status, body = await served.get("/health")
    assert (status, body["phase"]) == (503, "draining")


@pytest.mark.parametrize(
    ("phase", "status"), [("starting", 503), ("ready", 200), ("draining", 503)]
)
async def test_readyz_speaks_of_this_process_only(served, phase, status):
    served.breakers |= {"gpt": "open", "claude": "open"}
    served.phase = phase
    assert await served.get("/readyz") == (status, {"status": phase})
    assert (await served.get("/livez"))[0] == 200
    assert [provider.probes for provider in served.providers.values()] == [0, 0]


async def test_close_stops_probes_under_way(served):
    served.providers["gpt"].gate.clear()
    asking = asyncio.create_task(served.get("/health/gpt"))
    await until(lambda: served.providers["gpt"].probes == 1)
    await served.edge.close()
    assert (await asking)[0] == 200
