"""A turn in which the model calls tools that run elsewhere: an HTTP API, an MCP server, and both at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_of_a_test import Api, Serve
from caller import Caller, turn

from firstword import App
from firstword.testing import Upstream, script
from firstword.tools.http import HTTPTool
from firstword.tools.mcp import MCP
from firstword.tools.openapi import openapi

FOLDER = Path(__file__).parent / "tools"
SAID = script.events(script.says("It is 20 degrees."))
Start = Callable[..., Any]


@pytest.fixture
def old_server() -> MCP:
    """A small MCP server, as a process of the App's."""
    import sys

    return MCP([sys.executable, str(FOLDER / "old_mcp_server.py")], prefix="old_")


@pytest.fixture
def api(serve: Serve) -> Iterator[Api]:
    api = Api(serve)
    api.says("/weather/Bern", {"degrees": 20})
    yield api


def calls(*named: tuple[str, dict[str, Any]]) -> Any:
    """Return the script of a model that calls these."""
    steps = [
        script.tool_call(name, json.dumps(arguments), id=f"c{index}", index=index)
        for index, (name, arguments) in enumerate(named)
    ]
    return script.events(script.role(), *steps, script.finish("tool_calls"), script.done())


async def told(upstream: Upstream, marker: str) -> list[Any]:
    """Return what the model was told of its calls."""
    records = await upstream.wait_settled(marker, count=2)
    return [message["content"] for message in records[1].body["messages"] if message["role"] == "tool"]


async def test_a_model_is_told_what_an_api_and_a_server_said(
    serve: Serve, upstream: Upstream, api: Api, old_server: MCP, marker: str
) -> None:
    """It calls an HTTP tool, an operation of a document and an MCP tool in one breath; the caller hears the answer."""
    weather = HTTPTool("weather", f"{api.url}/weather/{{city}}", description="Say how it is.", private=True)
    app: Any = App(base_url=upstream.base_url)
    app.add_tools(weather, old_server)
    app.add_tools(*openapi(FOLDER / "petstore.yaml", operations=["getPet"], base_url=api.url, private=True))
    served = serve(app)

    async def here() -> None:
        while not old_server.tools:
            await asyncio.sleep(0.01)

    await asyncio.to_thread(served.run, here, 20)
    model = calls(
        ("weather", {"city": "Bern"}), ("old_pid", {}), ("getPet", {"petId": 7}), ("weather", {"city": "../x"})
    )

    heard = await Caller(served.url).hears(turn(user=marker, script=[model, SAID]))

    assert (heard.text, heard.finish_reasons, heard.done) == ("It is 20 degrees.", ["stop"], True)
    degrees, pid, pet, refused = await told(upstream, marker)
    assert json.loads(degrees) == {"degrees": 20} and pid.isdecimal() and json.loads(pet) == {"ok": True}
    assert "would lead elsewhere" in refused
    assert [asked.target for asked in api.asked if "weather" in asked.target] == ["/weather/Bern"]
    offered = [tool["function"]["name"] for tool in (await upstream.wait_settled(marker))[0].body["tools"]]
    assert {"weather", "getPet", "old_pid", "old_hang"} <= set(offered)

    served.stop()
    assert old_server.tools == () and weather.outside._transport is None


async def test_a_server_that_is_away_costs_its_tools_and_not_the_turn(
    serve: Serve, upstream: Upstream, marker: str
) -> None:
    """Nobody listens on the MCP server's port; the App starts at once and the model is offered nothing."""
    app: Any = App(base_url=upstream.base_url)
    app.add_tools(MCP("http://127.0.0.1:1/mcp", private=True))
    served = serve(app)

    heard = await Caller(served.url).hears(turn(user=marker, script=SAID))

    [record] = await upstream.wait_settled(marker)
    assert (heard.text, heard.done) == ("It is 20 degrees.", True)
    assert not record.body.get("tools")
    served.stop()
