"""What a request says of its caller: the key that it carries, the address that it comes from, whether that is here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..errors import ConfigError, Unauthorized

HOW_TO_SEND = "send the header 'Authorization: Bearer <key>'"

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Client: TypeAlias = Sequence[Any] | None  # the peer's (host, port), as ASGI gives it


def read_key(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request carries: a Bearer token, a bare Authorization value, `api-key` or `x-api-key`.

    Raises Unauthorized when it is none that could be sent on in a header.
    """
    value = headers.get("authorization", "").strip()
    scheme, _, token = value.partition(" ")
    if scheme.lower() == "bearer":
        value = token.strip()
    if not value:
        value = (headers.get("api-key") or headers.get("x-api-key") or "").strip()
    if not value:
        return None
    if not is_key(value):
        raise Unauthorized("The key is not one that a header can carry.", hint=HOW_TO_SEND)
    return value


def is_key(value: str) -> bool:
    """True when `value` can be sent in a header as a key."""
    return " " not in value and value.isascii() and value.isprintable()


def networks(written: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks that are written like `10.0.0.0/8` or `10.1.2.3`. Raises ConfigError."""
    try:
        return tuple(ipaddress.ip_network(each, strict=False) for each in written)
    except ValueError:
        raise ConfigError(
            "FIRSTWORD_TRUSTED_PROXIES holds what is no network.", hint="write it like 10.0.0.0/8,fd00::/8"
        ) from None


def address_of(headers: Mapping[str, str], client: Client, proxies: Sequence[Network]) -> str:
    """Return where a request comes from: its peer, or behind `proxies` the last address that is none of theirs.

    What stands further to the left in `x-forwarded-for` is anybody's word, and so is all of it from any other peer.
    """
    here = "" if client is None else str(client[0])
    if not proxies or not _is_within(here, proxies):
        return here
    for each in reversed(headers.get("x-forwarded-for", "").split(",")):
        said = _without_port(each.strip()).strip("[]")
        if not _is_address(said):
            break  # what no proxy writes: whatever stands before it proves nothing
        here = said
        if not _is_within(said, proxies):
            break
    return here


def household(address: str) -> str:
    """Return what an address shares with others that one caller has at will: of IPv6 its /64, of IPv4 nothing."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def is_loopback(host: str) -> bool:
    """True for this machine's own addresses and names."""
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(headers: Mapping[str, str], client: Client) -> bool:
    """True when the request was made on this machine, for this machine.

    A tunnel or port forward (Codespaces, ngrok) and a rebound DNS name arrive from loopback too: they are told by
    the Host header and by what a proxy adds. So does a page of any site in a browser here, which may post without
    asking first: it is told by its Origin.
    """
    forwarded = any(name in _FORWARDED or name.startswith(_FORWARDED_STARTS) for name in headers)
    named = [headers.get("host", "")]
    if "origin" in headers:
        named.append(headers["origin"].partition("://")[2])
    # A Unix socket has no client address; file permissions guard it.
    peer_is_local = client is None or is_loopback(str(client[0]))
    return peer_is_local and not forwarded and all(is_loopback(_without_port(host)) for host in named)


# What proxies, tunnels and balancers add to a request that they pass on.
_FORWARDED = frozenset({"forwarded", "via", "x-real-ip", "true-client-ip", "x-client-ip"})
_FORWARDED_STARTS = ("x-forwarded", "x-original-", "x-envoy-", "cf-")


def _without_port(host: str) -> str:
    if host.endswith("]") or (host.count(":") > 1 and not host.startswith("[")):
        return host
    return host.rsplit(":", 1)[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_within(address: str, proxies: Sequence[Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in proxies)
