"""What an address or a host name stands for: this machine, a network, a client behind proxies.

Pure: nothing is resolved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

DEFAULT_PORTS = {"http": 80, "https": 443}
"""The port of a URL that names none, by its scheme."""

MAX_NAME = 255
"""The most characters of a host name (RFC 1035 §2.3.4); longer text is not a host name."""

_LOCALHOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*localhost\.?", re.IGNORECASE | re.ASCII)
_MAPPED = IPv6Network("::ffff:0:0/96")
_WITH_PORT = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[0-9.]+))(?::[0-9]{1,5})?")


def address_of(text: str) -> Address | None:
    """`text` as an IP address; None where it is not one.

    An IPv4 address inside an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address, and an IPv6 zone
    (`fe80::1%eth0`) is left out, so that one machine has one address. IPv4 in forms that programs
    read differently (`127.1`, `0177.0.0.1`, `2130706433`) is not accepted.
    """
    return _address(text) if len(text) <= MAX_NAME else None


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def is_loopback(host: str) -> bool:
    """Whether a bind address or a host name can only mean this machine.

    True for loopback addresses, with or without brackets, and for `localhost` and every name
    below it: no registry delegates them, and resolvers have to answer loopback for them
    (RFC 6761 §6.3), so that no website can have one pointed here. `0.0.0.0` and `::` are
    every address of the machine. A final dot changes nothing.
    """
    return len(host) <= MAX_NAME and _means_this_machine(host)


@lru_cache(maxsize=256)
def _means_this_machine(host: str) -> bool:
    if _LOCALHOST.fullmatch(host):
        return True
    if host.startswith("[") and host.endswith("]"):
        address = address_of(host[1:-1]) if ":" in host else None
    else:
        address = address_of(host.removesuffix("."))
    return address is not None and address.is_loopback


def network_of(text: str) -> Network:
    """The network of an address or a CIDR block, IPv4 inside IPv6 as IPv4. Raises
    `ValueError` for anything else, also where bits beyond the prefix are set."""
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inner = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((inner, network.prefixlen - _MAPPED.prefixlen))
    return network


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether `address` lies in one of `networks`; False for text that is not an address."""
    if not networks:
        return False
    found = address_of(address)
    return found is not None and any(found in network for network in networks)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The client's address, in one spelling for each machine.

    `peer` is the socket's other end, `forwarded_for` every `X-Forwarded-For` header in order,
    joined by commas. Each proxy appends the address of its own peer, so the list is read backwards
    as long as a trusted proxy wrote the entry: entries further left may come from the client
    itself. Where an entry is not an address (`unknown`, or a name), the result is the proxy that
    wrote it. A `peer` that is not an address (a Unix socket's is empty) is returned as it is.
    """
    client = _written(peer) or peer
    if not trusted:
        return client
    for entry in reversed(forwarded_for.split(",")):
        if not is_within(client, trusted):
            break
        hop = _written(_without_port(entry.strip()))
        if hop is None:
            break
        client = hop
    return client


def _written(text: str) -> str | None:
    return _known_spelling(text) if len(text) <= MAX_NAME else None


@lru_cache(maxsize=4096)
def _known_spelling(text: str) -> str | None:
    address = _address(text)
    return None if address is None else str(address)


def _without_port(entry: str) -> str:
    """Some proxies append the client's port: `203.0.113.7:50123`, `[2001:db8::7]:50123`."""
    match = _WITH_PORT.fullmatch(entry)
    return entry if match is None else match["six"] or match["four"] or ""
