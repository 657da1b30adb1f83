"""The guard in front of real sockets, browsers' headers and all."""

import json

import pytest
from aiohttp import web

from relay.access.guard import ADDRESS, SUBJECT, Guard, GuardOptions, middleware, on_prepare
from relay.core.addresses import network_of
from tests.wire.http_relay import DONE, client, events_of, serving

CHAT = {"messages": "Hello!"}
TOKEN, OTHER = "t" * 32, "u" * 32
EVIL = {"Origin": "https://evil.example"}
DEV = {"Origin": "http://localhost:5173"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def socket_route(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.close()
    return ws


async def who(request):
    return web.json_response({"subject": request[SUBJECT], "address": request[ADDRESS]})


def guarded(**options):
    guard = Guard(GuardOptions(**({"host": "127.0.0.1"} | options)))

    def prepare(app):
        app.middlewares.append(middleware(guard))
        app.on_response_prepare.append(on_prepare(guard))
        app.router.add_get("/ws", socket_route)
        app.router.add_get("/v1/responses", socket_route)
        app.router.add_get("/who", who)

    return serving(prepare=prepare)


@pytest.fixture
async def relay():
    async with guarded() as served:
        served.dispatcher.on_start = lambda writer: writer.append([DONE])
        yield served


@pytest.fixture
async def locked():
    async with guarded(tokens={TOKEN: "alice", OTHER: "bob"}) as served:
        served.dispatcher.on_start = lambda writer: writer.append([DONE])
        yield served


async def ask(relay, method, path, body=b"", headers=None):
    async with client(relay) as sender:
        answer = await sender.ask(method, path, body, headers)
        return sender, answer


async def test_a_website_cannot_spend_the_key(relay):
    sender, answer = await ask(relay, "POST", "/chat/gpt", CHAT, EVIL)
    assert (sender.status, json.loads(answer)["error"]["code"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in sender.headers
    assert relay.dispatcher.requests == []


async def test_a_website_cannot_spend_it_through_openais_route_either(relay):
    body = {"model": "gpt", "messages": [{"role": "user", "content": "x"}]}
    sender, answer = await ask(relay, "POST", "/v1/chat/completions", body, EVIL)
    assert (sender.status, json.loads(answer)["error"]["type"]) == (403, "permission_error")
    assert relay.dispatcher.requests == []


async def test_a_website_cannot_open_a_websocket(relay):
    sender, answer = await ask(relay, "GET", "/ws", headers=UPGRADE | EVIL)
    assert (sender.status, json.loads(answer)["error"]["code"]) == (403, "forbidden")


async def test_a_rebound_name_is_refused(relay):
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert (await ask(relay, "POST", "/chat/gpt", CHAT, headers))[0].status == 403
    assert (await ask(relay, "GET", "/ws", headers=UPGRADE | headers))[0].status == 403


async def test_a_dev_server_may_ask_and_read_the_answer(relay):
    sender, answer = await ask(relay, "POST", "/chat/gpt", CHAT, DEV)
    assert events_of(answer)[-1].name == "done"
    assert sender.headers["access-control-allow-origin"] == DEV["Origin"]
    assert "X-Stream-Id" in sender.headers["access-control-expose-headers"]
    assert "Origin" in sender.headers["vary"]


async def test_a_dev_server_can_read_errors_too(relay):
    sender, _ = await ask(relay, "POST", "/chat/gpt", b"{", DEV)
    assert sender.status == 400
    assert sender.headers["access-control-allow-origin"] == DEV["Origin"]


async def test_a_dev_server_may_open_a_websocket(relay):
    async with client(relay) as sender:
        sender.send("GET", "/ws", headers=UPGRADE | DEV)
        assert await sender.head() == 101


async def test_no_origin_is_no_browser_and_may_ask(relay):
    sender, answer = await ask(relay, "POST", "/chat/gpt", CHAT)
    assert events_of(answer)[-1].name == "done"
    assert "access-control-allow-origin" not in sender.headers


async def test_a_preflight_of_an_allowed_origin_is_answered(relay):
    headers = DEV | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-os",
    }
    sender, _ = await ask(relay, "OPTIONS", "/v1/chat/completions", headers=headers)
    assert sender.status == 204
    assert sender.headers["access-control-allow-origin"] == DEV["Origin"]
    assert sender.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "DELETE" in sender.headers["access-control-allow-methods"]


async def test_a_preflight_of_a_website_is_refused(relay):
    headers = EVIL | {"Access-Control-Request-Method": "POST"}
    sender, _ = await ask(relay, "OPTIONS", "/chat/gpt", headers=headers)
    assert sender.status == 403
    assert "access-control-allow-origin" not in sender.headers


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"])
async def test_anonymous_loopback_refuses_forwarded_requests(relay, name):
    sender, _ = await ask(relay, "POST", "/chat/gpt", CHAT, {name: "for=203.0.113.7"})
    assert sender.status == 403
    sender, _ = await ask(relay, "GET", "/ws", headers=UPGRADE | {name: "203.0.113.7"})
    assert sender.status == 403


async def test_with_tokens_configured_one_is_needed(locked):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        sender, answer = await ask(locked, "POST", "/chat/gpt", CHAT, headers)
        assert (sender.status, json.loads(answer)["error"]["code"]) == (401, "unauthorized")
        assert sender.headers["www-authenticate"] == "Bearer"
    sender, answer = await ask(
        locked, "POST", "/chat/gpt", CHAT, {"Authorization": f"Bearer {TOKEN}"}
    )
    assert events_of(answer)[-1].name == "done"


async def test_a_stream_is_its_subjects_alone(locked):
    await ask(locked, "POST", "/chat/gpt", CHAT, {"Authorization": f"Bearer {TOKEN}"})
    path = f"/streams/{locked.stream}"
    for method in ("GET", "DELETE"):
        assert (await ask(locked, method, path))[0].status == 401
        stranger = {"Authorization": f"Bearer {OTHER}"}
        assert (await ask(locked, method, path, headers=stranger))[0].status == 404
    owner = {"Authorization": f"Bearer {TOKEN}"}
    assert (await ask(locked, "DELETE", path, headers=owner))[0].status == 204


async def test_openais_clients_are_told_of_a_bad_key_in_their_own_words(locked):
    sender, answer = await ask(locked, "GET", "/v1/models", headers={"Authorization": "Bearer x"})
    assert (sender.status, json.loads(answer)["error"]["code"]) == (401, "invalid_api_key")


async def test_a_websocket_may_bring_its_token_later_on_its_own_route_only(locked):
    async with client(locked) as sender:
        sender.send("GET", "/ws", headers=UPGRADE)
        assert await sender.head() == 101
    assert (await ask(locked, "GET", "/v1/responses", headers=UPGRADE))[0].status == 401
    wrong = UPGRADE | {"Authorization": "Bearer wrong"}
    assert (await ask(locked, "GET", "/ws", headers=wrong))[0].status == 401


async def test_behind_a_trusted_proxy_host_and_address_are_the_clients():
    options = {"tokens": {TOKEN: "alice"}, "trusted_proxies": (network_of("127.0.0.0/8"),)}
    async with guarded(**options) as relay:
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "X-Forwarded-For": "6.6.6.6, 203.0.113.7",
            "X-Forwarded-Host": "chat.example.com",
            "Origin": "https://chat.example.com",
        }
        sender, answer = await ask(relay, "GET", "/who", headers=headers)
        assert json.loads(answer) == {"subject": "alice", "address": "203.0.113.7"}
        assert sender.headers["access-control-allow-origin"] == "https://chat.example.com"


async def test_a_strangers_forwarded_host_counts_for_nothing(relay):
    headers = {"X-Forwarded-Host": "evil.example", "Origin": "http://evil.example"}
    assert (await ask(relay, "POST", "/chat/gpt", CHAT, headers))[0].status == 403


async def test_every_response_has_the_security_headers(relay):
    for method, path in [("POST", "/chat/gpt"), ("GET", "/nowhere"), ("GET", "/v1/models")]:
        sender, _ = await ask(relay, method, path, CHAT if method == "POST" else b"")
        assert sender.headers["x-content-type-options"] == "nosniff"
        assert sender.headers["x-frame-options"] == "DENY"
        assert sender.headers["server"] == "chat-relay"
