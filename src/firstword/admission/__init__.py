"""Who may speak to us: the key of a request, and the gate in front of a key that the server holds.

A server with no key and no gate keys passes each caller's key on to the provider. With either of them no caller's
key ever goes upstream: a held key is for callers with a gate key, or for this machine alone.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, Forbidden, Unauthorized
from .grant import NOBODY, Grant

HOW_TO_SEND = "send the header 'Authorization: Bearer <key>'"


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


class Gate:
    """Decide whether a request may come in, and which key, if any, may go on to the provider.

    `keys` are the gate keys, kept only as hashes; `holds_key` says that the server has a provider's key of its own;
    `open_to_all` lets everybody use that key, for a server behind a gate of somebody else's.
    """

    def __init__(self, keys: Sequence[str], *, holds_key: bool, open_to_all: bool) -> None:
        if any(not key.strip() for key in keys):
            raise ConfigError("FIRSTWORD_KEYS holds an empty key.", hint="separate keys by single commas")
        self._digests = [_digest(key.strip()) for key in keys]
        self._holds_key = holds_key
        self._open_to_all = open_to_all

    @property
    def local_only(self) -> bool:
        """True when only this machine may be served: a held key, and nothing to tell callers apart."""
        return self._holds_key and not self._digests and not self._open_to_all

    @property
    def passes_keys(self) -> bool:
        """True when a caller's key is for the provider, and not for us."""
        return not self._holds_key and not self._digests

    def check_bind(self, host: str) -> None:
        """Raise ConfigError when listening on `host` would give the held key to strangers."""
        if self.local_only and not is_loopback(host):
            raise ConfigError(
                f"The server holds a key (LLM_API_KEY, or a Model's api_key): on {host} anybody could use it.",
                hint="set FIRSTWORD_KEYS to the keys of your callers, or listen on 127.0.0.1, "
                "or start with --open if something else guards the door",
            )

    def admit(self, headers: Mapping[str, str], client: Sequence[Any] | None) -> Grant:
        """Return what the caller may do. Raises Unauthorized or Forbidden.

        `client` is the peer's (host, port), as ASGI gives it.
        """
        if self.local_only and not _is_local(headers, client):
            raise Forbidden(
                "This server holds a key and has no gate keys, so it answers its own machine only.",
                hint="its operator can set FIRSTWORD_KEYS, or start it with --open",
            )
        if self._holds_key and not self._digests:
            return NOBODY
        key = read_key(headers)
        if not self._digests:
            if key is None and "origin" in headers and not self._open_to_all and not _is_local(headers, client):
                # A page of any site may post without asking first; tools would run, although it cannot read the reply.
                raise Forbidden(
                    "A page in a browser asked without a key, and it is not one of the server's own machine.",
                    hint="send a key, or the operator can start the server with --open",
                )
            return Grant(key=key)
        if key is None:
            raise Unauthorized("No key was sent.", hint=HOW_TO_SEND)
        digest = _digest(key)
        # Every key is compared, so that the time tells nothing about which one came close.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise Unauthorized("This key is not one of the server's.", hint="send one of its FIRSTWORD_KEYS")
        return NOBODY

    def admit_operator(self, headers: Mapping[str, str], client: Sequence[Any] | None) -> None:
        """Let in who may look inside: with a gate key, or, where there are none, from this machine.

        Raises Unauthorized or Forbidden.
        """
        if self._digests:
            self.admit(headers, client)
        elif not _is_local(headers, client):
            said = "Without gate keys this page is for the server's own machine only."
            raise Forbidden(said, hint="its operator can set FIRSTWORD_KEYS")


def is_loopback(host: str) -> bool:
    """True for this machine's own addresses and names."""
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_local(headers: Mapping[str, str], client: Sequence[Any] | None) -> bool:
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
    return host if host.endswith("]") else host.rsplit(":", 1)[0]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
