"""On the way to an upstream: names, addresses, proxies, certificates, and connections made before they are needed.

Rules:
- What fails is an answer to the caller, 502 or 504, that says why and names no host.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from caller import Caller, turn
from requests_of_a_test import OK, Line, deaf, everything, full, says_to, until
from served import Served

import firstword.transport
from firstword import App
from firstword.errors import ConfigError, UpstreamConnectError, UpstreamTimeout
from firstword.testing import Proxy, Upstream, script
from firstword.transport import Transport, read_proxy
from firstword.transport.tls import trust

dial_module = importlib.import_module("firstword.transport.dial")  # the package has a function of that name
LOCAL = ("127.0.0.1", "0.0.0.0", "localhost")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """The scripted upstream under TLS, as real ones are."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert(*LOCAL)
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    with Upstream.start(tls=(str(folder / "cert.pem"), str(folder / "key.pem"))) as upstream:
        yield upstream


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine trusts the test's authority, told as any program is told: by SSL_CERT_FILE."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    trust.cache_clear()
    yield
    trust.cache_clear()


@contextlib.asynccontextmanager
async def listening(*first: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen on a port and send these bytes to whoever connects; nothing else is said."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if first:
                await reader.read(1)
                writer.write(b"".join(first))
                await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def message_of(reply: tuple[int, str]) -> str:
    message: str = json.loads(reply[1])["error"]["message"]
    return message


# --- certificates ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusted")
async def test_a_turn_over_tls_is_verified_and_its_connection_kept(secure: Upstream) -> None:
    """The real trust store of the process, the real handshake; three round trips only once."""
    transport = Transport()
    line = Line(transport, secure, "verified")
    assert [await line.hears(OK) for _ in range(3)] == [b"ok"] * 3
    assert await line.connections(3) == [0, 0, 0]
    await transport.close()

    context = trust()
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.usefixtures("trusted")
async def test_turns_and_hang_ups_are_the_same_under_tls(
    serve: Callable[[App], Served], secure: Upstream, request: pytest.FixtureRequest
) -> None:
    """uvloop has a TLS of its own: a long answer, a reset, a large request, and a hang-up that closes the line."""
    served, marker = serve(App(base_url=secure.base_url)), request.node.name
    caller = Caller(served.url)

    assert (await caller.says("word " * 3_000, user=marker)).text == "word " * 3_000
    assert (await caller.says("x" * 3_000_000, user=marker)).done
    heard = await caller.says(user=marker, script=script.resets_after("Hello"))
    assert (heard.text, heard.error["code"]) == ("Hello", "upstream_truncated")
    async with caller.dials(turn(user=marker, script=script.stalls_after("Hello"))) as call:
        await call.hears_word("Hello")
        call.hangs_up()
        records = await secure.wait_settled(marker, count=4)
    assert records[0].connection == records[1].connection and records[-1].closed_by == "peer"
    assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}


def self_signed(authority: trustme.CA) -> trustme.LeafCert:
    return trustme.CA().issue_cert(*LOCAL)


