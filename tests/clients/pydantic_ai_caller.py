"""Pydantic AI's `Agent` as the caller; see `lines.py`.

The agent is read by its events. `run_stream` takes the first words for the whole answer, and an agent of a voice says
words before it calls something.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lines import HELLO, RESULTS, Json, answer
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    AgentRunResultEvent,
    ImageUrl,
    NativeOutput,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Weather(BaseModel):
    """The form that an answer may be."""

    city: str


def agent_of(asked: Json, heard: Json, client: AsyncOpenAI) -> Any:
    """Return the agent as an app sets it up, with two tools of its own."""
    output: Any = NativeOutput(Weather) if asked.get("form") else str
    model = OpenAIChatModel("m1", provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, output_type=output, model_settings={"extra_body": asked["body"]})

    def weather(city: str) -> str:
        """Say how the weather is."""
        heard["ran"].append(["weather", {"city": city}])
        return RESULTS["weather"]

    def clock() -> str:
        """Say how late it is."""
        heard["ran"].append(["clock", {}])
        return RESULTS["clock"]

    if asked.get("tools"):
        agent.tool_plain(weather)
        agent.tool_plain(clock)
    return agent


def words_of(event: Any) -> str:
    """Return what an event says aloud."""
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    return ""


async def turn(asked: Json, heard: Json) -> None:
    """Run the agent once; it runs its tools and asks again by itself."""
    client = AsyncOpenAI(
        base_url=asked["url"],
        api_key="sk-caller",
        timeout=5,
        max_retries=asked["retries"],
        default_headers=asked["headers"],
    )
    said: Any = [HELLO, ImageUrl(asked["image"])] if asked.get("image") else HELLO
    async with client:
        agent = agent_of(asked, heard, client)
        if asked.get("whole"):
            result = await agent.run(said)
            heard["words"].append(str(result.output))
        else:
            result = await read(agent, said, asked, heard)
    if result is None:
        return
    heard["usage"] = [result.usage.input_tokens, result.usage.output_tokens]
    if isinstance(result.output, Weather):
        heard["form"] = result.output.model_dump()


async def read(agent: Any, said: Any, asked: Json, heard: Json) -> Any:
    """Note what a run says, and return its result; None when the caller left."""
    async with agent.run_stream_events(said) as events:
        async for event in events:
            if isinstance(event, AgentRunResultEvent):
                return event.result
            words = words_of(event)
            heard["words"].append(words)
            if words and asked.get("leaves"):
                break
    return None


if __name__ == "__main__":
    asyncio.run(answer({"turn": turn}))
