"""What an address or a host name stands for, odd spellings included."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.transport import _is_loopback as client_is_loopback
from relay.core.addresses import (
    MAX_NAME,
    address_of,
    client_address,
    is_loopback,
    is_within,
    network_of,
)

LOOPBACK = [
    "127.0.0.1",
    "127.8.8.8",
    "127.0.0.1.",
    "::1",
    "[::1]",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "::FFFF:7f00:1",
    "[::ffff:127.0.0.1]",
    "::1%lo",
    "localhost",
    "LOCALHOST",
    "LOCALHOST.",
    "localhost.",
    "app.localhost",
    "a.b-c.LocalHost",
    "app.localhost.",
]

NOT_LOOPBACK = [
    "",
    ".",
    "0.0.0.0",
    "::",
    "[::]",
    "0",
    # IPv4 that some programs read as 127.0.0.1, and others as something else or nothing
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.1.evil.example",
    "127.0.0.1%lo",
    "127.0.0.1%evil.example",
    "::127.0.0.1",  # the old embedding, which no system routes to IPv4
    "64:ff9b::7f00:1",
    "::1%",
    "[127.0.0.1]",
    "[localhost]",
    "[::1",
    "::1]",
    "[[::1]]",
    "]::1[",
    "10.0.0.1",
    "::ffff:10.0.0.1",
    "fe80::1",
    "localhost.evil.example",
    "notlocalhost",
    "app-localhost",
    "localhost..",
    ".localhost",
    "a..localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "localho\u017ft",
    "\uff4cocalhost",
    "\u0661\u0662\u0667.0.0.1",
    "evil.example/.localhost",
    "user@localhost",
    "a b.localhost",
    "localhost\n",
    "127.0.0.1 ",
    f"{'a.' * MAX_NAME}localhost",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_what_can_only_mean_this_machine_is_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", NOT_LOOPBACK)
def test_what_can_mean_another_is_not(host):
    assert not is_loopback(host)


@given(st.text(max_size=300))
def test_no_text_is_too_odd(text):
    is_loopback(text)
    client_address(text, text, (network_of("0.0.0.0/0"),))


@given(st.ip_addresses())
def test_every_plain_address_is_judged_as_its_network_says(address):
    local = [network_of("127.0.0.0/8"), network_of("::1")]
    assert is_loopback(str(address)) is is_within(str(address), local)


@pytest.mark.parametrize("host", [host for host in LOOPBACK if "localhost" not in host.lower()])
def test_a_loopback_address_resolves_to_loopback_where_it_resolves(host):
    try:
        found = socket.getaddrinfo(host.strip("[]"), 0, flags=socket.AI_NUMERICHOST)
    except OSError:
        return
    assert all(is_loopback(entry[4][0]) for entry in found)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST.", "app.localhost"]
)
def test_the_client_which_stands_alone_knows_the_same_names(host):
    assert client_is_loopback(f"ws://{host}:3050/ws")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.1", "10.0.0.1", "localhost.evil.example"])
def test_and_no_others(host):
    assert not client_is_loopback(f"ws://{host}:3050/ws")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_one_machine_has_one_address(text, address):
    assert str(address_of(text)) == address


@pytest.mark.parametrize("text", ["", "unknown", "[::1]", "1.2.3", "1.2.3.4:80", "1.2.3.4%eth0"])
def test_anything_else_is_no_address(text):
    assert address_of(text) is None


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("::ffff:10.0.0.0/104", "10.1.2.3"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fd00::/8", "FD00:0::1"),
        ("fe80::/10", "fe80::1%eth0"),
    ],
)
def test_a_network_holds_its_addresses_however_they_are_written(text, inside):
    assert is_within(inside, [network_of(text)])
    assert not is_within("192.0.2.1", [network_of(text)])


def test_the_whole_of_ipv6_is_not_the_whole_of_ipv4():
    assert not is_within("192.0.2.1", [network_of("::/0")])


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        # what the client sent itself stands left of what the proxy appended
        ("10.0.0.1", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.9, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "127.0.0.1,,203.0.113.7", "203.0.113.7"),
        # several hops
        ("10.0.0.1", "203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "6.6.6.6,203.0.113.7 , 10.0.0.3,10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        # IPv6, and one machine written in several ways
        ("10.0.0.1", "2001:DB8:0::7", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("::ffff:10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        ("fd00::1%eth0", "2001:db8::7", "2001:db8::7"),
        # some proxies append the port
        ("10.0.0.1", "203.0.113.7:50123", "203.0.113.7"),
        ("10.0.0.1", "[2001:db8::7]:50123", "2001:db8::7"),
        # no header, or none that can be read: the proxy that wrote it
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, _hidden, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.7,", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7 10.0.0.2", "10.0.0.1"),
        ("10.0.0.1", "for=203.0.113.7", "10.0.0.1"),
        ("10.0.0.1", '"203.0.113.7"', "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7:port", "10.0.0.1"),
        ("10.0.0.1", "127.1", "10.0.0.1"),
        ("10.0.0.1", "a" * 10_000, "10.0.0.1"),
        # no proxy of ours
        ("198.51.100.9", "203.0.113.7", "198.51.100.9"),
        ("::ffff:198.51.100.9", "203.0.113.7", "198.51.100.9"),
        ("", "203.0.113.7", ""),
    ],
)
def test_the_clients_address_is_what_trusted_proxies_wrote(peer, forwarded_for, client):
    trusted = (network_of("10.0.0.0/8"), network_of("fd00::/8"))
    assert client_address(peer, forwarded_for, trusted) == client
