"""The chat page: `GET /` and its files, under a strict content policy.

All files are read once, at start. So a request needs no disk access, and no path is ever built
from what a client sent. Each file has an ETag; a browser that has it gets 304.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.access.guard import SECURITY_HEADERS

WEB = Path(__file__).parent.parent / "web"
"""The folder of the page's files."""

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
}
"""Content types by suffix; files with another suffix are not served."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""Nothing inline, nothing from other hosts, no embedding in a frame, and no string is ever parsed
as markup or script."""

PAGE_HEADERS = {
    **SECURITY_HEADERS,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Sent with every file of the page."""


@dataclass(frozen=True, slots=True)
class File:
    """One file, ready to be sent: content type, bytes, the same compressed, ETag."""

    content_type: str
    body: bytes
    compressed: bytes
    etag: str


def load(path: Path) -> File:
    """Read one file. Raises `OSError` if it is missing, `KeyError` for a suffix that is not
    served."""
    body = path.read_bytes()
    return File(
        content_type=CONTENT_TYPES[path.suffix],
        body=body,
        compressed=gzip.compress(body, mtime=0),
        etag=hashlib.sha256(body).hexdigest()[:32],
    )


def page_routes() -> list[web.RouteDef]:
    """The routes of the page: `/`, `/favicon.ico` and `/web/<file>` for each file of `WEB`. Reads
    them all, so call it at start. Raises `OSError` if `index.html` or `favicon.svg` is
    missing."""
    files = {p.name: load(p) for p in sorted(WEB.iterdir()) if p.suffix in CONTENT_TYPES}
    index = files.pop("index.html", None) or load(WEB / "index.html")
    icon = files.get("favicon.svg") or load(WEB / "favicon.svg")
    routes = [web.get("/", _serve(index)), web.get("/favicon.ico", _serve(icon))]
    routes += [web.get(f"/web/{name}", _serve(file)) for name, file in files.items()]
    return routes


def _serve(file: File) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        return _respond(file, request)

    return serve


def _respond(file: File, request: web.Request) -> web.Response:
    headers = {**PAGE_HEADERS, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if _is_known(file, request):
        response = web.Response(status=304, headers=headers)
    elif "gzip" in request.headers.get("Accept-Encoding", ""):
        headers |= {"Content-Type": file.content_type, "Content-Encoding": "gzip"}
        response = web.Response(body=file.compressed, headers=headers)
    else:
        headers["Content-Type"] = file.content_type
        response = web.Response(body=file.body, headers=headers)
    response.headers["ETag"] = f'W/"{file.etag}"'
    return response


def _is_known(file: File, request: web.Request) -> bool:
    tags = request.if_none_match or ()
    return any(tag.value in {file.etag, "*"} for tag in tags)
