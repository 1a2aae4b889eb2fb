"""Where the store is, as a URL says it: read once, and shown without its password."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import ConfigError

PORT = 6379
SCHEMES = "redis://, rediss:// or unix://"
KNOWN = {"db", "ssl_ca_certs"}  # what may stand in the query, by the names of redis-py


@dataclass(frozen=True, slots=True)
class Address:
    """A server, or the path of its socket; who we are there; and which of its databases is ours."""

    host: str = ""
    port: int = PORT
    path: str = ""  # of a Unix socket; then there is no host
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    is_secure: bool = False
    roots: str = ""  # file of the certificates that are trusted; empty: the system's

    def __str__(self) -> str:
        """Return what may be shown."""
        return self.path or f"{self.host}:{self.port}"

    def tls(self) -> ssl.SSLContext | None:
        """Return how the connection is secured; None when it is not."""
        return ssl.create_default_context(cafile=self.roots or None) if self.is_secure else None


def read(url: str) -> Address:
    """Return what a URL says. Raises ConfigError, which never repeats it: it may hold a password."""
    try:
        parts = urlsplit(url)
        port, query = parts.port or PORT, parse_qs(parts.query, strict_parsing=bool(parts.query))
        is_local = parts.scheme == "unix"
        database = query.get("db", ["" if is_local else parts.path.strip("/")])[-1]
        address = Address(
            host="" if is_local else parts.hostname or "localhost",
            port=port,
            path=unquote(parts.path) if is_local else "",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(database or 0),
            is_secure=parts.scheme == "rediss",
            roots=query.get("ssl_ca_certs", [""])[-1],
        )
    except ValueError:
        raise _wrong("is no URL that can be read") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise _wrong(f"begins with none of {SCHEMES}")
    if (is_local and not address.path) or (is_local and parts.hostname):
        raise _wrong("names no path of a socket")
    if address.database < 0:
        raise _wrong("names no database")
    unknown = sorted(query.keys() - KNOWN)
    if unknown:
        raise _wrong(f"says {unknown[0]!r}, which nobody reads")
    try:
        address.tls()
    except OSError:
        raise _wrong("names a file of certificates that cannot be read") from None
    return address


def _wrong(why: str) -> ConfigError:
    return ConfigError(
        f"FIRSTWORD_REDIS_URL {why}.",
        hint="write redis://:password@host:6379/0, rediss:// for TLS, or unix:///path/of.sock?db=0",
    )
