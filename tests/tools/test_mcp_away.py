"""MCP servers that die, come back, hang or lead elsewhere: they cost their tools, and nothing else.

Rules:
- A server is killed without a word, as a machine that fails; a test ends with nothing left of it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from api_of_a_test import Api, Serve
from mcp_of_a_test import OLD_SERVER, SERVER, HTTPServer, names, refused, told, until
from requests_of_a_test import deaf

from firstword.tools.mcp import CLOSE_TIMEOUT, MCP


@pytest.fixture(params=[False, True], ids=["new", "legacy"])
def server(request: pytest.FixtureRequest) -> Iterator[HTTPServer]:
    process = HTTPServer(legacy=request.param)
    process.legacy = request.param  # type: ignore[attr-defined]
    yield process
    process.kill()


async def opened(server: Any, **more: Any) -> MCP:
    mcp = MCP(server, **more)
    await mcp.open()
    await until(lambda: bool(mcp.tools))
    return mcp


async def test_a_server_that_dies_costs_its_tools_until_it_is_back(
    server: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is killed during a call, and started again on its port: nobody has to do anything."""
    caplog.set_level(logging.INFO, "firstword")
    mcp = await opened(server.url, private=True)
    loop = asyncio.get_running_loop()
    slow = asyncio.create_task(refused(mcp, "slow"))
    while (await told(mcp, "how_often", name="slow"))["result"] == 0:
        pass

    killed = loop.time()
    await asyncio.to_thread(server.kill)

    assert await slow == "The connection to the tool's server was lost. It is not known whether it was done."
    await until(lambda: not mcp.tools)
    assert loop.time() - killed < 2  # at once, were the machine not busy; not after a look at the list (30 s)
    back = await asyncio.to_thread(HTTPServer, legacy=server.legacy, port=server.port)  # type: ignore[attr-defined]
    await until(lambda: bool(mcp.tools))
    assert await told(mcp, "echo", text="back") == {"result": "back"}
    await mcp.close()
    back.kill()
    said = [record.getMessage() for record in caplog.records if record.name == "firstword"]
    assert [line.split(" server=")[0] for line in said if "left out" not in line and "tool failed" not in line] == [
        "mcp server is here",
        "mcp server is away",
        "mcp server is here",
    ]


@pytest.mark.parametrize(
    ("command", "leave", "pid"), [([SERVER, "stdio"], "die", "pid"), ([OLD_SERVER], "leave", "pid")], ids=["new", "old"]
)
async def test_a_process_that_dies_is_started_again(
    command: list[str], leave: str, pid: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It exits in the middle of a call; with the old one, again when it is back. The log has each time."""
    mcp = await opened([sys.executable, *command])
    times = 2 if command == [OLD_SERVER] else 1
    for _ in range(times):
        before = await told(mcp, pid)
        assert (await refused(mcp, leave)).startswith("The connection to the tool's server was lost.")
        await until(lambda: not mcp.tools)
        await until(lambda: bool(mcp.tools))
        assert await told(mcp, pid) != before

    await mcp.close()
    assert caplog.text.count("mcp server is away") == times


async def test_an_old_process_that_dies_unasked_is_noticed() -> None:
    """Nothing is being asked; an old protocol has no open request that could fail."""
    import os
    import signal

    mcp = await opened([sys.executable, OLD_SERVER])
    first = await told(mcp, "pid")
    os.kill(int(first), signal.SIGKILL)

    await until(lambda: not mcp.tools, within=5)
    await mcp.close()


async def test_calls_in_flight_end_when_we_leave() -> None:
    """The App is stopped while a tool runs; the process does not read its end, and is ended all the same."""
    mcp = await opened([sys.executable, OLD_SERVER])
    hang = asyncio.create_task(refused(mcp, "hang"))
    await asyncio.sleep(0)
    await mcp.close()

    assert (await asyncio.wait_for(hang, 5)).startswith("The connection to the tool's server was lost.")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/mcp", "deaf", "nobody"])
async def test_a_server_that_is_not_there_holds_nothing_up(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Refused, silent, a command that does not exist: the App starts and stops at once, without its tools."""
    loop = asyncio.get_running_loop()
    with deaf() as listener:
        server: Any = url if url != "deaf" else f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        mcp = MCP(["/nowhere/at-all"]) if url == "nobody" else MCP(server, private=True)
        began = loop.time()
        await mcp.open()
        await mcp.open()
        assert loop.time() - began < 0.1
        if url == "deaf":
            await until(lambda: mcp._outside._transport is not None and mcp._outside._transport.in_use == 1)
        else:
            await until(lambda: "mcp server is away" in caplog.text)
        assert mcp.tools == ()
        began = loop.time()
        await mcp.close()
        await mcp.close()
        assert loop.time() - began < CLOSE_TIMEOUT
    assert caplog.text.count("mcp server is away") <= 1


async def test_opening_and_closing_at_once_leaves_nothing() -> None:
    """An App that is stopped before it has begun; then it is started again."""
    before = asyncio.all_tasks()
    mcp = MCP([sys.executable, OLD_SERVER])
    await mcp.open()
    await mcp.close()
    assert asyncio.all_tasks() == before

    await mcp.open()
    await until(lambda: bool(mcp.tools))
    await mcp.close()
    assert asyncio.all_tasks() == before


async def test_a_name_that_leads_within_is_not_connected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's name has a private address, among others."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("8.8.8.8", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        mcp = MCP(f"https://tools.example:{port}/mcp")
        await mcp.open()
        await until(lambda: "is away" in caplog.text)
        await mcp.close()
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "reason='The API has an address that may not be reached.'" in caplog.text


async def test_a_redirect_elsewhere_is_not_followed(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The server sends us on, key and all, to another port of the machine."""
    api, elsewhere = Api(serve), Api(serve)
    api.says("/mcp", b"", status=307, location=f"{elsewhere.url}/mcp")
    mcp = MCP(f"{api.url}/mcp", private=True, headers={"authorization": "Bearer secret"})
    await mcp.open()
    await until(lambda: "is away" in caplog.text)
    await mcp.close()

    assert api.asked != [] and elsewhere.asked == []


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"nothing", b'{"jsonrpc": "2.0"}'])
async def test_a_server_that_speaks_something_else_is_away(
    serve: Serve, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    """A URL of something that is no MCP server."""
    api = Api(serve)
    api.says("/mcp", answer)
    mcp = MCP(f"{api.url}/mcp", private=True)
    await mcp.open()
    await until(lambda: "mcp server is away" in caplog.text)
    assert names(mcp) == []
    await mcp.close()
