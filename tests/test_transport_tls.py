"""TLS sessions that are resumed: real handshakes, counted by the server, on both loops and in both versions.

Rules:
- What is resumed is told by the server's side, which could not be talked into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trustme
from requests_of_a_test import everything

from firstword import clock
from firstword.errors import UpstreamConnectError, UpstreamTimeout
from firstword.transport import Connection, Transport, tls
from firstword.wire import HttpRequest

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST_REPLY = REPLY.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def _trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine trusts the test's authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls.trust.cache_clear()
    yield
    tls.trust.cache_clear()


def side(authority: trustme.CA, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return a server's side, with a certificate and ticket keys of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


class Site:
    """An origin: a port that stays, a server on it that comes and goes, and how each of its handshakes was."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []
        self.reply = REPLY
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}/v1"

    @contextlib.asynccontextmanager
    async def served(self, context: ssl.SSLContext | None) -> AsyncIterator[None]:
        """Answer every request; without a context, without TLS."""
        writers = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            if context is not None:
                self.resumed.append(bool(writer.get_extra_info("ssl_object").session_reused))
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while True:
                    await reader.readuntil(b"\r\n\r\n" if context else b"\x03")
                    writer.write(self.reply)

        server = await asyncio.start_server(talk, "127.0.0.1", self.port, ssl=context)
        try:
            yield
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()


async def asks(transport: Transport, site: Site) -> Connection:
    """Send a request and return its connection, the reply read."""
    connection = await transport.request(HttpRequest("GET", site.url, (), b""), within=5)
    assert await everything(connection) == b"ok"
    return connection


async def hangs_up(transport: Transport, site: Site, times: int = 1) -> None:
    """Send requests one after the other, and close each connection as a caller does who interrupts."""
    for _ in range(times):
        (await asks(transport, site)).abort()


def on_asyncio(test: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(test())
    finally:
        loop.close()


def on_uvloop(test: Callable[[], Awaitable[None]]) -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(test())
    finally:
        loop.close()


# --- resumed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_a_new_connection_resumes_the_session_of_the_last(
    authority: trustme.CA, version: ssl.TLSVersion, run: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    """The last one was cut by us, closed by the upstream, or is at work; each is resumed as well as any other."""

    async def turns() -> None:
        site, transport = Site(), Transport()
        async with site.served(side(authority, version)):
            await hangs_up(transport, site, times=3)
            assert site.resumed == [False, True, True]
            site.reply = LAST_REPLY
            await asks(transport, site)
            at_work = [await asks(transport, site) for _ in range(2)]
            assert site.resumed == [False, *[True] * 5]
            assert [connection.status for connection in at_work] == [200, 200]
            await transport.close()

    run(turns)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_a_burst_of_turns_resumes_one_session(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    """The upstream restarts its front, and all calls connect at the same moment."""
    site, transport = Site(), Transport()
    async with site.served(side(authority, version)):
        await hangs_up(transport, site)
        await asyncio.gather(*(asks(transport, site) for _ in range(10)))
        assert site.resumed == [False, *[True] * 10]
        await transport.close()


# --- not resumed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_a_server_that_knows_the_session_no_more_gets_a_full_handshake(
    authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    """It was restarted, or another machine answers: no turn fails, and the new session is the next to be resumed."""
    site, transport = Site(), Transport()
    async with site.served(side(authority, version)):
        await hangs_up(transport, site, times=2)
    async with site.served(side(authority, version)):
        await hangs_up(transport, site, times=2)
    assert site.resumed == [False, True, False, True]


async def test_a_server_without_tickets_is_asked_in_full_each_time(authority: trustme.CA) -> None:
    """It resumes nothing, and nothing is missed."""
    context = side(authority)
    context.num_tickets = 0
    site, transport = Site(), Transport()
    async with site.served(context):
        await hangs_up(transport, site, times=3)
    assert site.resumed == [False] * 3


async def test_a_session_is_offered_to_its_own_origin_only(authority: trustme.CA) -> None:
    """Two ports of one host, and two pools; the server would take the session at any of them."""
    context = side(authority)
    one, two = Site(), Site()
    transport, other = Transport(), Transport()
    async with one.served(context), two.served(context):
        await hangs_up(transport, one)
        await hangs_up(transport, two)
        await hangs_up(other, one)
        assert (one.resumed, two.resumed) == ([False, False], [False])
        await hangs_up(transport, two)
        assert two.resumed == [False, True]


@pytest.mark.parametrize("failure", ["not TLS", "silent"])
async def test_a_handshake_that_fails_takes_its_session_with_it(
    authority: trustme.CA, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that a server chokes on must not be offered for ever."""
    context = side(authority)
    site, transport = Site(), Transport()
    async with site.served(context):
        await hangs_up(transport, site)
    if failure == "silent":
        with socket.create_server(("127.0.0.1", site.port)), pytest.raises(UpstreamTimeout):
            monkeypatch.setattr(transport, "_connect_timeout", 0.1)  # for this one: the others may take their time
            await asks(transport, site)
        monkeypatch.undo()
    else:
        async with site.served(None):
            with pytest.raises(UpstreamConnectError):
                await asks(transport, site)
    async with site.served(context):  # which has forgotten nothing
        await hangs_up(transport, site, times=2)
    assert site.resumed == [False, False, True]


# --- whom to trust --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_a_stranger_in_the_place_of_a_known_server_is_not_trusted(
    authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    """Whoever cannot read our ticket has to show a certificate, and it is looked at as ever."""
    site, transport = Site(), Transport()
    async with site.served(side(authority, version)):
        await hangs_up(transport, site)
    async with site.served(side(trustme.CA(), version)):
        with pytest.raises(UpstreamConnectError, match="its certificate is not trusted"):
            await asks(transport, site)


async def test_the_certificate_is_looked_at_again_after_an_hour(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have expired since; resumed sessions do not prolong the hour."""
    began, passed = clock.now(), 0.0
    monkeypatch.setattr(clock, "now", lambda: began + passed)
    site, transport = Site(), Transport()
    async with site.served(side(authority)):
        for passed in (0.0, 0.6, 0.9, 1.2, 1.8):
            passed *= tls.CERTIFICATE_AGE
            await hangs_up(transport, site)
    assert site.resumed == [False, True, True, False, True]


def test_sessions_are_kept_for_a_bounded_number_of_origins() -> None:
    """Whatever decides on origins, memory does not grow with them."""
    resuming = tls.resumptions()
    first, last = resuming("0.example:443"), None
    for number in range(tls.MAX_ORIGINS):
        last = resuming(f"{number + 1}.example:443")
    assert resuming(f"{tls.MAX_ORIGINS}.example:443") is last
    assert resuming("0.example:443") is not first
