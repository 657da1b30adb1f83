"""HTTP/1.1 as one streaming POST needs it: request bytes out, response bytes in. No I/O.

llhttp does the parsing, through httptools. This module decides how a response is framed, when it
is complete, and what is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from relay.core.addresses import DEFAULT_PORTS

MAX_HEAD_BYTES = 65_536
"""The limit for the headers of one response, and for consecutive bytes without any content
(interim responses, chunk extensions, trailers)."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_TARGET = re.compile(r"/[\x21-\x7e]*")
_HOST = re.compile(r"[0-9A-Za-z.:_-]+")
_OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})
_BODILESS = frozenset({204, 304})
_HEEDED = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"keep-alive"})
"""Headers that are kept of a successful response. A vendor sends about twenty-five, and they stay
in memory as long as the response streams. Of a refusal all are kept, since they may tell how long
to wait."""

_TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class TransportError(Exception):
    """A request that got no complete response. The message is free of secrets."""


class Unreachable(TransportError):
    """No connection could be made, so nothing was sent."""


class ConnectTimeout(Unreachable):
    """No connection was made in time."""


class Interrupted(TransportError):
    """The connection ended before the response did. The upstream may have processed the request."""


class Malformed(TransportError):
    """The response is not HTTP/1.1, or exceeds `MAX_HEAD_BYTES`."""


class Unsupported(TransportError):
    """A response that this client does not handle and the SDK's does: compressed, or a redirect."""


class Origin(NamedTuple):
    """The server that a connection leads to; requests to the same one may share connections."""

    scheme: str
    host: str
    port: int


class Endpoint(NamedTuple):
    """A URL and fixed headers, checked once and ready to be sent many times."""

    origin: Origin
    head: bytes

    def __repr__(self) -> str:
        return f"Endpoint({self.origin})"  # the head holds a key

    def request(self, body: bytes) -> bytes:
        """The whole POST, head and body."""
        return b"%scontent-length: %d\r\n\r\n%s" % (self.head, len(body), body)


def endpoint(url: str, headers: Mapping[str, str]) -> Endpoint:
    """Prepare a POST to `url`.

    Host, framing, connection and encoding headers are set here and override those in `headers`.
    Raises `ValueError` for a URL that `supports` refuses, and for a header that could break out of
    its line (RFC 9110 section 5.5); the message never holds its value.
    """
    parts = urlsplit(url)
    if not _plain(parts):
        raise ValueError("the URL has a scheme, a host or a path that cannot be sent as it is")
    lines = [f"POST {_target(parts)} HTTP/1.1", f"host: {parts.netloc}"]
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r} holds characters that a header cannot carry")
        if name.lower() not in _OURS:
            lines.append(f"{name}: {value}")
    lines += ["accept-encoding: identity", ""]
    return Endpoint(_origin(parts), "\r\n".join(lines).encode("ascii"))


def supports(url: str, *, uds: str | None = None) -> bool:
    """Whether this client may be used for `url`.

    It may not if the environment sets a proxy or certificates of its own, nor for URLs with
    credentials, other schemes or characters outside ASCII. `uds` is the path of a Unix socket, if
    one is used: proxies are ignored then.
    """
    parts = urlsplit(url)
    if not _plain(parts) or (parts.scheme == "https" and any(map(os.getenv, _TRUST_VARIABLES))):
        return False
    return uds is not None or not _proxied(parts)


def _plain(parts: SplitResult) -> bool:
    try:
        parts.port  # noqa: B018  raises for a port that is not a number
    except ValueError:
        return False
    return (
        parts.scheme in DEFAULT_PORTS
        and parts.username is None
        and _HOST.fullmatch(parts.hostname or "") is not None
        and _TARGET.fullmatch(_target(parts)) is not None
    )


def _proxied(parts: SplitResult) -> bool:
    proxies = getproxies()
    wanted = proxies.get(parts.scheme) or proxies.get("all")
    return bool(wanted) and not proxy_bypass(parts.hostname or "")


def _target(parts: SplitResult) -> str:
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def _origin(parts: SplitResult) -> Origin:
    port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
    return Origin(parts.scheme, parts.hostname or "", port)


