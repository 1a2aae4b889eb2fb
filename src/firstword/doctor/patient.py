"""The server that is examined, and a client of its own for it: raw sockets, so that every byte and moment is seen.

Rules:
- One connection for each request, unless a check wants to see a second one on it.
- Nothing is sent again, no redirect is followed, no proxy of the environment is used.
- A key is sent, and never shown.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httptools
import msgspec

from .. import clock
from .heard import Heard

CONNECT_TIMEOUT = 10.0  # seconds, TLS included
LINGER = 2.0  # seconds in which a reply has to end behind its [DONE]
LARGEST_REPLY = 32 * 1024 * 1024  # bytes
LARGEST_HEAD = 256 * 1024  # bytes
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Patient:
    """One server, and how it is called. `params` stand in every body, as an engine's `llm.params` do."""

    url: str
    key: str = field(default="", repr=False)
    model: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout: float = 30.0  # seconds for one reply
    trust: ssl.SSLContext | None = field(default=None, repr=False)  # None for a URL without TLS

    @property
    def host(self) -> str:
        """The name or address in the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port in the URL, or the usual one."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def has_tls(self) -> bool:
        """True for https."""
        return urlsplit(self.url).scheme == "https"

    @property
    def target(self) -> str:
        """The path and query that are asked for."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def shown(self) -> str:
        """The URL for people: without a name, a password or a query, which may be secret."""
        parts = urlsplit(self.url)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand in no line that is shown."""
        parts = urlsplit(self.url)
        values = (self.key, *self.headers.values(), parts.password or "", *dict(parse_qsl(parts.query)).values())
        return tuple(value for value in values if len(value) > 3)

    def at(self, path: str) -> Patient:
        """Return the same server, called at another path."""
        return replace(self, url=urlsplit(self.url)._replace(path=path).geturl())

    def body(self, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Return a streamed turn's body; a field that is None is left out."""
        named = {"model": self.model} if self.model else {}
        whole = {**self.params, **named, "stream": True, "messages": list(messages), **fields}
        return {name: value for name, value in whole.items() if value is not None}

    def over_tls(self) -> Patient:
        """Return the same server and port, called by https."""
        return self._by("https")

    def without_tls(self) -> Patient:
        """Return the same server and port, called by http, without the key and headers: they are not for all to see."""
        return replace(self._by("http"), key="", headers={})

    def _by(self, scheme: str) -> Patient:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return replace(self, url=urlsplit(self.url)._replace(scheme=scheme, netloc=f"{host}:{self.port}").geturl())

    def line(self, *, method: str = "POST", key: str | None = None, headers: Mapping[str, str] | None = None) -> Line:
        """Return a line that is not connected yet; `key` takes the place of the patient's: "" sends none."""
        return Line(self, method, self.key if key is None else key, headers or {})

    async def ask(self, body: Any, *, timeout: float | None = None, **more: Any) -> Heard:
        """Send one request and return the whole reply. Nothing is raised: `trouble` says what went wrong."""
        async with self.dial(**more) as line:
            await line.send(body)
            return await line.hear(timeout=timeout or self.timeout)

    @asynccontextmanager
    async def dial(
        self, *, method: str = "POST", key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Line]:
        """Open a connection; it is cut at the end of the block. One that fails is a line whose `heard` tells why."""
        line = self.line(method=method, key=key, headers=headers)
        try:
            await line.connect()
            yield line
        finally:
            line.cut()


