"""Tools of real MCP servers, written with the official SDK: what they bring, and what a model is told.

Rules:
- A server that is not killed is shared by the tests of this file; what happens when one dies is in test_mcp_away.py.
- `here` closes what it opened, and finds nothing left.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from mcp_of_a_test import OLD_SERVER, SERVER, HTTPServer, names, refused, told, until

from firstword import ConfigError, plugins
from firstword.errors import ToolError
from firstword.tools import Source
from firstword.tools.mcp import MCP

SECRET = "canary-4f2a9c1d"
Here = Callable[..., Coroutine[Any, Any, MCP]]


@pytest.fixture(scope="module", params=["new", "legacy"])
def server(request: pytest.FixtureRequest) -> Iterator[HTTPServer]:
    """A server of each of the two protocols."""
    process = HTTPServer(legacy=request.param == "legacy")
    yield process
    process.kill()


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    """Connect to servers, and wait until their tools are there."""
    opened: list[MCP] = []
    before = asyncio.all_tasks()

    async def connect(server: Any, **more: Any) -> MCP:
        mcp = MCP(server, **more)
        opened.append(mcp)
        await mcp.open()
        await until(lambda: bool(mcp.tools))
        return mcp

    yield connect
    for mcp in opened:
        transport = mcp._outside._transport
        await mcp.close()
        assert mcp.tools == () and (transport is None or transport.open_count == 0)
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}  # type: ignore[operator]


# --- what a server brings -------------------------------------------------------------------------


async def test_its_tools_have_names_that_a_model_may_call(
    here: Here, server: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Names with dots and slashes, one that begins with a digit, one that is too long, some that come to the same."""
    mcp = await here(server.url, private=True)

    found = names(mcp)
    assert {"echo", "a_b", "tool_1st", "x" * 64} <= set(found)
    assert "files_read" not in found and len(set(found)) == len(found)
    assert "mcp tools are left out server=127.0.0.1 tools=files_read, files_read, a_b" in caplog.text
    [echo] = [tool for tool in mcp.tools if tool.name == "echo"]
    assert (echo.description, echo.parameters["properties"]["text"]["type"]) == ("Say it again.", "string")
    assert await told(mcp, "a_b") == {"result": "a_b"}
    assert isinstance(mcp, Source)


