"""Runs one process: start, greet, serve, drain, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from loguru import logger

from relay.configuration.catalog import (
    Catalog,
    choose_default,
    providers_on,
    routes_of,
    stray_variables,
)
from relay.configuration.deprecations import deprecation_warnings
from relay.configuration.load import load_settings
from relay.configuration.settings import NO_FILES, Settings
from relay.core.events import Target
from relay.engine.model import INSTALL, MODEL_NAME, unavailable
from relay.engine.process import EngineEndpoint
from relay.observability import logs
from relay.process import check, compiled
from relay.process.app import Relay, build_providers, listening
from relay.process.workers import SharedEngine, Work, Workers, watch_parent
from relay.providers.local import EngineLike

BAD_CONFIGURATION = 2
"""The exit status of a start that the configuration stopped."""

CANT_LISTEN = 3
"""The exit status of a start without an address to listen on."""


ALONE = (
    "WORKERS without REDIS_URL: a client that reconnects may reach a worker that does not know "
    "its session, and then gets stream_expired"
)


CONTENT_LOGGED = "LOG_CONTENT is on: the text of chats and answers goes to the logs"


def catalog_of(settings: Settings) -> Catalog:
    """The providers that these settings turn on or off on this machine."""
    wanted = "local" in settings.supported_providers
    off = unavailable() if wanted else None
    return providers_on(settings, local_model=MODEL_NAME, local_off=off)


def run_check(settings: Settings) -> int:
    """Test the configuration and each provider; returns the exit status."""
    catalog = catalog_of(settings)
    routes = routes_of(settings, catalog)
    choose_default(settings, routes)
    warnings = [*stray_variables(settings), *routes.warnings]
    return asyncio.run(_check(catalog, warnings))


async def _check(catalog: Catalog, warnings: Sequence[str]) -> int:
    providers = build_providers(catalog)
    try:
        return await check.check(catalog, providers, warnings=warnings)
    finally:
        for provider in providers.values():
            await provider.close()


def run(settings: Settings, work: Work) -> int:
    """Serve until a signal comes; returns the exit status. `work` is what each of several
    processes runs; it ends in `serve_worker`. Raises `SettingsError`."""
    if settings.workers > 1:
        return _run_workers(settings, work)
    configure_logging(settings)
    return _run(_serve(settings))


def _run(serving: Coroutine[Any, Any, int]) -> int:
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(serving)
    finally:
        logs.close_logging()


def _run_workers(settings: Settings, work: Work) -> int:
    configure_logging(settings)
    catalog = catalog_of(settings)
    workers = Workers(
        settings.workers,
        work,
        host=settings.host,
        port=settings.port,
        engine="local" in catalog.on,
    )
    try:
        return _run(workers.run())
    except OSError as error:
        return cant_listen(settings, error)


def serve_worker(
    number: int, port: int, endpoint: EngineEndpoint | None, parent: Connection
) -> int:
    """One of several processes on `port`. Only the first one prints the greeting. Each has its own
    folder of log files, because only one process may rotate a file."""
    settings = load_settings()
    configure_logging(settings, folder=f"worker-{number}")
    engine = SharedEngine(endpoint) if endpoint else None
    listen = partial(watch_parent, parent)
    return _run(_serve(settings, port, engine, listen=listen, greets=number == 1))


def configure_logging(settings: Settings, folder: str = "") -> None:
    """Set up logging from the settings, with the files in `folder` of the log directory."""
    logs.configure_logging(
        directory=None if settings.log_dir == NO_FILES else Path(settings.log_dir) / folder,
        level=settings.log_level,
        format=settings.log_format,
        content=settings.log_content,
        secrets=settings.secrets(),
    )


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it runs, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


async def _serve(
    settings: Settings,
    shared_port: int | None = None,
    engine: EngineLike | None = None,
    *,
    listen: Callable[[Callable[[], None]], None] | None = None,
    greets: bool = True,
) -> int:
    began = time.monotonic()
    relay = Relay(settings, catalog_of(settings), engine)
    stopping = asyncio.Event()
    (listen or _listen_for_signals)(_stop(stopping))
    try:
        async with relay, listening(relay, shared_port) as port:
            if greets:
                _greet(settings, greeting(relay, port))
                _tell_outdated()
            logger.debug("listening after {:.2f} s", time.monotonic() - began)
            await stopping.wait()
            await _drain(relay)
    except OSError as error:
        if relay.phase != "ready":
            raise
        return cant_listen(settings, error)
    logger.info("stopped")
    return 0


def cant_listen(settings: Settings, error: OSError) -> int:
    """Log why the address can't be used; returns the exit status."""
    where = f"{settings.host}:{settings.port}"
    if error.errno is None or isinstance(error, socket.gaierror):  # numbers of the resolver
        reason = error.strerror or str(error)
    else:
        reason = os.strerror(error.errno)
    logger.error("can't listen on {}: {}; choose another PORT or HOST", where, reason)
    return CANT_LISTEN


def _greet(settings: Settings, lines: Sequence[str]) -> None:
    """Print the lines, or log them where the log format is JSON."""
    if settings.log_format == "json":
        for line in lines:
            logger.info(line)
        return
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    logger.debug("started, {}: {}", compiled.state, "; ".join(lines))


def _tell_outdated() -> None:
    if compiled.state == "outdated":
        logger.warning(
            "the compiled modules do not match the sources, so the slower plain ones run: "
            "run make compile"
        )


async def _drain(relay: Relay) -> None:
    seconds = relay.settings.drain_timeout
    if running := relay.dispatcher.running:
        logger.info(
            "stopping: {} answers may take {:g} s to end; stop again to end at once",
            running,
            seconds,
        )
    await relay.drain(seconds)


def _stop(stopping: asyncio.Event) -> Callable[[], None]:
    """A function that at its first call asks for an orderly stop, and at its second ends the
    process."""

    def stop() -> None:
        if stopping.is_set():
            sys.stderr.write("stopped at once\n")
            sys.stderr.flush()
            os._exit(1)
        stopping.set()

    return stop


def _listen_for_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows has no signals in its loops
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


def greeting(relay: Relay, port: int) -> list[str]:
    """The few lines that a start prints: where to connect, which providers are on, and which are
    off."""
    host = relay.settings.host
    shown = f"[{host}]" if ":" in host else host
    lines = [
        f"chat page   http://{shown}:{port}/",
        f"WebSocket   ws://{shown}:{port}/ws",
    ]
    for name, route in relay.routes.on.items():
        models = ", then ".join(_named(target, route.targets[0]) for target in route.targets)
        default = " (default)" if name == relay.default else ""
        demo = ", the offline demo model" if name == "local" else ""
        lines.append(f"on          {name}{default}: {models}{demo}")
    lines += [f"off         {name}: {reason}" for name, reason in relay.routes.off.items()]
    lines += [f"warning     {each}" for each in warnings_of(relay)]
    if not relay.routes.on:
        lines.append(f"no provider is on: set a key in .env, or for the demo model: {INSTALL}")
    return lines


def _named(target: Target, first: Target) -> str:
    """A target's model, with its provider where that differs from the first target's."""
    own = target.provider == first.provider
    return target.model if own else f"{target.provider}:{target.model}"


def warnings_of(relay: Relay) -> list[str]:
    """Warnings for the operator at the start."""
    models = [model for config in relay.catalog.on.values() for model in config.models]
    return [
        *([ALONE] if relay.settings.workers > 1 and relay.redis is None else []),
        *([CONTENT_LOGGED] if relay.settings.log_content else []),
        *relay.routes.warnings,
        *stray_variables(relay.settings),
        *deprecation_warnings(models),
    ]
