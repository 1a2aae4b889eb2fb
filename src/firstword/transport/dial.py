"""Open a connection to an upstream: names, happy eyeballs, the proxy on the way, TLS.

Everything that can go wrong here comes out as UpstreamConnectError or UpstreamTimeout. The words that a
caller may see name no host; the host stands in `detail`, for the log.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import cast
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs

from ..clock import timeout
from ..errors import ConfigError, UpstreamConnectError, UpstreamTimeout
from .connection import Connection
from .tls import Resumption

HAPPY_EYEBALLS_DELAY = 0.25  # seconds before the next address is tried as well (RFC 8305, section 5)
MAX_PROXY_HEAD = 16 * 1024  # bytes of a proxy's answer to CONNECT


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections are shared: scheme, host and port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as a Host header says them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True when the upstream is on this machine."""
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that makes tunnels (CONNECT), with its credentials."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


@lru_cache(maxsize=256)
def split(url: str) -> tuple[Origin, str]:
    """Return a URL's origin and its request target. Raises ConfigError when it is no http(s) URL."""
    wrong = ConfigError(
        "The base URL is not an http or https URL.", hint="set LLM_BASE_URL as in https://api.openai.com/v1"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets around half an address, or a port that is no number
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise wrong  # a user and password would be dropped: a key goes into LLM_API_KEY
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)), target


def read_proxy(url: str) -> Proxy:
    """Read a proxy's URL. Raises ConfigError when it is not `http://[user:password@]host:port`."""
    wrong = ConfigError("HTTPS_PROXY is not an http:// URL.", hint="write it like http://proxy.example:3128")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:
        raise wrong from None
    if parts.scheme != "http" or not parts.hostname:
        raise wrong
    authorization = None
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, port, authorization)


async def dial(
    origin: Origin,
    make: Callable[[], Connection],
    *,
    within: float,
    proxy: Proxy | None,
    resuming: Callable[[Origin], Resumption],
    plug: Callable[[str, int], Awaitable[socket.socket]] | None = None,
    check: Callable[[Origin, str], None] | None = None,
) -> Connection:
    """Return a new open connection to `origin`, made by `make`, within `within` seconds.

    `plug` returns the connected socket for a host and port; None is TCP, whose every address `check` is shown first.
    Raises UpstreamConnectError or UpstreamTimeout, or what `check` raises; nothing is left open then, nor after a
    cancellation.
    """
    try:
        async with timeout(within):
            resumption = resuming(origin) if origin.scheme == "https" else None
            if proxy is None:
                allow = partial(check, origin) if check is not None else None
                sock = await (plug(origin.host, origin.port) if plug else _connect(origin.host, origin.port, allow))
            else:
                sock = await _tunnel(proxy, origin)
            return await _dress(sock, origin, make, resumption)
    except (TimeoutError, asyncio.TimeoutError):
        raise UpstreamTimeout(
            "The model's server did not take the connection in time.",
            phase="connect",
            hint="check LLM_BASE_URL; FIRSTWORD_CONNECT_TIMEOUT is what it may take",
            detail=origin.authority,
        ) from None
    except (OSError, UnicodeError) as error:  # gaierror, refused, reset, certificate; a name with an empty label
        raise UpstreamConnectError(
            f"The model's server could not be reached: {_reason(error)}.",
            hint="check LLM_BASE_URL, and the network between here and there",
            detail=origin.authority,
        ) from None


async def _connect(host: str, port: int, allow: Callable[[str], None] | None = None) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if allow is not None:
        for *_, address in addresses:  # all of them: the name is not looked up again, and any may be the one connected
            allow(str(address[0]))
    sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a turn is one small write: never wait for an ACK
    return sock


async def _tunnel(proxy: Proxy, origin: Origin) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = await _connect(proxy.host, proxy.port)
    try:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", f"Host: {host}:{origin.port}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await loop.sock_recv(sock, 4096)
            answer += data
            if not data or len(answer) > MAX_PROXY_HEAD:
                raise OSError("the proxy closed the connection")
        status = answer.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise OSError(f"the proxy answered {b''.join(status).decode('ascii', 'replace')[:3]}")
    except BaseException:
        sock.close()
        raise
    return sock


async def _dress(
    sock: socket.socket, origin: Origin, make: Callable[[], Connection], resumption: Resumption | None
) -> Connection:
    """Put our protocol, and TLS where the origin asks for it, on a connected socket."""
    loop = asyncio.get_running_loop()
    try:
        transport, connection = await loop.create_connection(
            make,
            sock=sock,
            ssl=cast("ssl.SSLContext | None", resumption),
            server_hostname=origin.host if resumption else None,
        )
    except BaseException:
        if resumption:
            resumption.failed()
        with contextlib.suppress(OSError):  # uvloop below 0.23 has closed its number already, when it was cancelled
            sock.close()
        raise
    if resumption:
        resumption.succeeded(transport.get_extra_info("ssl_object"))
    return connection


def _reason(error: OSError | UnicodeError) -> str:
    """Say why in words that hold no address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "its name is unknown"
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    if str(error).startswith("the proxy"):
        return str(error)
    return (error.strerror or type(error).__name__).lower()