class ResponseParser:
    """One response, fed as its bytes arrive.

    `status` is 0 until the head arrived; interim responses (1xx) are skipped. `headers`, by
    lower-case name, are all that a refusal (400 and above) has, and of another response at most
    `keep-alive`. `over` once nothing more is to come: `error` is then None if the response is
    complete, else it says what is wrong. `reusable` when the connection may carry another request.
    """

    __slots__ = (
        "_barren",
        "_head",
        "_interim",
        "_parser",
        "_pieces",
        "_until_eof",
        "error",
        "headers",
        "on_body",
        "over",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.over = False
        self.error: TransportError | None = None
        self.reusable = False
        self._barren = 0
        self._head: list[tuple[bytes, bytes]] = []
        self._interim = False
        self._until_eof = False
        self._pieces: list[bytes] = []
        # The parser calls on_body for each piece of each chunk: straight into the list.
        self.on_body = self._pieces.append
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """The body bytes that `data` brought, joined, without chunk framing. If the response
        breaks off within `data`, the bytes before the break are still returned."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._break(Malformed("the upstream switched protocols without being asked to"))
        except HttpParserError as error:
            self._refuse(error)
        pieces = self._pieces
        if not pieces:
            self._count_barren(len(data))
            return b""
        self._barren = 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    def eof(self, *, clean: bool) -> None:
        """The connection ended; `clean`: without an error. Call it once, unless `over`."""
        if self._until_eof and clean:
            self._conclude()
        elif self.status:
            self._break(Interrupted("the connection was lost in the middle of the response"))
        else:
            self._break(Interrupted("the connection was closed before a response came"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for headers and for trailers."""
        self._head.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser at the end of a head."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        head, self._head = self._head, []
        if sum([len(name) + len(value) + 4 for name, value in head]) > MAX_HEAD_BYTES:
            raise _too_long()
        if status < 200:
            self._interim = True
            return
        self.status = status
        self.headers = headers = _headers(head, refused=status >= 400)
        self._until_eof = status not in _BODILESS and _ends_with_connection(headers)
        if _encoded(headers):
            raise Unsupported("the upstream compressed its response although asked not to")
        if 300 <= status < 400:
            raise Unsupported("the upstream answered with a redirect")
        if status < 400:
            hint = self.headers.get("keep-alive")
            self.headers = {} if hint is None else {"keep-alive": hint}

    def on_message_begin(self) -> None:
        """Called by the parser at the start of each response. Bytes after the requested response
        make the connection unusable, since no request is open for them."""
        self.reusable = False

    def on_message_complete(self) -> None:
        """Called by the parser at the end of each response."""
        assert self._parser is not None
        if self._interim:
            self._interim = False
        elif not self.over:
            self.over = True
            self.reusable = self._parser.should_keep_alive()

    def release(self) -> None:
        """Drop the parser, which refers back to this object. Call it when done: otherwise each
        response would leave a reference cycle to the garbage collector."""
        self._parser = None

    def _count_barren(self, size: int) -> None:
        self._barren += size
        if self._barren > MAX_HEAD_BYTES and not self.over:
            self._break(_too_long())

    def _refuse(self, error: HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, TransportError):
            self._break(cause)
        elif self.over:
            self.reusable = False
        else:
            self._break(Malformed("the upstream's response is not valid HTTP/1.1"))

    def _break(self, error: TransportError) -> None:
        if not self.over:
            self.error = error
            self._conclude()

    def _conclude(self) -> None:
        self.over = True
        self.reusable = False


def _headers(head: list[tuple[bytes, bytes]], *, refused: bool) -> dict[str, str]:
    """A head's fields by lower-case name, repeated ones joined with commas: all of them for a
    refusal, else those that are used here."""
    found: dict[str, str] = {}
    for name, value in head:
        name = name.lower()
        if refused or name in _HEEDED:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _ends_with_connection(headers: dict[str, str]) -> bool:
    coding = headers.get("transfer-encoding")
    if coding is not None:
        return not coding.rstrip().lower().endswith("chunked")
    return "content-length" not in headers


def _encoded(headers: dict[str, str]) -> bool:
    transfer = headers.get("transfer-encoding", "")
    if transfer == "chunked" and "content-encoding" not in headers:
        return False  # the case for nearly all streams
    named = f"{headers.get('content-encoding', '')},{transfer}"
    codings = {coding.strip().lower() for coding in named.split(",")}
    return bool(codings - {"", "identity", "chunked"})


def _too_long() -> Malformed:
    return Malformed(f"the upstream sent more than {MAX_HEAD_BYTES} bytes of headers")
