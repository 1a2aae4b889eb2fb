"""The official Python SDK in front of an App with tools of its own: the caller's own tools survive beside them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from served import Served

from firstword import App
from firstword.testing import Upstream, script


class Weather(BaseModel):
    """The caller's tool."""

    city: str
    days: int


class Clock(BaseModel):
    """Another one of the caller's."""

    city: str


TOOLS: list[Any] = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
HELLO: list[Any] = [{"role": "user", "content": "How is the weather?"}]
PIECES = [
    script.tool_call("Weather", "", id="call_1", index=0),
    script.tool_call(arguments='{"city": "Pa', index=0),
    script.tool_call(arguments='ris", "days": 2}', index=0),
]
TWO_CALLS = [*PIECES, script.tool_call("Clock", '{"city": "Oslo"}', id="call_2", index=1)]
SHAPES = {
    "in pieces": [script.role(), *TWO_CALLS, script.finish("tool_calls"), script.done()],
    "with words before": [script.role(), script.text("Let me see."), *TWO_CALLS, script.finish("tool_calls")],
    "words within": [script.role(), *PIECES, script.text("Let me see."), *TWO_CALLS[3:], script.finish("stop")],
    "one index for both": [
        script.role(),
        script.tool_call("Weather", '{"city": "Paris", "days": 2}', id="call_1", index=0),
        script.tool_call("Clock", '{"city": "Oslo"}', id="call_2", index=0),
        script.finish("stop"),
    ],
}
OURS = script.events(script.role(), script.tool_call("balance", "{}", id="call_0"), script.finish("tool_calls"))


@pytest.fixture(scope="module")
def server(upstream: Upstream) -> Iterator[Served]:
    """One server for all, with a tool that no caller has."""
    app = App(base_url=upstream.base_url)

    @app.tool(filler="Let me look. ")
    async def balance() -> str:
        """Say how much there is."""
        return "five euros"

    served = Served(app)
    yield served
    served.stop()


@pytest.fixture
async def client(server: Served) -> AsyncIterator[AsyncOpenAI]:
    """The SDK as an app sets it up."""
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-caller", timeout=5) as client:
        yield client


def asking(*scripts: script.Script, **more: Any) -> dict[str, Any]:
    """Return what the SDK asks with."""
    body = {"scripts": list(scripts)}
    return {"model": "m1", "messages": HELLO, "user": uuid4().hex, "extra_body": body, **more}


def called(message: Any) -> list[tuple[str, Any]]:
    """Return the calls of a message of the SDK's."""
    return [(each.function.name, json.loads(each.function.arguments)) for each in message.tool_calls]


MEANT = [("Weather", {"city": "Paris", "days": 2}), ("Clock", {"city": "Oslo"})]


@pytest.mark.parametrize("own", [False, True], ids=["alone", "after ours"])
@pytest.mark.parametrize("name", SHAPES)
async def test_the_helper_puts_the_callers_calls_together(client: AsyncOpenAI, name: str, own: bool) -> None:
    """`.stream()` notices most: two calls with one index, words beside a call, a missing ending."""
    answer = script.events(SHAPES[name])
    scripts = [OURS, answer] if own else [answer]
    async with client.chat.completions.stream(**asking(*scripts), tools=TOOLS) as stream:
        events = [event async for event in stream]
        whole = await stream.get_final_completion()

    message = whole.choices[0].message
    assert called(message) == MEANT and whole.choices[0].finish_reason == "tool_calls"
    assert isinstance(message.tool_calls[0].function.parsed_arguments, Weather)  # type: ignore[index]
    words = "".join(event.delta for event in events if event.type == "content.delta")
    assert words == ("Let me look. " if own else "") + ("Let me see." if "words" in name else "")
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [event.name for event in done] == ["Weather", "Clock"]


async def test_a_reply_in_one_piece_has_the_callers_calls(client: AsyncOpenAI) -> None:
    """`stream` is left out."""
    whole = await client.chat.completions.create(**asking(OURS, script.events(SHAPES["in pieces"])), tools=TOOLS)

    assert called(whole.choices[0].message) == MEANT and whole.choices[0].finish_reason == "tool_calls"
    assert whole.choices[0].message.content is None


async def test_a_conversation_goes_on_with_the_callers_results(client: AsyncOpenAI, upstream: Upstream) -> None:
    """The caller runs its tools and asks again, as every app does; what it sends back is what it got."""
    first = await client.chat.completions.create(**asking(script.events(SHAPES["in pieces"])), tools=TOOLS)
    message = first.choices[0].message
    results = [{"role": "tool", "tool_call_id": each.id, "content": "rain"} for each in message.tool_calls or ()]
    history: list[Any] = [*HELLO, message.model_dump(exclude_none=True), *results]
    asked = asking(OURS, script.events(script.says("It rains.")), messages=history)

    async with client.chat.completions.stream(**asked, tools=TOOLS) as stream:
        whole = await stream.get_final_completion()

    records = await upstream.wait_settled(asked["user"], count=2)
    assert whole.choices[0].message.content == "Let me look. It rains."
    assert [each["role"] for each in records[1].body["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
    ]