async def test_some_of_its_tools_are_chosen_and_their_names_begin_as_the_operator_likes(
    here: Here, server: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Two servers have a tool of one name; and one that was chosen is not there."""
    mcp = await here(
        server.url,
        private=True,
        only=["echo", "weather", "files.read", "gone"],
        prefix="crm_",
        timeout=3,
        filler="Hm. ",
    )

    assert names(mcp) == ["crm_echo", "crm_weather", "crm_files_read"]
    assert [tool.commits for tool in mcp.tools] == [True, False, True]
    assert {(tool.timeout, tool.filler) for tool in mcp.tools} == {(3, "Hm. ")}
    assert "tools are left out server=127.0.0.1 tools=gone" in caplog.text
    assert await told(mcp, "crm_files_read") == {"result": "files.read"}
    assert [tool.commits for tool in (await here(server.url, private=True, only=["echo"], commits=False)).tools] == [
        False
    ]


async def test_a_tool_that_comes_later_is_there_at_once(here: Here, server: HTTPServer) -> None:
    """The server sends a notice; nobody waits for the next look."""
    mcp = await here(server.url, private=True)
    name = f"grown_{os.urandom(4).hex()}"

    await told(mcp, "grow", name=name)
    await until(lambda: name in names(mcp), within=5)

    assert await told(mcp, name) == {"result": name}


# --- what a model is told -------------------------------------------------------------------------


async def test_results_are_told_as_values_texts_and_notes(here: Here, server: HTTPServer) -> None:
    """A structured result, parts of text, a picture."""
    mcp = await here(server.url, private=True)

    assert await told(mcp, "weather", city="Bern", days=2) == {"city": "Bern", "days": [20.5, 20.5]}
    assert await told(mcp, "plain", text="one") == "one\none"
    assert await told(mcp, "picture") == "(image that cannot be shown: image/png, 42 bytes)"
    assert await told(mcp, "big", size=1_000_000) == "x" * 1_000_000


@pytest.mark.parametrize(
    "text", ["../..", "{0.__class__}", "${HOME}", "a\r\nb: c", "\0", "früh 🙂 \u2028", "x" * 1_000_000]
)
async def test_arguments_arrive_as_they_are(here: Here, server: HTTPServer, text: str) -> None:
    """Whatever a model says is a value in JSON."""
    assert await told(await here(server.url, private=True), "echo", text=text) == {"result": text}


async def test_what_fails_is_told_to_the_model(here: Here, server: HTTPServer) -> None:
    """A tool that raises, arguments that do not fit, an answer that is too large; the server is still there."""
    mcp = await here(server.url, private=True)

    assert (await refused(mcp, "fail", words="no")).startswith("The tool failed: Error executing tool fail")
    assert "validation error" in await refused(mcp, "echo", text=[])
    large = await refused(mcp, "big", size=5_000_000)  # not a read-only tool: a model must not just try again
    assert len(large) < 300 and large.endswith("It is not known whether it was done.")
    assert await told(mcp, "echo", text="still here") == {"result": "still here"}


async def test_a_slow_tool_is_left_after_its_timeout(here: Here, server: HTTPServer) -> None:
    """It never answers; its neighbours are not held up."""
    mcp = await here(server.url, private=True, timeout=0.5)

    slow = asyncio.create_task(refused(mcp, "slow"))
    assert await told(mcp, "echo", text="meanwhile") == {"result": "meanwhile"}
    assert await slow == "The tool did not answer within 0.5 seconds. It is not known whether it was done."


async def test_a_call_that_is_cancelled_leaves_the_server_usable(here: Here, server: HTTPServer) -> None:
    """The caller interrupts while the tool runs."""
    mcp = await here(server.url, private=True)
    before = (await told(mcp, "how_often", name="slow"))["result"]
    slow = asyncio.create_task(told(mcp, "slow"))
    while (await told(mcp, "how_often", name="slow"))["result"] == before:
        pass
    slow.cancel()

    with pytest.raises(asyncio.CancelledError):
        await slow
    assert await told(mcp, "echo", text="x") == {"result": "x"}


# --- keys -----------------------------------------------------------------------------------------


async def test_a_key_of_the_environment_goes_along(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server wants a key in a header; with a wrong one the log says so, and names none."""
    server = HTTPServer(key=SECRET)
    monkeypatch.setenv("CRM_KEY", SECRET)
    mcp = await here(server.url, private=True, headers={"Authorization": "Bearer ${CRM_KEY}"})
    assert await told(mcp, "echo", text="x") == {"result": "x"}

    monkeypatch.setenv("CRM_KEY", f"{SECRET}-wrong")
    wrong = MCP(server.url, private=True, headers={"Authorization": "Bearer ${CRM_KEY}"})
    await wrong.open()
    await until(lambda: "is away" in caplog.text)
    await wrong.close()
    server.kill()

    assert "reason='it answered 401, so the key is to be checked'" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name == "firstword"]
    assert SECRET not in repr([ours, mcp, wrong, mcp.tools])


def test_the_sdks_own_log_is_not_written_by_our_server() -> None:
    """It holds what a server said, and a server may repeat a key."""
    said = (
        "import logging, logging.config; from firstword.serving import options;"
        "logging.config.dictConfig(options()['log_config']);"
        f"logging.getLogger('mcp.client').error('{SECRET}'); logging.getLogger('firstword').error('ours')"
    )
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert "ours" in ran.stderr and SECRET not in ran.stderr + ran.stdout


# --- a process of our own -------------------------------------------------------------------------


