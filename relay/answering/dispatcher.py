"""Starts streams and looks after the running ones until they end."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from relay.answering.continuation import call_of
from relay.answering.driver import AnswerObserver, AttemptCall, Driver
from relay.answering.routing import Route, apply_route
from relay.answering.timerwheel import TimerWheel
from relay.core.errors import Code, RelayError, StreamExpired
from relay.core.events import EndedAttempt, Failed, Start, Target
from relay.core.provider import Form, Provider, UpstreamCall
from relay.core.records import shown
from relay.core.request import ChatRequest, estimate_input_characters
from relay.core.streamlog import Existing, Orphan, Spec, StreamLog, Writer
from relay.failover.breaker import Breakers
from relay.failover.hedging import HedgeBudget
from relay.failover.inherited import Inherited, inherited_from
from relay.failover.plan import Launch, Plan, Rescue
from relay.failover.policy import Failover
from relay.observability.health import HealthStatus

DRAIN_RETRY_AFTER = 1.0
"""Seconds after which a chat refused for draining may be sent to another process."""

NOT_KEPT = ChatRequest("", ())
"""The request of an orphan whose own request was not kept."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider or route as a client may choose it. `model` is the first target's."""

    name: str
    model: str
    status: HealthStatus


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """The rules for every answer, whatever its route. Times are in seconds."""

    retry_after_max: float
    max_attempts: int
    rescue: Rescue
    continuation_prompt: str
    resume_grace: float


@dataclass(frozen=True, slots=True)
class Lineup:
    """Providers by name, routes by name with the default first, and `off`: for each configured name
    that is off, the reason."""

    providers: Mapping[str, Provider]
    routes: Mapping[str, Route]
    off: Mapping[str, str] = field(default_factory=dict)

    @property
    def default(self) -> str:
        """The route of a chat that names none; empty where there is none at all."""
        return next(iter(self.routes), "")

    def route(self, name: str) -> Route:
        """The route of that name. Raises `RelayError(UNKNOWN_PROVIDER)`, which says why."""
        found = self.routes.get(name or self.default)
        if found is None:
            raise RelayError(Code.UNKNOWN_PROVIDER, self._why_not(name))
        return found

    def _why_not(self, name: str) -> str:
        if name in self.off:
            return f"provider: {name} is off: {self.off[name]}"
        if not self.routes:
            return "provider: no provider is on"
        return f"provider: {name[:64]!r} is unknown; known are {', '.join(self.routes)}"


