"""Builds one process: its parts, and the application that serves them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import SecretStr

from relay.access import guard as guarding
from relay.answering.dispatcher import AnswerSettings, Dispatcher, Lineup
from relay.answering.routing import Route
from relay.answering.timerwheel import TimerWheel
from relay.configuration.catalog import Catalog, ProviderConfig, choose_default, routes_of
from relay.configuration.routes import Routes
from relay.configuration.settings import Settings
from relay.configuration.variables import SettingsError
from relay.core.addresses import is_loopback
from relay.core.events import Target
from relay.core.provider import Provider
from relay.core.streamlog import StreamLog
from relay.edges import http
from relay.edges.delivery.http_body import HttpService
from relay.edges.delivery.outlet import Pace
from relay.edges.health import HealthEdge, ProcessPhase
from relay.edges.http_server import HttpRunner
from relay.edges.openai import chat as openai_chat
from relay.edges.page import page_routes
from relay.edges.relay_v1.service import SocketLimits
from relay.edges.relay_v1.sse import SseEdge
from relay.edges.relay_v1.websocket import WebSocketEdge
from relay.edges.schema import schema_routes
from relay.failover.breaker import Breakers
from relay.failover.hedging import HedgeBudget
from relay.observability import logs
from relay.observability.health import Health, HealthStatus
from relay.observability.metrics import CONTENT_TYPE, Metrics
from relay.observability.observers import ConnectionObserver, StreamObserver
from relay.protocol.actions import CloseCode
from relay.providers.local import EngineLike, LocalProvider
from relay.providers.registry import build
from relay.stores.memory import MemoryLimits, MemoryLog

if TYPE_CHECKING:
    from relay.stores.redis import RedisLog

SWEEP_SECONDS = 1.0
"""Seconds between two checks of graces and retention."""

SWITCHING_PROTOCOLS = 101

YOUNG_OBJECTS = 50_000
"""The garbage collector runs after so many new objects (a pause of a millisecond or two). An answer
leaves no cycles behind: its memory is freed when it ends. Cycles come from faults, whose tracebacks
hold frames, and can wait."""

YOUNG_LOOKS, OLD_LOOKS = 20, 100
"""So many runs before the collector goes through the next older generation too: the oldest may hold
ten thousand sessions, which takes long and finds nothing."""


class Relay:
    """One process of the relay: everything behind the listening socket.

    Enter it as an async context in a running loop, serve `application`, and await `drain`
    before leaving. Raises `SettingsError` where the configuration can't work.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, engine: EngineLike | None = None
    ) -> None:
        """`engine` is one that other processes share; None for one of its own."""
        self.settings = settings
        self.catalog = catalog
        self.routes = routes_of(settings, catalog)
        self.default = choose_default(settings, self.routes)
        self.providers = build_providers(catalog, engine)
        self.phase: ProcessPhase = "starting"
        self.breakers = Breakers(settings.breaker_cooldown, random.random)
        self.health = Health((name, config.model) for name, config in catalog.on.items())
        targets = [target for route in self.routes.on.values() for target in route.targets]
        self.metrics = Metrics(targets, self.routes.on, self._breaker_states)
        self.redis = None if settings.redis_url is None else redis_log(settings, settings.redis_url)
        self.log: StreamLog = self.redis or MemoryLog(memory_limits(settings), time.monotonic)
        self.wheel = TimerWheel(time.monotonic)
        self.dispatcher = self._make_dispatcher()
        self.guard = self._make_guard()
        self.sockets = self._make_websocket_edge()
        self.health_edge = self._make_health_edge()
        self.application = self._make_application()
        self._sweeper: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Relay:
        if self.redis is not None:
            await self._join_redis(self.redis)
        for provider in self.providers.values():
            if isinstance(provider, LocalProvider):
                provider.start()
        self._warming = asyncio.create_task(self._warm_up(), name="warm-up")
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="sweep")
        self.phase = "ready"
        _spare_the_collector()
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._sweeper is not None
        assert self._warming is not None
        self._sweeper.cancel()
        self._warming.cancel()
        await asyncio.wait([self._sweeper, self._warming])
        await self.health_edge.close()
        await self.log.close()
        for provider in self.providers.values():
            await provider.close()

    async def _join_redis(self, log: RedisLog) -> None:
        try:
            await log.start()
        except ConnectionError as error:
            await log.close()
            raise SettingsError(
                f"REDIS_URL names a Redis that {error}: start it, "
                "correct the URL, or leave it out to keep streams in this process"
            ) from None

    async def drain(self, seconds: float) -> None:
        """Refuse new work, let answers end within `seconds`, then close every connection."""
        self.phase = "draining"
        self.sockets.drain(min(seconds, 5.0))
        await self.dispatcher.drain(seconds)
        await self.sockets.close_all(CloseCode.RESTART)

    async def _warm_up(self) -> None:
        """Do beforehand what would slow down the first chats: learn what each SDK sends, and open
        one connection to each vendor. No request is sent."""
        for target in {target for route in self.routes.on.values() for target in route.targets}:
            await self.providers[target.provider].warm(target.model)

    async def _sweep_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SWEEP_SECONDS
            await asyncio.sleep(SWEEP_SECONDS)
            self.metrics.observe_loop_lag(max(0.0, loop.time() - due))
            self.dispatcher.sweep()
            self.log.sweep()

    # The parts

    def _make_dispatcher(self) -> Dispatcher:
        settings = self.settings
        return Dispatcher(
            Lineup(self.providers, default_first(self.routes, self.default), self.routes.off),
            self.log,
            settings=AnswerSettings(
                retry_after_max=settings.retry_after_max,
                max_attempts=settings.max_attempts,
                rescue=settings.rescue,
                continuation_prompt=settings.continuation_prompt,
                resume_grace=settings.resume_grace,
            ),
            breakers=self.breakers,
            hedges=HedgeBudget(settings.hedge_budget),
            observer=StreamObserver(self.health, self.metrics, time.time),
            clock=time.monotonic,
            wheel=self.wheel,
            status=self._route_status,
        )

    def _make_guard(self) -> guarding.Guard:
        return guarding.Guard(guard_options(self.settings))

    def _make_websocket_edge(self) -> WebSocketEdge:
        settings = self.settings
        return WebSocketEdge(
            self.log,
            self.dispatcher,
            SocketLimits(
                max_frame_bytes=settings.max_frame_bytes,
                max_streams_per_session=settings.max_streams_per_session,
                resume_window=settings.resume_window,
                heartbeat=settings.heartbeat,
                write_timeout=settings.write_timeout,
            ),
            wheel=self.wheel,
            authenticate=self.guard.authenticate,
            observer=ConnectionObserver(self.metrics, time.monotonic),
        )

    def _make_health_edge(self) -> HealthEdge:
        return HealthEdge(
            self.health,
            self.providers,
            self.catalog.off,
            breaker=self._breaker_of,
            phase=lambda: self.phase,
            clock=time.time,
            store=self._store_works,
        )

    def _make_application(self) -> web.Application:
        settings = self.settings
        service = HttpService(
            self.dispatcher,
            self.log,
            Pace(settings.heartbeat, settings.write_timeout),
            self.wheel,
            settings.max_frame_bytes,
        )
        application = web.Application(
            middlewares=[access_log, http.errors, guarding.middleware(self.guard)],
            client_max_size=settings.max_frame_bytes,
        )
        http.shape_errors(application, openai_chat.PREFIX, openai_chat.openai_shape)
        application.on_response_prepare.append(guarding.on_prepare(self.guard))
        application.add_routes(
            [
                web.get("/ws", self.sockets.handle, allow_head=False),
                *SseEdge(service).routes(),
                *self.health_edge.routes(),
                *openai_chat.OpenAIChatEdge(service).routes(),
                *schema_routes(),
                *page_routes(),
                web.get("/metrics", self._show_metrics),
            ]
        )
        return application

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self.metrics.render(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    # Links between the parts

    def _breaker_states(self) -> list[tuple[Target, str]]:
        now = time.monotonic()
        targets = {target for route in self.routes.on.values() for target in route.targets}
        return [(target, self.breakers.state(target, now).state) for target in targets]

    def _breaker_of(self, provider: str) -> str | None:
        config = self.catalog.on.get(provider)
        if config is None:
            return None
        return self.breakers.state(Target(provider, config.model), time.monotonic()).state

    def _store_works(self) -> bool:
        return self.redis is None or self.redis.healthy

    def _route_status(self, route: Route) -> HealthStatus:
        first = route.targets[0]
        return self.health.report(first.provider, self._breaker_of(first.provider)).status


def _spare_the_collector() -> None:
    """Exclude the present objects, which stay, from garbage collection, and run it seldom for new
    ones."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_LOOKS, OLD_LOOKS)


def build_providers(catalog: Catalog, engine: EngineLike | None = None) -> dict[str, Provider]:
    """The providers that are on, by name. Imports the SDKs that they need."""
    return {name: _provider(config, engine) for name, config in catalog.on.items()}


def _provider(config: ProviderConfig, engine: EngineLike | None) -> Provider:
    if config.kind == "local":
        return LocalProvider(engine)
    key = config.api_key.get_secret_value() if config.api_key else None
    return build(config.kind, name=config.name, api_key=key, base_url=config.base_url)


def default_first(routes: Routes, default: str | None) -> Mapping[str, Route]:
    """The routes on offer, the default one first."""
    if default is None:
        return routes.on
    return {default: routes.on[default], **routes.on}


def guard_options(settings: Settings) -> guarding.GuardOptions:
    """The guard's options, from the settings."""
    return guarding.GuardOptions(
        host=settings.host,
        allowed_origins=frozenset(settings.allowed_origins),
        tokens=settings.token_subjects(),
        allow_anonymous=settings.relay_allow_anonymous,
        trusted_proxies=settings.trusted_proxies,
    )


def redis_log(settings: Settings, url: SecretStr) -> RedisLog:
    """A log of streams in Redis. Raises `SettingsError` for a URL that the Redis client does not
    accept."""
    from relay.stores.redis import RedisLimits, RedisLog, redis_client  # a slow import

    try:
        client = redis_client(url.get_secret_value())
    except ValueError:
        raise SettingsError("REDIS_URL is not a URL that the Redis client accepts") from None
    limits = RedisLimits(
        resume_window=settings.resume_window,
        lease_seconds=settings.lease_seconds,
        max_streams_per_session=settings.max_streams_per_session,
    )
    return RedisLog(client, limits, time.monotonic)


def memory_limits(settings: Settings) -> MemoryLimits:
    """The memory log's limits, from the settings."""
    return MemoryLimits(
        resume_window=settings.resume_window,
        retained_bytes=settings.retained_bytes,
        max_streams_per_session=settings.max_streams_per_session,
    )


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One line for each HTTP request that ended; sockets have a line of their own."""
    began = time.monotonic()
    status = 499
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        if request.match_info.handler is not None and status != SWITCHING_PROTOCOLS:
            resource = request.match_info.route.resource
            route = resource.canonical if resource else "(no route)"
            client = request.get(guarding.ADDRESS) or "-"
            logs.log_request(request.method, route, status, time.monotonic() - began, client)


@contextlib.asynccontextmanager
async def listening(relay: Relay, shared_port: int | None = None) -> AsyncIterator[int]:
    """Serve a relay on its address; gives the port, which differs from the configured one where
    that is 0. `shared_port` is one that other processes listen on too. Raises `OSError` where the
    address can't be used, and `SettingsError` where a name that means this machine only resolves to
    an address that others can reach."""
    runner = HttpRunner(
        relay.application,
        handler_cancellation=False,
        keepalive_timeout=75.0,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    site = web.TCPSite(
        runner,
        relay.settings.host,
        shared_port or relay.settings.port,
        backlog=4096,
        reuse_port=True if shared_port else None,
    )
    try:
        await site.start()
        _check_reach(relay.settings.host, [str(address[0]) for address in runner.addresses])
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _check_reach(host: str, bound: Sequence[str]) -> None:
    """Refuse a name of this machine that resolved to an address others can reach."""
    beyond = [address for address in bound if not is_loopback(address)]
    if is_loopback(host) and beyond:
        raise SettingsError(
            f"HOST is {host!r}, which this machine resolves to {', '.join(beyond)}, "
            "where others can reach it: set HOST=127.0.0.1"
        )
