"""Which remote engines may be called: by the operator's list, and at every connection by the address behind the name.

An entry ``host`` of the list allows https on port 443 to public addresses. An entry ``host:port`` allows https or http on that
port and, since it was named exactly, private addresses too (another machine of the house, a server on this one). Addresses
of link-local networks, of the metadata services of clouds and those that are no machine's are never called.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from backend.problem import Problem

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[..., list[Any]]  # as socket.getaddrinfo

# Only what a base URL needs: no user, no query, no escapes, nothing outside ASCII, so that nothing is read in two ways.
URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[A-Za-z0-9._~-]+)*)/?"
)
METADATA = frozenset(
    ipaddress.ip_address(one)
    for one in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
NAT64 = ipaddress.ip_network("64:ff9b::/96")
NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")


class Refused(Problem):
    """This address may not be called; the message says why and who can change it."""


class Target(NamedTuple):
    """A base URL that the list allows."""

    scheme: str
    host: str  # lower case; an IPv6 address without its brackets
    port: int
    path: str  # without a final slash
    may_be_private: bool  # it is listed with its port

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.port == (443 if self.scheme == "https" else 80)
        return f"{self.scheme}://{host}{'' if is_usual else f':{self.port}'}{self.path}"


def target_of(url: str, allowed: Sequence[str]) -> Target:
    """The target of a base URL, if the list allows it. Raises Refused."""
    found = URL.fullmatch(url) if isinstance(url, str) and len(url) <= 300 else None
    if found is None or ".." in found["host"] or any(part in (".", "..") for part in found["path"].split("/")):
        raise Refused(
            "This is no base URL that can be used. Write it as https://host/v1 or http://host:port/v1: no user name, no "
            "query, no spaces and only plain letters.",
            "engine_url",
        )
    host = found["host"].lower()
    port = int(found["port"] or (443 if found["scheme"] == "https" else 80))
    if (literal := _literal(host.strip("[]"))) is not None and _is_never_called(literal):
        raise _never(host)
    listed = {entry.strip().lower() for entry in allowed}
    is_named = f"{host}:{port}" in listed
    if not is_named and not (host in listed and found["scheme"] == "https" and port == 443):
        is_usual = found["scheme"] == "https" and port == 443 and (literal is None or _is_public(literal))
        entry = host if is_usual else f"{host}:{port}"  # a private address is called only where its port is named too
        raise Refused(
            f"{host}:{port} is not among the hosts this server may call. Whoever runs it can add {entry} to the setting "
            "engine_hosts and start it again.",
            "engine_host",
            host=f"{host}:{port}",
            entry=entry,
        )
    return Target(found["scheme"], host.strip("[]"), port, found["path"], is_named)


def addresses_of(target: Target, lookup: Lookup = socket.getaddrinfo) -> list[str]:
    """The addresses behind the target's name now, each of which may be called. One that may not refuses them all.

    Connect to one of these, never to the name: a second look-up could give another. Raises Refused, OSError.
    """
    found = [entry[4][0] for entry in lookup(target.host, target.port, type=socket.SOCK_STREAM)]
    addresses = [ipaddress.ip_address(one.partition("%")[0]) for one in dict.fromkeys(found)]
    if not addresses:
        raise OSError("the name has no address")
    if any(_is_never_called(address) for address in addresses):
        raise _never(target.host)
    if not target.may_be_private and not all(_is_public(address) for address in addresses):
        entry = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        raise Refused(
            f"{target.host} leads to an address inside a network, which is called only where it is named with its port. If that "
            f"server is meant, whoever runs Whetstone can add {entry} to the setting engine_hosts and start it again.",
            "engine_address",
            host=target.host,
            entry=entry,
        )
    return [str(address) for address in addresses]


def _never(host: str) -> Refused:
    return Refused(
        f"{host} is or leads to an address that is never called, and no setting changes that: of a cloud's metadata service, of the "
        "link itself, or of no single machine. Give the engine another address.",
        "engine_never",
        host=host,
    )


def _literal(host: str) -> IpAddress | None:
    """The address that a host is, in any spelling that the system reads as one (2852039166, 0xa9.0xfe.43518); nothing is looked up."""
    try:
        return ipaddress.ip_address(host) if ":" in host else ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _is_never_called(address: IpAddress) -> bool:
    """Whether or not it is on the list."""
    real = _unwrapped(address)
    if real is None or real in METADATA or address in METADATA:
        return True
    return real.is_link_local or real.is_multicast or real.is_unspecified or (real.is_reserved and not real.is_loopback)


def _is_public(address: IpAddress) -> bool:
    real = _unwrapped(address)
    return real is not None and real.is_global


def _unwrapped(address: IpAddress) -> IpAddress | None:
    """The IPv4 address that an IPv6 one stands for, where it does; None where that cannot be told."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64_LOCAL:
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in NAT64 or (int(address) >> 32 == 0 and not address.is_loopback and not address.is_unspecified):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
