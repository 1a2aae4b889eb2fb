"""Tools that fetch reach public addresses only, however an address or a name is written, and whatever a name means.

Rules:
- The name server is the worst one: every name that is no address leads to this machine, where the canary listens.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from api_of_a_test import some_turn

from firstword.errors import ConfigError, ToolError
from firstword.testing import Upstream
from firstword.tools.http import HTTPTool
from firstword.tools.mcp import MCP
from firstword.tools.openapi import openapi

HOSTS = [
    # this machine
    "127.0.0.1",
    "127.255.255.254",
    "127.0.0.1.",
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "017700000001",
    "2130706433",
    "127.0.0.01",
    "0",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "a.localhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[::1%25lo]",
    # the network around it
    "10.0.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    # nobody
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
    "[2001:db8::1]",
    # one in the dress of another
    "8.8.8.8@127.0.0.1",
    "example.com:443@127.0.0.1",
    "127.0.0.1%2f.example.com",
    "127.0.0.1#.example.com",
    "127.0.0.1\\.example.com",
    "ⓛocalhost",
    "１２７.0.0.1",
    "127。0。0。1",
    "bücher.example",
    # names, which all lead to this machine
    "redis",
    "metadata.google.internal",
    "example.com",
    "xn--lcalhost-u3a.example",
    "127.0.0.1.nip.example",
]


@pytest.fixture(scope="module")
def canary() -> Iterator[Upstream]:
    with Upstream.start() as process:
        yield process


@pytest.fixture
def leads_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that says 127.0.0.1 of every name; addresses are read as the C library reads them."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        try:
            return real(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            return real("127.0.0.1", port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def by_http(url: str) -> HTTPTool:
    return HTTPTool("tool", url, description="")


def by_openapi(url: str) -> HTTPTool:
    paths = {"/x": {"get": {"operationId": "op", "responses": {}}}}
    document = {"openapi": "3.1.0", "info": {}, "servers": [{"url": url}], "paths": paths}
    return openapi(document, operations=["op"])[0]


@pytest.mark.usefixtures("leads_here")
@pytest.mark.parametrize("make", [by_http, by_openapi])
@pytest.mark.parametrize("host", HOSTS)
async def test_no_spelling_of_a_host_leads_a_tool_inward(
    canary: Upstream, host: str, make: Callable[[str], HTTPTool]
) -> None:
    """The operator's URL, or a document's, is an attacker's; it is refused at start, or when it is called."""
    port = canary.base_url.split(":")[2].split("/")[0]
    try:
        tool = make(f"https://{host}:{port}/")
    except ConfigError:
        return
    try:
        with pytest.raises(ToolError) as caught:
            await asyncio.wait_for(tool.call({}, some_turn()), 5)
        assert "may not be reached" in caught.value.message
    finally:
        await tool.close()
    assert canary.connections().total == 0


@pytest.mark.usefixtures("leads_here")
async def test_no_name_leads_an_mcp_server_inward(canary: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """The same for a server of tools: it stays away, and nothing was connected."""
    port = canary.base_url.split(":")[2].split("/")[0]
    servers = []
    for host in HOSTS:
        try:
            servers.append(MCP(f"https://{host}:{port}/mcp"))
        except ConfigError:
            continue
    assert len(servers) > 5
    try:
        await asyncio.gather(*(server.open() for server in servers))
        while caplog.text.count("mcp server is away") < len(servers):
            await asyncio.sleep(0.005)
        assert caplog.text.count("may not be reached") >= len(servers)
        assert [server.tools for server in servers if server.tools] == []
    finally:
        await asyncio.gather(*(server.close() for server in servers))
    assert canary.connections().total == 0


async def test_tools_use_no_proxy(canary: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would look the name up by itself, and the check would be of nothing."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, canary.base_url.removesuffix("/v1"))
    tool = by_http("https://tool.invalid/")
    with pytest.raises(ToolError, match="name is unknown"):
        await tool.call({}, some_turn())
    await tool.close()
    assert canary.connections().total == 0
