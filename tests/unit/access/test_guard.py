"""Who may ask, decided from plain values."""

import pytest

from relay.access.guard import (
    AccessRequest,
    Guard,
    GuardOptions,
    bearer_token,
    split_authority,
)
from relay.core.addresses import network_of
from relay.core.errors import Code, RelayError

TOKENS = {"t" * 32: "alice", "u" * 32: "bob"}


def guard(host="127.0.0.1", **options):
    return Guard(GuardOptions(host=host, **options))


def asked(method="POST", path="/chat/gpt", host="localhost:3050", origin=None, **fields):
    origins = () if origin is None else (origin,)
    return AccessRequest(method=method, path=path, host=host, origins=origins, **fields)


def refusal(guard_, question):
    with pytest.raises(RelayError) as caught:
        guard_.admit(question)
    return caught.value.code


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:5173",
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
        "https://localhost",
        "http://app.localhost:3000",
    ],
)
def test_on_loopback_any_local_port_may_ask(origin):
    assert guard().admit(asked(origin=origin)) is None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "http://evil.example:3050",
        "file://",
        "chrome-extension://abcdef",
        "http://[bad",
        "http://localhost:notaport",
    ],
)
def test_a_foreign_origin_may_not_post(origin):
    assert refusal(guard(), asked(origin=origin)) is Code.FORBIDDEN


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_a_foreign_origin_may_not_use_any_method_that_changes_something(method):
    assert refusal(guard(), asked(method=method, origin="https://evil.example")) is Code.FORBIDDEN


def test_a_foreign_origin_may_not_open_a_websocket():
    question = asked("GET", "/ws", origin="https://evil.example", upgrade=True)
    assert refusal(guard(), question) is Code.FORBIDDEN


def test_a_foreign_origin_is_refused_even_with_a_good_token():
    question = asked(origin="https://evil.example", authorization="Bearer " + "t" * 32)
    assert refusal(guard(tokens=TOKENS), question) is Code.FORBIDDEN


def test_two_origins_are_refused_even_if_each_is_allowed():
    question = AccessRequest(
        "POST", "/chat/gpt", "localhost:3050", ("http://localhost:1", "http://localhost:2")
    )
    assert refusal(guard(), question) is Code.FORBIDDEN


def test_a_listed_origin_may_ask_whatever_its_case():
    listed = guard(
        "0.0.0.0", tokens=TOKENS, allowed_origins=frozenset({"https://Chat.example.com/"})
    )
    question = asked(
        host="relay.example.com",
        origin="https://chat.example.com",
        authorization="Bearer " + "u" * 32,
    )
    assert listed.admit(question) == "bob"


def test_null_may_ask_where_it_is_listed():
    assert guard(allowed_origins=frozenset({"null"})).admit(asked(origin="null")) is None


def test_beyond_loopback_a_local_origin_is_a_foreign_one():
    open_guard = guard("0.0.0.0", allow_anonymous=True)
    question = asked(host="192.168.1.5:3050", origin="http://localhost:5173")
    assert refusal(open_guard, question) is Code.FORBIDDEN


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://192.168.1.5:3050", "192.168.1.5:3050"),
        ("https://chat.example.com", "chat.example.com"),
        ("https://chat.example.com", "chat.example.com:443"),
        ("https://chat.example.com:443", "chat.example.com"),
        ("http://[2001:db8::1]:3050", "[2001:db8::1]:3050"),
    ],
)
def test_the_same_origin_may_ask(origin, host):
    assert guard("0.0.0.0", tokens=TOKENS).origin_allowed(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://chat.example.com:81", "chat.example.com"),
        ("https://chat.example.com", "chat.example.com:80"),
        ("https://chat.example.com.evil.example", "chat.example.com"),
        ("https://chat.example.com", "user@chat.example.com"),
        ("https://chat.example.com", ""),
    ],
)
def test_another_port_or_name_is_another_origin(origin, host):
    assert not guard("0.0.0.0", tokens=TOKENS).origin_allowed(origin, host)


# Hosts


@pytest.mark.parametrize(
    "host", ["evil.example:3050", "evil.example", "", "localhost@evil.example", "[::1"]
)
def test_on_loopback_another_host_name_is_refused(host):
    assert refusal(guard(), asked("GET", "/streams/x", host=host)) is Code.FORBIDDEN


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:9", "127.0.0.1:9000", "[::1]:3050"])
def test_on_loopback_every_name_of_this_machine_will_do(host):
    assert guard().admit(asked("GET", "/streams/x", host=host)) is None