async def test_a_command_is_a_server_that_ends_with_us(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the environment that it was given, and little else; when we leave it is gone."""
    monkeypatch.setenv("CRM_KEY", SECRET)
    monkeypatch.setenv("NOT_FOR_IT", SECRET)
    mcp = await here([sys.executable, SERVER, "stdio"], env={"KEY": "k-${CRM_KEY}"})

    assert await told(mcp, "environment", name="KEY") == {"result": f"k-{SECRET}"}
    assert await told(mcp, "environment", name="NOT_FOR_IT") == {"result": "(not set)"}
    await told(mcp, "grow", name="grown")
    await until(lambda: "grown" in names(mcp))
    process = (await told(mcp, "pid"))["result"]
    os.kill(process, 0)
    await mcp.close()

    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert mcp.tools == ()


async def test_a_command_is_written_as_one_text_too_and_no_shell_reads_it(here: Here) -> None:
    """`"mcp:stdio:..."` in add_tools; the server is one of before 2026."""
    mcp = await here(f"stdio:{sys.executable} '{OLD_SERVER}' '$(exit 1); echo' | cat")
    assert names(mcp) == ["pid", "leave", "hang"]
    assert (await told(mcp, "pid")).isdecimal()
    assert plugins.load("tools", "mcp") is MCP


# --- mistakes of the operator's -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "more", "message"),
    [
        ("tools.example/mcp", {}, "not an http or https URL"),
        ("http://tools.example/mcp", {}, "without encryption"),
        ("http://127.0.0.1:8000/mcp", {}, "without encryption"),
        ("https://127.0.0.1:8000/mcp", {}, "not one that tools may reach"),
        ("https://169.254.169.254/mcp", {"private": True}, "not one that tools may reach"),
        ("https://tools.example/${HOME}", {}, "stands where no secret may"),
        ("https://tools.example/{name}", {}, "There is no argument 'name' here"),
        ("https://tools.example/mcp?key=${NOT_SET_KEY}", {}, "needs NOT_SET_KEY"),
        ("https://tools.example/mcp", {"headers": {"x": "${NOT_SET_KEY}"}}, "needs NOT_SET_KEY"),
        ("https://tools.example/mcp", {"headers": {"x": "{name}"}}, "no argument"),
        ("https://tools.example/mcp", {"headers": {"x": "a\nb"}}, "line break"),
        ("https://tools.example/mcp", {"headers": {"host": "x"}}, "cannot set the header"),
        ("https://tools.example/mcp", {"env": {"A": "b"}}, "no environment"),
        ("https://tools.example/mcp", {"prefix": "1_"}, "cannot begin a name"),
        ("https://tools.example/mcp", {"only": "echo"}, "are one text"),
        ("https://tools.example/mcp", {"timeout": -1}, "not a number of seconds"),
        ("https://tools.example/mcp", {"filler": ""}, "says nothing"),
        ("stdio:", {}, "command of an MCP server is none"),
        ("stdio:echo 'half", {}, "command of an MCP server is none"),
        ([], {}, "command of an MCP server is none"),
        (["echo", ""], {}, "command of an MCP server is none"),
        (["echo", "a\0b"], {}, "command of an MCP server is none"),
        (["echo"], {"headers": {"x": "y"}}, "has no headers"),
        (["echo"], {"env": {"A": "${NOT_SET_KEY}"}}, "needs NOT_SET_KEY"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_start(server: Any, more: dict[str, Any], message: str) -> None:
    """A mistake in the code of an operator's."""
    with pytest.raises(ConfigError, match=message):
        MCP(server, **more)


@pytest.mark.parametrize(("version", "said"), [(None, "is not installed"), ("1.30.0", "is there as 1.30.0")])
def test_without_the_sdk_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, version: str | None, said: str
) -> None:
    """firstword was installed without the extra, or beside an older SDK."""

    def look_up(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", look_up)
    with pytest.raises(ConfigError, match=said) as caught:
        MCP("https://tools.example/mcp")
    assert caught.value.hint == 'pip install "firstword[mcp]"'


def test_a_secret_in_a_urls_query_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers want their key there; it may hold any sign."""
    monkeypatch.setenv("CRM_KEY", "a&b=c d")
    mcp = MCP("https://tools.example/mcp?key=${CRM_KEY}&v=1")
    assert mcp._url == "https://tools.example/mcp?key=a%26b%3Dc%20d&v=1" and "a%26b" not in repr(mcp)


async def test_a_tool_of_a_server_that_was_never_opened_is_away() -> None:
    """Somebody calls before the App is built."""
    mcp = MCP("https://tools.example/mcp")
    await mcp.close()
    assert mcp.tools == ()
    with pytest.raises(ToolError, match="is away"):
        await mcp.ask(mcp._made("x", _Tool()), {})


class _Tool:
    """A tool as a server lists it."""

    name, title, description, annotations = "x", None, None, None
    input_schema: dict[str, Any] = {}  # noqa: RUF012
