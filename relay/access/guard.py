"""Who may ask: origins, hosts, tokens and proxies.

A website must not be able to spend the developer's key. `Guard` decides that from plain
values and does no I/O; `middleware` and `on_prepare` put it in front of an aiohttp
application. What is refused raises `RelayError`, which the outer error middleware
(`relay.edges.http`) turns into JSON.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from msgspec import Struct
from multidict import istr

from relay.core.addresses import (
    DEFAULT_PORTS,
    MAX_NAME,
    Network,
    address_of,
    client_address,
    is_loopback,
    is_within,
)
from relay.core.errors import Code, RelayError
from relay.protocol.frames import STREAM_HEADER

SUBJECT: web.RequestKey[str | None] = web.RequestKey("subject", str | None)  # type: ignore[arg-type]
"""The subject that the request's token names; None for an anonymous request."""

ADDRESS = web.RequestKey("address", str)
"""The client's address, see `Guard.client_address`. Set on every request that reached the
guard, also on one that it refused."""

PROBES = frozenset({"/livez", "/readyz", "/health"})
"""Paths that orchestrators request, also through a proxy."""

OPEN_PATHS = PROBES | {"/", "/favicon.ico", "/asyncapi.json", "/openapi.json"}
"""Paths that need no token: the page, the schemas and what orchestrators request."""

OPEN_PREFIXES = ("/health/", "/schema/", "/static/", "/web/")
"""As `OPEN_PATHS`, for everything below."""

HELLO_PATHS = frozenset({"/ws"})
"""WebSocket routes whose first frame may bring the token, because a browser cannot set a
header there."""

_FORWARDED_HOST, _REAL_IP = istr("X-Forwarded-Host"), istr("X-Real-IP")

FORWARDING_HEADERS = (hdrs.X_FORWARDED_FOR, hdrs.FORWARDED, _FORWARDED_HOST, _REAL_IP)
"""What a proxy adds to a request that it passes on."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
"""Set on every response that does not set its own."""

SERVER = "chat-relay"
"""The Server header; aiohttp's own would show versions."""

FOREIGN_ORIGIN = "pages of this origin may not use this server: see ALLOWED_ORIGINS"

PREFLIGHT_SECONDS = 600
"""How long a browser may keep the answer to a preflight."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_SUFFIXES = (".local", ".internal")

Authority: TypeAlias = tuple[str, int | None]
"""A host in lower case, without brackets, and its port where one is given."""


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What the operator configured.

    `host` is the address that the server binds. `allowed_origins` are origins as a browser
    sends them (`https://chat.example.com`), or `*` for any. `tokens` maps each token to the
    subject it names. `trusted_proxies` are the operator's own.
    """

    host: str
    allowed_origins: frozenset[str] = frozenset()
    tokens: Mapping[str, str] = field(default_factory=dict)
    allow_anonymous: bool = False
    trusted_proxies: tuple[Network, ...] = ()


class AccessRequest(Struct, frozen=True):
    """What the guard looks at in a request. `origins` and `authorization` as sent;
    `forwarded` where a proxy's header is on it; `peer` is the socket's other end."""

    method: str
    path: str
    host: str
    origins: tuple[str, ...] = ()
    upgrade: bool = False
    authorization: str | None = None
    forwarded: bool = False
    peer: str = ""


