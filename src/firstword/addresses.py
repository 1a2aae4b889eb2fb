"""Which addresses a request of ours may go to, when something else than the operator's settings has a say in it.

Pure: addresses in, a word out. The tables are ours, because what Python's `is_global` says differs between 3.10 and
3.13. Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890), and the clouds' own documents.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network


def _networks(*lines: str) -> tuple[Network, ...]:
    return tuple(ip_network(line) for line in lines)


# What an operator may name as a host of their own. Never reached by a name that nobody called private.
PRIVATE: Final = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",  # CGNAT, and the addresses of some clouds and overlay networks
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
)

# Where no host of anybody's is, or one that gives away a cloud's keys to whoever asks.
NEVER: Final = _networks(
    "0.0.0.0/8",  # on Linux a way to say this machine
    "100.100.100.200/32",  # Alibaba Cloud: metadata
    "168.63.129.16/32",  # Azure: the machine's host, by an address that looks public
    "169.254.0.0/16",  # link-local, and the clouds' metadata
    "192.0.0.0/24",  # protocol assignments; Oracle Cloud: metadata
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # relays for 6to4
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and the broadcast
    "2001::/23",  # protocol assignments; Teredo, which holds an IPv4 address
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which holds an IPv4 address
    "3fff::/20",  # documentation
    "fd00:ec2::/32",  # AWS: metadata
    "fd20:ce::/32",  # Google Cloud: metadata
)

# All of IPv6 that is given out to hosts. What lies outside holds an IPv4 address (mapped, compatible, NAT64), is for
# one link, or is nothing yet.
GLOBAL_UNICAST: Final = ip_network("2000::/3")


def may_reach(address: str, *, private: bool = False) -> bool:
    """True when a request may go to `address`, an IPv4 or IPv6 address as `getaddrinfo` writes it.

    `private` says that the operator named the host as one of their own network. Metadata, link-local, multicast and
    the like are out of reach even then, and so is what is no address.
    """
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if _within(found, NEVER):
        return False
    if _within(found, PRIVATE):
        return private
    return found.version == 4 or found in GLOBAL_UNICAST


def _within(address: IPv4Address | IPv6Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
