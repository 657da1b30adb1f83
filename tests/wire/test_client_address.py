"""Whose address the log shows, behind proxies and without, on real sockets."""

import json

import aiohttp
import pytest

from lab.upstreams.server import Upstream
from tests.wire.served import server

TOKEN = "a-token-of-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PROXIED = {"TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8", "RELAY_TOKENS": TOKEN, "LOG_FORMAT": "json"}


async def clients_of(folder, requests, **variables):
    """The clients that the lines of so many requests show; each is (path, headers)."""
    async with (
        Upstream() as upstream,
        server(upstream, folder, **variables) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        for path, headers in requests:
            if path == "/ws":
                async with http.ws_connect(path, headers=headers) as socket:
                    await socket.send_json({"type": "hello"})
                    await socket.receive()
            else:
                async with http.get(path, headers=headers) as response:
                    await response.read()
    lines = [json.loads(line) for line in (folder / "debug.log").read_text().splitlines()]
    shown = [
        (line["message"], line["fields"]["client"]) for line in lines if "client" in said(line)
    ]
    return [client for message, client in shown if "/readyz" not in message]


def said(line):
    return line.get("fields", {})


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([("X-Forwarded-For", "203.0.113.7")], "203.0.113.7"),
        ([("X-Forwarded-For", "6.6.6.6, 203.0.113.7")], "203.0.113.7"),
        ([("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-For", "10.0.0.2")], "203.0.113.7"),
        ([("X-Forwarded-For", "2001:DB8::7")], "2001:db8::7"),
        ([("X-Forwarded-For", "203.0.113.7, unknown")], "127.0.0.1"),
        ([("X-Forwarded-For", "x" * 4000)], "127.0.0.1"),
        ([("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")], "127.0.0.1"),
        ([("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "203.0.113.7")], "203.0.113.7"),
        ([], "127.0.0.1"),
    ],
)
async def test_behind_a_trusted_proxy_every_line_shows_the_client(tmp_path, headers, client):
    requests = [
        ("/v1/models", [*BEARER.items(), *headers]),
        ("/v1/models", headers),  # refused for want of a token
        ("/nowhere", [*BEARER.items(), *headers]),
        ("/ws", [*BEARER.items(), *headers]),
    ]
    assert await clients_of(tmp_path, requests, **PROXIED) == [client] * 4


async def test_a_stranger_chooses_no_address_for_the_log(tmp_path):
    variables = PROXIED | {"TRUSTED_PROXIES": "10.0.0.0/8"}
    headers = BEARER | {"X-Forwarded-For": "203.0.113.7"}
    requests = [("/v1/models", headers), ("/ws", headers)]
    assert await clients_of(tmp_path, requests, **variables) == ["127.0.0.1"] * 2