def bearer_token(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer …` header (RFC 6750); None without one.
    Raises `RelayError(UNAUTHORIZED)` for another scheme."""
    if authorization is None:
        return None
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RelayError(Code.UNAUTHORIZED, "send the token as 'Authorization: Bearer TOKEN'")
    return token.strip()


class Guard:
    """The rules, made once from the operator's options."""

    def __init__(self, options: GuardOptions) -> None:
        self._loopback = is_loopback(options.host)
        self._anonymous = not options.tokens
        self._allow_anonymous = options.allow_anonymous
        self._tokens = [(_digest(token), subject) for token, subject in options.tokens.items()]
        self._origins = frozenset(o.lower().rstrip("/") for o in options.allowed_origins)
        self._hosts = frozenset(
            parts.hostname for o in self._origins if (parts := _split(o)) and parts.hostname
        )
        self._proxies = options.trusted_proxies

    def authenticate(self, token: str | None) -> str | None:
        """The subject that `token` names; None where no tokens are configured.

        Compares in constant time. Raises `RelayError(UNAUTHORIZED)` for a missing or
        unknown token.
        """
        if self._anonymous:
            return None
        if token is None:
            raise RelayError(
                Code.UNAUTHORIZED, "a token is needed: send 'Authorization: Bearer TOKEN'"
            )
        given, found = _digest(token), None
        for digest, subject in self._tokens:
            if hmac.compare_digest(digest, given):
                found = subject
        if found is None:
            raise RelayError(Code.UNAUTHORIZED, "this token is not known here")
        return found

    def admit(self, asked: AccessRequest) -> str | None:
        """The subject of a request that may go on.

        Raises `RelayError`: FORBIDDEN for its host, origin or proxy, UNAUTHORIZED for its
        token. An upgrade on one of `HELLO_PATHS` without a token passes as None: the
        connection has to demand a `hello` then.
        """
        self._check_proxied(asked)
        self._check_host(asked)
        self._check_origin(asked)
        if self._anonymous or _open(asked):
            return None
        token = bearer_token(asked.authorization)
        if token is None and asked.upgrade and asked.path in HELLO_PATHS:
            return None
        return self.authenticate(token)

    def origin_allowed(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may use this server under the name `host`."""
        origin = origin.lower()
        if origin in self._origins or "*" in self._origins:
            return True
        parts = _split(origin)
        if parts is None or parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            return False
        if self._loopback and is_loopback(parts.hostname):
            return True
        return _same_authority(parts, host) and self._names_us(parts.hostname)

    def trusts(self, peer: str) -> bool:
        """Whether `peer` is one of the operator's own proxies."""
        return is_within(peer, self._proxies)

    def client_address(self, peer: str, forwarded_for: str) -> str:
        """The client's address, from `X-Forwarded-For` only as far as the operator's own
        proxies wrote it; see `addresses.client_address`."""
        return client_address(peer, forwarded_for, self._proxies)

    def _check_proxied(self, asked: AccessRequest) -> None:
        open_to_world = self._loopback and self._anonymous and not self._allow_anonymous
        if open_to_world and asked.forwarded and not _is_probe(asked.path):
            raise RelayError(
                Code.FORBIDDEN,
                "this server takes anonymous requests from its own machine only, and this one "
                "came through a proxy: set RELAY_TOKENS, or RELAY_ALLOW_ANONYMOUS=1",
            )

    def _check_host(self, asked: AccessRequest) -> None:
        name, _ = split_authority(asked.host)
        if not self._loopback or self.trusts(asked.peer):
            return
        if not is_loopback(name) and name not in self._hosts and "*" not in self._origins:
            raise RelayError(
                Code.FORBIDDEN,
                "this server is bound to this machine and answers to localhost only; "
                "list the origin of another name in ALLOWED_ORIGINS",
            )

    def _check_origin(self, asked: AccessRequest) -> None:
        if asked.method in _SAFE_METHODS and not asked.upgrade:
            return
        if not asked.origins:
            return
        if len(asked.origins) > 1 or not all(
            self.origin_allowed(origin, asked.host) for origin in asked.origins
        ):
            raise RelayError(Code.FORBIDDEN, FOREIGN_ORIGIN)

    def _names_us(self, name: str) -> bool:
        """Whether nobody else can have pointed `name` at this server (DNS rebinding).

        A page that tricked the browser can't guess a token, so with tokens any name is accepted.
        Without, only an address, a name without a dot or of a local domain, or one in
        ALLOWED_ORIGINS is.
        """
        if not self._anonymous or name in self._hosts or address_of(name) is not None:
            return True
        return "." not in name or is_loopback(name) or name.endswith(_LOCAL_SUFFIXES)


def split_authority(host: str) -> Authority:
    """A Host header's name and port. An unreadable one has an empty name."""
    return _known_authority(host) if len(host) <= MAX_NAME else _authority(host)


def _authority(host: str) -> Authority:
    parts = _split("//" + host)
    if parts is None or parts.hostname is None or parts.username is not None:
        return "", None
    return parts.hostname.rstrip("."), parts.port


_known_authority = lru_cache(maxsize=256)(_authority)


def _same_authority(origin: SplitResult, host: str) -> bool:
    name, port = split_authority(host)
    default = DEFAULT_PORTS[origin.scheme]
    return (origin.hostname, origin.port or default) == (name, port or default)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _is_probe(path: str) -> bool:
    return path in PROBES or path.startswith("/health/")


def _open(asked: AccessRequest) -> bool:
    if asked.method not in _SAFE_METHODS or asked.upgrade:
        return False
    return asked.path in OPEN_PATHS or asked.path.startswith(OPEN_PREFIXES)


# --- in front of aiohttp -----------------------------------------------------------------

_ASKED = web.RequestKey("asked", AccessRequest)

OnPrepare: TypeAlias = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def asked_of(request: web.Request, guard: Guard) -> AccessRequest:
    """What the guard looks at in an aiohttp request. Behind a trusted proxy the host is the one
    that the client asked the proxy for."""
    headers, peer = request.headers, request.remote or ""
    host = headers.get(hdrs.HOST, "")
    if guard.trusts(peer):
        host = headers.get(_FORWARDED_HOST, host).split(",")[0].strip()
    return AccessRequest(
        method=request.method,
        path=request.path,
        host=host,
        origins=tuple(headers.getall(hdrs.ORIGIN, ())),
        upgrade="websocket" in headers.get(hdrs.UPGRADE, "").lower(),
        authorization=headers.get(hdrs.AUTHORIZATION),
        forwarded=any(name in headers for name in FORWARDING_HEADERS),
        peer=peer,
    )


def middleware(guard: Guard) -> Middleware:
    """Lets through what `guard` admits, with `SUBJECT` set on the request, and answers
    preflights. `ADDRESS` is set on every request. Goes right behind the error middleware."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = request[_ASKED] = asked_of(request, guard)
        request[ADDRESS] = guard.client_address(
            asked.peer, ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
        )
        if _is_preflight(request):
            return _preflight(request, guard, asked)
        request[SUBJECT] = guard.admit(asked)
        return await handler(request)

    return guarded


def on_prepare(guard: Guard) -> OnPrepare:
    """Puts CORS and security headers on every response, streamed ones too. Append it to
    `app.on_response_prepare`."""

    async def headers(request: web.Request, response: web.StreamResponse) -> None:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = SERVER
        response.headers.add("Vary", "Origin")
        asked = request.get(_ASKED) or asked_of(request, guard)
        if len(asked.origins) == 1 and guard.origin_allowed(asked.origins[0], asked.host):
            response.headers["Access-Control-Allow-Origin"] = asked.origins[0]
            response.headers["Access-Control-Expose-Headers"] = f"{STREAM_HEADER}, Retry-After"

    return headers


def _is_preflight(request: web.Request) -> bool:
    return request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _preflight(request: web.Request, guard: Guard, asked: AccessRequest) -> web.Response:
    if len(asked.origins) != 1 or not guard.origin_allowed(asked.origins[0], asked.host):
        raise RelayError(Code.FORBIDDEN, FOREIGN_ORIGIN)
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": wanted or "Authorization, Content-Type",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        },
    )