class Dispatcher:
    """Owns every running stream; they outlive the sockets that asked for them.

    `wheel` keeps their deadlines and uses the same clock; None makes a new one. Call `sweep` about
    once a second, and `drain` before the process ends.
    """

    def __init__(
        self,
        lineup: Lineup,
        log: StreamLog,
        *,
        settings: AnswerSettings,
        breakers: Breakers,
        hedges: HedgeBudget,
        observer: AnswerObserver,
        clock: Callable[[], float],
        wheel: TimerWheel | None = None,
        status: Callable[[Route], HealthStatus] = lambda route: "unknown",
    ) -> None:
        self._lineup = lineup
        self._log = log
        self._settings = settings
        self._breakers = breakers
        self._hedges = hedges
        self._observer = observer
        self._clock = clock
        self._status = status
        self._running: dict[str, Driver] = {}
        self._openers = {
            route.name: partial(self._open_call, route.max_output_tokens)
            for route in lineup.routes.values()
        }
        self._forms = {
            route.name: {target: self._forms_of(target) for target in route.targets}
            for route in lineup.routes.values()
        }
        self._wheel = wheel or TimerWheel(clock)
        self._idle = asyncio.Event()  # set by the last stream that ends while draining
        self.draining = False
        log.on_orphan(self.adopt)

    @property
    def running(self) -> int:
        """How many streams have no terminal record yet."""
        return len(self._running)

    def offers(self) -> list[Offer]:
        """What a client may ask for, the default first."""
        return [
            Offer(route.name, route.targets[0].model, self._status(route))
            for route in self._lineup.routes.values()
        ]

    async def start(
        self,
        request: ChatRequest,
        *,
        session: str,
        id: str,
        subject: str | None,
        grace: float | None = None,
    ) -> str:
        """Start a stream, or find the one that (session, id) names already; returns its
        name, to be given to `StreamLog.attach`. The `start` record is in the log then.
        `request.provider` may be empty for the default. `grace` in seconds, None for the
        configured one.

        Raises `RelayError`: UNKNOWN_PROVIDER (the message says why it is off),
        BAD_REQUEST, TOO_MANY_STREAMS, DRAINING, STREAM_EXPIRED.
        """
        if self.draining:
            return await self._find_only(session, id)
        route = self._lineup.route(request.provider)
        asked = apply_route(request, route)
        kept = self._settings.resume_grace if grace is None else grace
        spec = Spec(os.urandom(16).hex(), session, id, subject, asked, kept)
        claim = await self._log.create(spec)
        if isinstance(claim, Existing):
            return claim.stream
        self._drive(claim.writer, spec, route).begin()
        try:
            await asyncio.sleep(0)  # the request to the vendor leaves now; the rest can wait
        finally:
            self._observer.started(spec.stream, route.name, spec.request, taken_over=False)
        return spec.stream

    async def _find_only(self, session: str, id: str) -> str:
        try:
            return await self._log.find(session, id)
        except StreamExpired:
            raise RelayError(
                Code.DRAINING,
                "this server is shutting down; send the chat again on a new connection",
                retryable=True,
                retry_after=DRAIN_RETRY_AFTER,
            ) from None

    def _drive(self, writer: Writer, spec: Spec, route: Route) -> Driver:
        failover = Failover(
            self._plan(spec, route), self._breakers, self._hedges, random.random, writer.chunks
        )
        driver = Driver(
            failover,
            writer,
            route=route.name,
            grace=spec.grace,
            request=spec.request,
            open_call=self._openers[route.name],
            clock=self._clock,
            wheel=self._wheel,
            observer=self._observer,
            ended=self._on_ended,
        )
        self._running[writer.stream] = driver
        return driver

    def _open_call(
        self, max_tokens: int, request: ChatRequest, launch: Launch, attempt: AttemptCall
    ) -> UpstreamCall:
        call = call_of(request, launch, max_tokens, self._settings.continuation_prompt)
        return self._lineup.providers[launch.target.provider].begin(call, attempt)

    def _forms_of(self, target: Target) -> tuple[Form, ...]:
        return self._lineup.providers[target.provider].forms(target.model)

    def _plan(self, spec: Spec, route: Route) -> Plan:
        request = spec.request
        return Plan(
            stream=spec.stream,
            targets=route.targets,
            forms=self._forms[route.name],
            first_token_timeout=route.first_token_timeout,
            token_idle_timeout=route.token_idle_timeout,
            hedge_after=route.hedge_after,
            retry_after_max=self._settings.retry_after_max,
            max_attempts=self._settings.max_attempts,
            rescue=self._settings.rescue,
            fallback=request.fallback,
            can_unsay=request.can_unsay,
            input_characters=estimate_input_characters(request),
        )

    def _on_ended(self, driver: Driver) -> None:
        del self._running[driver.writer.stream]
        if self.draining and not self._running:
            self._idle.set()

    def adopt(self, orphan: Orphan) -> None:
        """Finish a stream whose owner died; give this to `StreamLog.on_orphan`."""
        request = orphan.spec.request if orphan.spec else NOT_KEPT
        inherited = inherited_from(
            orphan.chunks, orphan.account, orphan.accepted, orphan.last_sign_ms
        )
        stream = orphan.writer.stream
        self._observer.started(stream, request.provider, request, taken_over=True)
        route = self._lineup.routes.get(request.provider)
        if orphan.spec is None or route is None:
            self._end_untaken(orphan, request, inherited)
            return
        driver = self._drive(orphan.writer, orphan.spec, route)
        driver.inherit(inherited)
        if orphan.cancelled:
            driver.cancel()
        elif orphan.late:
            driver.abandon()
        else:
            driver.begin()

    def _end_untaken(self, orphan: Orphan, request: ChatRequest, inherited: Inherited) -> None:
        """End an answer that this node can't go on with."""
        stream = orphan.writer.stream
        cut_short = inherited.cut_short(estimate_input_characters(request))
        for attempt in cut_short:
            self._observer.attempt_ended(stream, attempt)
        end = self._not_takeable([*inherited.attempts, *cut_short])
        orphan.writer.append([*self._missing_start(orphan, request), end])
        self._observer.ended(stream, request.provider, end, lambda: shown(orphan.writer.chunks()))

    def _missing_start(self, orphan: Orphan, request: ChatRequest) -> list[Start]:
        """The record 0 of a stream whose owner died before it was written."""
        if orphan.chunks:
            return []
        return [Start(orphan.writer.stream, request.provider or self._lineup.default, "")]

    def _not_takeable(self, attempts: list[EndedAttempt]) -> Failed:
        return Failed(
            Code.PROVIDER_INTERRUPTED,
            "the node that wrote this answer died and no other can finish it; send the chat again",
            retryable=True,
            attempts=attempts,
        )

    def sweep(self) -> None:
        """Abandon the streams that had no reader for their grace."""
        now = self._clock()
        for driver in list(self._running.values()):
            unread_since = driver.writer.unread_since
            if unread_since is not None and now - unread_since >= driver.grace:
                driver.abandon()

    async def drain(self, seconds: float) -> None:
        """Refuse new chats, give the running ones `seconds` to end, then hand those left to another
        node, or end them with a `draining` error where no other node can take them. Every upstream
        call is closed then; `Provider.close` waits for those that take a moment."""
        self.draining = True
        self._log.on_orphan(None)
        try:
            async with asyncio.timeout(seconds):
                if self._running:
                    await self._idle.wait()
        except TimeoutError:
            for driver in list(self._running.values()):
                await self._leave(driver)

    async def _leave(self, driver: Driver) -> None:
        driver.writer.on_lost(driver.leave)
        try:
            handed_over = await self._log.hand_over(driver.writer)
        except RelayError:
            handed_over = False
        if not handed_over and not driver.finished:
            driver.stop(Code.DRAINING, "the server shut down; send the chat again")
