"""The HTTP client that all SDKs are given, and the faults for its failures."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import httpx2

from relay.core.errors import Code, Fault
from relay.core.redaction import HIDDEN, MIN_SECRET_LENGTH
from relay.observability.logs import SDK_LOGGERS
from relay.providers.decoding.decoder import Decoder
from relay.providers.decoding.faults import Reply, closed_early
from relay.providers.http.client import CONNECT_TIMEOUT

MAX_IDLE_CONNECTIONS = 100
"""Idle connections kept open to each provider."""

_BOUNDS = {"connect": CONNECT_TIMEOUT, "read": None, "write": None, "pool": None}


def http_client(uds: str | None = None) -> httpx2.AsyncClient:
    """A client that limits the time to connect and no other, whatever an SDK sets. `uds`: connect
    to this Unix socket, whatever the URL's host says."""
    _quiet_sdks()
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE_CONNECTIONS)
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT),
        limits=limits,
        transport=httpx2.AsyncHTTPTransport(uds=uds, limits=limits) if uds else None,
        event_hooks={"request": [_bound]},
    )


async def _bound(request: httpx2.Request) -> None:
    request.extensions["timeout"] = _BOUNDS
    if (caught := _rehearsal.get()) is not None:
        caught.append(request)
        raise _Rehearsed


class _Rehearsed(Exception):
    """Stops a request that is only made to see its contents."""


_rehearsal: ContextVar[list[httpx2.Request] | None] = ContextVar("rehearsal", default=None)


async def rehearse(send: Callable[[], Awaitable[object]]) -> httpx2.Request | None:
    """The request that `send` makes an SDK build on an `http_client`, without sending it; None if
    it built none."""
    caught: list[httpx2.Request] = []
    token = _rehearsal.set(caught)
    try:
        with suppress(Exception):  # each SDK wraps this exception in an error of its own
            await send()
    finally:
        _rehearsal.reset(token)
    return caught[0] if caught else None


def _quiet_sdks() -> None:
    """Turn off the SDKs' own logging, which environment variables can turn on: it would log
    requests with their prompts."""
    for name in SDK_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def reply_of(response: httpx2.Response) -> Reply:
    """An error response whose body was read, in the form that the classifiers take."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content, time.time())


@contextmanager
def transport_faults(decoder: Decoder | None = None) -> Iterator[None]:
    """Turn the client's own errors into `Fault`s. Once `decoder` has seen the finish, a broken
    connection is the end of the answer and nothing is raised."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        if decoder is None or not decoder.finished:
            raise transport_fault(error) from None


@contextmanager
def secret_kept(secret: str | None) -> Iterator[None]:
    """Remove the provider's own key from a `Fault`'s message, in case a server echoed it."""
    try:
        yield
    except Fault as fault:
        without_secret(fault, secret)
        raise


def without_secret(fault: Fault, secret: str | None) -> None:
    """Remove `secret` from the fault's message."""
    if secret is not None and len(secret) >= MIN_SECRET_LENGTH and secret in fault.message:
        fault.message = fault.message.replace(secret, HIDDEN)
        fault.args = (fault.message,)


def connect_timed_out() -> Fault:
    """The fault of a connection that was not made within `CONNECT_TIMEOUT`."""
    seconds = f"{CONNECT_TIMEOUT:g} s"
    return Fault(Code.PROVIDER_TIMEOUT, f"no connection to the provider within {seconds}")


def unreachable() -> Fault:
    """The fault of a provider that can't be connected to."""
    return Fault(Code.PROVIDER_ERROR, "the provider cannot be reached")


def transport_fault(error: BaseException | None) -> Fault:
    """The `Fault` for a failure below HTTP. The error's text is dropped, since it may hold an
    address."""
    if isinstance(error, httpx2.ConnectTimeout):
        return connect_timed_out()
    if isinstance(error, httpx2.ConnectError):
        return unreachable()
    if isinstance(error, httpx2.TimeoutException):
        return Fault(Code.PROVIDER_TIMEOUT, "the provider did not answer in time")
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return Fault(
            Code.PROVIDER_ERROR, "the provider's base URL is not usable", remedy="fallback"
        )
    return closed_early()