class Line:
    """One connection: requests one after the other, each with what is heard of its reply."""

    def __init__(self, patient: Patient, method: str, key: str, headers: Mapping[str, str]) -> None:
        self.heard = Heard()
        self.seconds_to_connect = 0.0
        self.error: Exception | None = None  # why there is no connection
        self._patient, self._method, self._key, self._headers = patient, method, key, headers
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._parser: Any = None
        self._read_size = 0

    async def connect(self) -> None:
        """Open the connection, TLS included; what fails is kept in `error`."""
        began = clock.now()
        tls: dict[str, Any] = {}
        if self._patient.has_tls:
            tls = {"ssl": self._patient.trust, "server_hostname": self._patient.host}
        try:
            async with clock.timeout(CONNECT_TIMEOUT):
                self._reader, self._writer = await asyncio.open_connection(
                    self._patient.host, self._patient.port, **tls
                )
        except (OSError, asyncio.TimeoutError, ValueError) as error:  # an SSLError is an OSError
            self.error = error
            self.heard.trouble = no_connection(error)
        self.seconds_to_connect = clock.now() - began

    @property
    def certificate(self) -> dict[str, object] | None:
        """The server's certificate, as `ssl` tells it; None without TLS, or when it was not looked at."""
        return self._writer.get_extra_info("peercert") if self._writer is not None else None

    async def send(self, body: Any) -> None:
        """Send one request; bytes are sent as they are, None as no body, all else as JSON."""
        if self._writer is None:
            return
        self.heard, self._read_size = Heard(sent=clock.now()), 0
        self._parser = httptools.HttpResponseParser(_Reply(self.heard, lambda: self._parser))
        content = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        self._writer.write(self._head(len(content)) + content)
        # A server may answer before it has read all, and close: the reply counts.
        with suppress(OSError, asyncio.TimeoutError):
            async with clock.timeout(self._patient.timeout):
                await self._writer.drain()

    def _head(self, length: int) -> bytes:
        parts = urlsplit(self._patient.url)
        host = parts.netloc.rpartition("@")[2]
        lines = {
            "host": host,
            "user-agent": "firstword-check",
            "accept": "*/*",
            "accept-encoding": "gzip, deflate",
            "content-type": "application/json",
            "content-length": str(length),
            **({"authorization": f"Bearer {self._key}"} if self._key else {}),
            **{name.lower(): value for name, value in {**self._patient.headers, **self._headers}.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{self._method} {self._patient.target} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape")

    async def hear(self, *, until: Callable[[Heard], bool] | None = None, timeout: float) -> Heard:
        """Read until the reply is over, or `until` says that it is enough; return what was heard so far.

        A reply that has said `[DONE]` has LINGER seconds to end.
        """
        heard, ends_at, is_done = self.heard, clock.now() + timeout, False
        while self._reader is not None and not heard.is_whole and not heard.trouble and not (until and until(heard)):
            try:
                async with clock.timeout(max(ends_at - clock.now(), 0.0)):
                    data = await self._reader.read(65536)
            except asyncio.TimeoutError:
                heard.trouble = f"not over {LINGER:g} s after [DONE]" if is_done else f"not over in {timeout:g} s"
                heard.is_cut_by_us = not is_done
                break
            except OSError as error:
                heard.trouble = "the connection was reset" if isinstance(error, ConnectionError) else "TLS failed"
                break
            self._take(data)
            if not is_done and DONE.strip() in b"".join(data for _, data in heard.reads[-2:]):
                is_done, ends_at = True, min(ends_at, clock.now() + LINGER)
        heard.ended = clock.now()
        return heard

    def _take(self, data: bytes) -> None:
        heard = self.heard
        if not data:
            if heard.headed is not None and not {"content-length", "transfer-encoding"} & set(heard.headers):
                heard.is_whole = True  # HTTP: such a body ends with the connection
            elif not heard.is_whole:
                heard.trouble = "the connection was closed" + (" in mid-reply" if heard.headed else " without a reply")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            heard.trouble = f"what came is not HTTP: {data[:40]!r}" if heard.headed is None else "the framing is wrong"
        self._read_size += len(data)
        if heard.headed is None and self._read_size > LARGEST_HEAD:
            heard.trouble = f"a head of more than {LARGEST_HEAD} bytes"
        if self._read_size > LARGEST_REPLY:
            heard.trouble = f"more than {LARGEST_REPLY} bytes"

    def cut(self) -> None:
        """Hang up, with no good-bye."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = self._reader = None


class _Reply:
    """Takes what the HTTP parser finds to a Heard."""

    def __init__(self, heard: Heard, parser: Callable[[], Any]) -> None:
        self._heard = heard
        self._parser = parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; one that comes twice is joined."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._heard.headers[key] = f"{self._heard.headers[key]}, {text}" if key in self._heard.headers else text

    def on_headers_complete(self) -> None:
        """Note the status line."""
        self._heard.status = self._parser().get_status_code()
        self._heard.version = self._parser().get_http_version()
        self._heard.headed = clock.now()

    def on_body(self, data: bytes) -> None:
        """Note a piece of the body."""
        self._heard.take(clock.now(), data)

    def on_message_complete(self) -> None:
        """Note the end; of a 1xx, which is no reply, nothing is kept."""
        if self._heard.status < 200:
            self._heard.headers.clear()
            self._heard.headed = None
            return
        self._heard.is_whole = True
        self._heard.is_kept = self._parser().should_keep_alive()


def no_connection(error: Exception) -> str:
    """Return in a few words why there is no connection."""
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, asyncio.TimeoutError):
        return f"no connection in {CONNECT_TIMEOUT:g} s"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    return "no connection could be made"