def test_a_name_rebound_by_a_website_is_not_the_same_origin():
    question = asked(host="evil.example:3050", origin="http://evil.example:3050")
    assert refusal(guard("0.0.0.0", allow_anonymous=True), question) is Code.FORBIDDEN


@pytest.mark.parametrize("name", ["192.168.1.5", "relay", "box.local", "relay.internal"])
def test_a_name_that_no_website_can_have_is_the_same_origin(name):
    question = asked(host=f"{name}:3050", origin=f"http://{name}:3050")
    assert guard("0.0.0.0", allow_anonymous=True).admit(question) is None


def test_the_host_of_a_listed_origin_is_ours():
    listed = guard(allowed_origins=frozenset({"https://chat.example.com"}))
    question = asked(host="chat.example.com", origin="https://chat.example.com")
    assert listed.admit(question) is None


def test_a_trusted_proxy_on_this_machine_may_pass_on_any_host():
    proxied = guard(tokens=TOKENS, trusted_proxies=(network_of("127.0.0.1"),))
    question = asked(
        host="chat.example.com",
        peer="127.0.0.1",
        forwarded=True,
        authorization="Bearer " + "t" * 32,
    )
    assert proxied.admit(question) == "alice"


# Proxies


def test_anonymous_loopback_refuses_what_a_proxy_passed_on():
    assert refusal(guard(), asked(forwarded=True, peer="127.0.0.1")) is Code.FORBIDDEN


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/health/gpt"])
def test_what_orchestrators_ask_may_come_through_a_proxy(path):
    assert guard().admit(asked("GET", path, forwarded=True)) is None


@pytest.mark.parametrize("options", [{"tokens": TOKENS}, {"allow_anonymous": True}])
def test_with_tokens_or_on_demand_a_proxy_may_pass_requests_on(options):
    question = asked(forwarded=True, authorization="Bearer " + "t" * 32)
    guard(**options).admit(question)


# Tokens


@pytest.mark.parametrize(("token", "subject"), list(TOKENS.items()))
def test_a_token_names_its_subject(token, subject):
    assert guard(tokens=TOKENS).admit(asked(authorization=f"bearer  {token}")) == subject


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer wrong", "Bearer", "Basic dDp0", "Bearer " + "t" * 31, "Bearer \udcff"],
)
def test_without_a_known_token_nothing_goes(authorization):
    assert refusal(guard(tokens=TOKENS), asked(authorization=authorization)) is Code.UNAUTHORIZED


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/streams/abc"),
        ("DELETE", "/streams/abc"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/health"),
        ("POST", "/"),
        ("GET", "/healthz"),
    ],
)
def test_every_route_but_the_open_ones_needs_a_token(method, path):
    assert refusal(guard(tokens=TOKENS), asked(method, path)) is Code.UNAUTHORIZED


@pytest.mark.parametrize(
    "path",
    ["/", "/livez", "/readyz", "/health", "/health/gpt", "/schema/relay.v1.json", "/web/app.js"],
)
def test_page_schemas_and_probes_need_none(path):
    assert guard(tokens=TOKENS).admit(asked("GET", path)) is None


def test_a_websocket_may_bring_its_token_in_hello():
    assert guard(tokens=TOKENS).admit(asked("GET", "/ws", upgrade=True)) is None
    with pytest.raises(RelayError):
        guard(tokens=TOKENS).authenticate(None)


def test_a_websocket_that_brings_a_wrong_token_is_refused_before_the_upgrade():
    question = asked("GET", "/ws", upgrade=True, authorization="Bearer wrong")
    assert refusal(guard(tokens=TOKENS), question) is Code.UNAUTHORIZED


@pytest.mark.parametrize("path", ["/v1/responses", "/", "/health"])
def test_a_websocket_route_without_hello_needs_its_token_at_once(path):
    assert refusal(guard(tokens=TOKENS), asked("GET", path, upgrade=True)) is Code.UNAUTHORIZED


def test_without_tokens_configured_any_token_is_as_good_as_none():
    assert guard().admit(asked(authorization="Bearer sk-anything")) is None
    assert guard().admit(asked(authorization="Basic dDp0")) is None
    assert guard().authenticate("anything") is None
    assert guard().authenticate(None) is None


def test_another_scheme_than_bearer_is_told_what_to_send():
    with pytest.raises(RelayError, match="Authorization: Bearer"):
        bearer_token("Basic dDp0")


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("Example.COM:80", ("example.com", 80)),
        ("[::1]:3050", ("::1", 3050)),
        ("example.com.", ("example.com", None)),
        ("a:b:c", ("", None)),
        ("a/b", ("a", None)),
    ],
)
def test_a_host_header_is_split_into_name_and_port(host, parts):
    assert split_authority(host) == parts
