"""Names of hosts: read in one way only, held against patterns, and told from those of a network of one's own.

Pure. What different readers take for different hosts is no host here: `0x7f.1`, `127.1`, `user@host`, a zone behind an
address, signs that are not ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from .addresses import may_reach
from .errors import ConfigError

ANY: Final = "*"

# Endings of names that a network gives to its own hosts (RFC 6761, 6762, 8375, and what routers and clouds use). A name
# of one label is of that kind too.
OWN_ENDINGS: Final = frozenset(
    {"localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "svc", "test"}
)
_HOME: Final = ".home.arpa"

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_is_name = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?").fullmatch
_is_number = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)").fullmatch
_parts = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:[0-9]{1,5})?").fullmatch


def read_host(authority: str) -> str | None:
    """Return the host of `host`, `host:port` or `[address]:port` in the form in which hosts are compared.

    That is lower case, without port, brackets or a dot at the end. None for what is no host, or one that somebody else
    could read as another.
    """
    found = _parts(authority.lower())
    if found is None or not authority.isascii():
        return None
    host = found[1]
    try:
        if host.startswith("["):
            return None if "%" in host else str(IPv6Address(host[1:-1]))
        if len(host) > 253 or _is_name(host) is None:
            return None
        host = host.removesuffix(".")
        # A name whose last label is a number is an address to whoever connects, in whatever form (WHATWG URL, 3.5).
        return str(IPv4Address(host)) if _is_number(host.rsplit(".", 1)[-1]) else host
    except (AddressValueError, ValueError):
        return None


def is_public(host: str) -> bool:
    """True when a host, as `read_host` returns it, is not of one's own network, by all that is seen of it.

    A name is not looked up: it may still lead there.
    """
    if is_address(host):
        return may_reach(host)
    return "." in host and host.rsplit(".", 1)[-1] not in OWN_ENDINGS and not f".{host}".endswith(_HOME)


def is_address(host: str) -> bool:
    """True for a host that is an address and no name."""
    return ":" in host or host.rsplit(".", 1)[-1].isdecimal()


def read_patterns(written: Sequence[str], setting: str) -> tuple[str, ...]:
    """Return patterns of hosts: a host, `*.example.com` for all below it, or `*` for any. Raises ConfigError."""
    return tuple(_pattern(each.strip(), setting) for each in written)


def _pattern(written: str, setting: str) -> str:
    if written == ANY:
        return ANY
    start = "*." if written.startswith("*.") else ""
    parts = _parts(written.removeprefix("*."))
    host = read_host(parts[1]) if parts is not None and not parts[2] else None
    if host is None or (start and is_address(host)):
        raise ConfigError(
            f"{setting} holds what is no name of a host.",
            hint=f"write {setting}=api.example.com,*.example.org, without https:// and without a port",
        )
    return start + host


def matches(host: str, patterns: Sequence[str]) -> bool:
    """True when one of the patterns means this host. `*.example.com` does not mean `example.com` itself."""
    return any(
        each == ANY or host == each or (each.startswith("*.") and host.endswith(each[1:]) and host != each[2:])
        for each in patterns
    )
