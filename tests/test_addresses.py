"""Which addresses tools may reach: the tables, held against the registries' own examples."""

from __future__ import annotations

import pytest

from firstword.addresses import NEVER, PRIVATE, may_reach

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
]
OWN = [
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "::1",
    "fc00::1",
    "fd12:3456:789a::1",
]
NOBODYS = [
    "0.0.0.0",
    "0.1.2.3",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "",
    "localhost",
    "127.1",
    "0x7f000001",
    "2130706433",
    "8.8.8.8 ",
    "8.8.8.8/32",
    "[::1]",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_reached(address: str) -> None:
    """The neighbours of what is refused are somebody's real hosts."""
    assert may_reach(address) and may_reach(address, private=True)


@pytest.mark.parametrize("address", OWN)
def test_a_private_address_is_for_whom_the_operator_named(address: str) -> None:
    """A name server answers with a host within; only an operator may have meant it."""
    assert not may_reach(address)
    assert may_reach(address, private=True)


@pytest.mark.parametrize("address", NOBODYS)
def test_some_addresses_are_out_of_reach_for_everybody(address: str) -> None:
    """Metadata of clouds, IPv4 in the dress of IPv6, documentation, and what is no address at all."""
    assert not may_reach(address)
    assert not may_reach(address, private=True)


def test_the_ends_of_every_refused_network_are_refused() -> None:
    """An off-by-one in the look-up, or a network of the other family, would let its first or last address through."""
    for network in (*PRIVATE, *NEVER):
        assert not may_reach(str(network[0])) and not may_reach(str(network[-1])), network