def of_another_host(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("api.example")


def expired(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert(*LOCAL, not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("issue", [self_signed, of_another_host, expired])
async def test_a_certificate_that_is_not_trusted_is_a_502_that_says_so(
    authority: trustme.CA, issue: Callable[[trustme.CA], trustme.LeafCert]
) -> None:
    """The key must not go to whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issue(authority).configure_cert(context)
    async with listening(tls=context) as port:
        reply = await says_to(App(base_url=f"https://127.0.0.1:{port}/v1", warm=False))

    assert reply[0] == 502 and "its certificate is not trusted" in message_of(reply)
    assert str(port) not in reply[1]


async def test_a_server_that_does_not_speak_tls_is_a_502(upstream: Upstream) -> None:
    """https:// was written where http:// was meant."""
    async with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        reply = await says_to(App(base_url=f"https://127.0.0.1:{port}/v1", warm=False))

    assert reply[0] == 502 and "the TLS handshake failed" in message_of(reply)


# --- names and addresses --------------------------------------------------------------------------


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""
    found: list[Any] = []
    for address, port in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        found.append((family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if ":" in address else (address, port)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: found)


@pytest.mark.parametrize("first", ["refused", "refused over IPv6", "silent"])
async def test_a_dead_first_address_delays_nobody_for_long(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A name with two addresses, of which the first is dead: RFC 8305."""
    with full() as silent, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused = taken.getsockname()[1]  # bound, and nobody listens
        dead = {
            "refused": ("127.0.0.1", refused),
            "refused over IPv6": ("::1", refused),
            "silent": ("127.0.0.1", silent),
        }
        resolve(monkeypatch, dead[first], ("127.0.0.1", upstream.port))
        # A refusal needs no delay at all; silence is waited for that long.
        monkeypatch.setattr(dial_module, "HAPPY_EYEBALLS_DELAY", 0.05 if first == "silent" else 9.0)
        transport = Transport()
        began = time.monotonic()
        await transport.reach("http://two.example/v1")
        assert time.monotonic() - began < 1.0
        await transport.close()


@pytest.mark.parametrize("name", ["nowhere.example", "two..dots.example", "x" * 70 + ".example"])
async def test_an_unknown_name_is_a_502(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A typing error in LLM_BASE_URL, also one that no resolver is asked about."""
    asked = socket.getaddrinfo

    def unknown(host: Any, *args: Any, **more: Any) -> Any:
        if host == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return asked(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    reply = await says_to(App(base_url=f"https://{name}/v1", warm=False), {"authorization": "Bearer key"})

    assert reply[0] == 502 and "its name is unknown" in message_of(reply)
    assert "LLM_BASE_URL" in message_of(reply) and name not in reply[1]


async def test_a_port_that_nobody_listens_on_is_a_502() -> None:
    """The model's server is not running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        reply = await says_to(App(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", warm=False))

    assert reply[0] == 502 and "connection refused" in message_of(reply)
    assert json.loads(reply[1])["error"]["code"] == "upstream_unreachable" and "127.0.0.1" not in reply[1]


async def test_a_host_that_is_away_is_a_504_in_time() -> None:
    """Its SYN is dropped: connect_timeout ends it, and the first token's time if that is shorter."""
    with full() as port:
        for limits in ({"connect_timeout": 0.1}, {"first_token_timeout": 0.1}):
            began = time.monotonic()
            reply = await says_to(App(base_url=f"http://127.0.0.1:{port}/v1", warm=False, **limits))  # type: ignore[arg-type]
            assert time.monotonic() - began < 1.0
            assert reply[0] == 504 and json.loads(reply[1])["error"]["code"] == "upstream_timeout"


async def test_a_handshake_or_a_resolver_that_never_answers_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts for all of the way: names, TCP, proxy and TLS."""
    transport = Transport(connect_timeout=0.05)
    with deaf() as listener:
        with pytest.raises(UpstreamTimeout) as caught:
            await transport.reach(f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert caught.value.phase == "connect"

    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: time.sleep(0.2))
    with pytest.raises(UpstreamTimeout):
        await transport.reach("http://slow.example")
    assert transport.open_count == 0


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusted")
async def test_a_tunnel_is_made_with_its_credentials_and_kept(secure: Upstream) -> None:
    """A company's proxy; the credentials stay between us and it, with every sign a password may have."""
    with Proxy.start(basic="us er:p@ss:wörd") as proxy:
        settings = read_proxy(proxy.url.replace("//", "//us%20er:p%40ss%3Aw%C3%B6rd@"))
        transport = Transport(proxy_for=lambda _: settings)
        line = Line(transport, secure, "tunnel")
        assert [await line.hears(OK) for _ in range(2)] == [b"ok"] * 2
        assert await line.connections(2) == [0, 0]

        (record,) = proxy.seen(until="now")
        assert (record.method, record.path, record.header("host")) == ("CONNECT", *[f"127.0.0.1:{secure.port}"] * 2)
        assert all(each.header("proxy-authorization") is None for each in secure.seen("tunnel"))

        open_to_none = Transport(proxy_for=lambda _: read_proxy(proxy.url))
        with pytest.raises(UpstreamConnectError, match="the proxy answered 407"):
            await open_to_none.reach(secure.base_url)
        await transport.close()
        assert open_to_none.open_count == 0


@pytest.mark.usefixtures("trusted")
async def test_the_environment_says_which_proxy_leads_where(secure: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY for every https host that NO_PROXY does not name; never for http, never for this machine."""
    base_url = f"https://0.0.0.0:{secure.port}/v1"  # leads here, and is no name of this machine's
    key = {"authorization": "Bearer key"}
    with Proxy.start() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert (await says_to(App(base_url=base_url, warm=False), key))[0] == 200
        assert [record.path for record in proxy.seen(count=1)] == [f"0.0.0.0:{secure.port}"]

        monkeypatch.setenv("NO_PROXY", "example.com,0.0.0.0")
        assert (await says_to(App(base_url=base_url, warm=False), key))[0] == 200
        monkeypatch.delenv("NO_PROXY")
        assert (await says_to(App(base_url=secure.base_url, warm=False), key))[0] == 200
        assert len(proxy.seen(until="now")) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "the proxy answered 403"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy answered 502"),
        (b"nonsense\r\n\r\n", "the proxy answered"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000, "the proxy closed the connection"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_a_502(monkeypatch: pytest.MonkeyPatch, answer: bytes, why: str) -> None:
    """The caller is told that it was the proxy, and not which."""
    async with listening(answer) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        app = App(base_url="https://llm.example/v1", warm=False)
        reply = await says_to(app, {"authorization": "Bearer key"})

    assert reply[0] == 502 and why in message_of(reply)
    assert str(port) not in reply[1] and "llm.example" not in reply[1]


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "https://127.0.0.1:1", "http://", "http://127.0.0.1:x"])
def test_a_proxy_of_another_kind_is_a_config_error(url: str) -> None:
    """Told at start, with how to write it; never with the password."""
    with pytest.raises(ConfigError, match="HTTPS_PROXY is not an http:// URL"):
        read_proxy(url)


# --- connected before it is needed ----------------------------------------------------------------


async def test_a_connection_is_there_before_the_first_turn(
    serve: Callable[[App], Served], upstream: Upstream, request: pytest.FixtureRequest
) -> None:
    """The first caller of the day waits for no handshake: one connection was made, and the turn made none."""
    made = upstream.connections().total
    served = serve(App(base_url=upstream.base_url))

    async def connected() -> None:
        await until(lambda: served.app._built is not None and served.app._built.transport.open_count == 1)

    await asyncio.to_thread(served.run, connected)
    heard = await Caller(served.url).says("Hi", user=request.node.name)

    await upstream.wait_settled(request.node.name)
    assert heard.text == "Hi" and upstream.connections().total == made + 1


async def test_a_connection_that_was_lost_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream restarts, or drops what is idle; it is there again before the next turn."""
    monkeypatch.setattr(firstword.transport, "WARM_PAUSE", 0.01)
    callers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: callers.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = Transport()
    transport.keep_warm(f"http://127.0.0.1:{port}/v1")
    transport.keep_warm(f"http://127.0.0.1:{port}/v1/other")  # the same origin: one connection
    for count in (1, 2, 3):
        await until(lambda count=count: len(callers) == count and transport.open_count == 1)  # type: ignore[misc]
        callers[-1].transport.abort()

    await until(lambda: len(callers) == 4)
    server.close()
    callers[-1].transport.abort()
    await until(lambda: transport.open_count == 0)  # it is away: nothing answers
    server = await asyncio.start_server(lambda _, writer: callers.append(writer), "127.0.0.1", port)
    await until(lambda: len(callers) == 5 and transport.open_count == 1)

    await transport.close()
    assert transport.open_count == 0 and len(asyncio.all_tasks()) == 1
    callers[-1].transport.abort()
    server.close()


async def test_a_turn_uses_the_connection_that_was_kept_ready(upstream: Upstream) -> None:
    """And a second one is made only when two turns are at work at once."""
    transport = Transport()
    await transport.reach(upstream.base_url)
    await transport.reach(upstream.base_url)
    assert transport.open_count == 1
    line = Line(transport, upstream, "ready")

    first = await line.asks(OK)
    second = await line.asks(OK)
    assert transport.open_count == 2
    for connection in (first, second):
        assert await everything(connection) == b"ok"
        connection.release()
    await transport.close()
