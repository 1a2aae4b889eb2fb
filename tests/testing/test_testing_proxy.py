"""The local proxy opens tunnels, asks for credentials, refuses, and remembers."""

from __future__ import annotations

import base64
import socket

import pytest

from firstword.testing import Proxy, Upstream, script

PATIENCE = 10.0  # seconds


def ask(proxy: Proxy, target: str, *headers: str) -> tuple[socket.socket, bytes]:
    """Ask for a tunnel; return the connection and the head of the answer."""
    line = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
    line.sendall("\r\n".join([f"CONNECT {target} HTTP/1.1", f"host: {target}", *headers, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += line.recv(1)
    return line, head


async def test_a_tunnel_carries_bytes_and_the_close_both_ways(upstream: Upstream) -> None:
    """An upstream is reached through the proxy; then the caller barges in, and then the upstream goes."""
    target = f"127.0.0.1:{upstream.port}"
    with Proxy.start() as proxy:
        line, head = ask(proxy, target)
        assert head == b"HTTP/1.1 200 OK\r\n\r\n"
        silent = script.in_headers(script.sends_only_headers(), "tunnel")
        rows = [f"{name}: {value}" for name, value in silent.items()]
        line.sendall("\r\n".join(["POST / HTTP/1.1", "host: a", *rows, "", ""]).encode())
        assert line.recv(12) == b"HTTP/1.1 200"
        line.close()
        assert (await upstream.wait_closed("tunnel"))[0].closed_by == "peer"

        line, _ = ask(proxy, target)
        line.sendall(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        heard = b""
        while piece := line.recv(65_536):
            heard += piece
        line.close()
        assert heard.startswith(b"HTTP/1.1 200 OK") and heard.endswith(b"]}")

        assert [(record.method, record.path) for record in proxy.seen()] == [("CONNECT", target)] * 2
        assert (await proxy.wait_connections(open=0)).total == 2


def test_credentials_are_asked_for_and_taken(upstream: Upstream) -> None:
    """A company's proxy with Basic authentication."""
    target, credentials = f"127.0.0.1:{upstream.port}", base64.b64encode(b"anna:secret").decode()
    with Proxy.start(basic="anna:secret") as proxy:
        without, head = ask(proxy, target)
        assert head.startswith(
            b'HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm="local"\r\n'
        )
        assert without.recv(1) == b""
        without.close()
        allowed, head = ask(proxy, target, f"Proxy-Authorization: Basic {credentials}")
        assert head.startswith(b"HTTP/1.1 200")
        allowed.close()
        assert [record.header("proxy-authorization") for record in proxy.seen()] == [None, f"Basic {credentials}"]


@pytest.mark.parametrize(("refuse", "targets", "status"), [(403, ["a:443"], 403), (None, ["127.0.0.1:1", "a"], 502)])
def test_a_tunnel_that_is_not_opened_has_a_status(refuse: int | None, targets: list[str], status: int) -> None:
    """Refused by a rule; or nobody listens there, or no port was named."""
    with Proxy.start(refuse=refuse) as proxy:
        for target in targets:
            line, head = ask(proxy, target)
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert line.recv(1) == b""
            line.close()
