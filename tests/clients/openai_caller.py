"""OpenAI's Python SDK as the caller, of whichever version its environment has; see `lines.py`.

An app as it is commonly written: the strict helper `.stream()`, or `.parse()`, and a loop that runs the tools.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
from lines import HELLO, RESULTS, Json, answer
from openai import AsyncOpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """Say how the weather is; and the form that an answer may be."""

    city: str


class Clock(BaseModel):
    """Say how late it is."""


TOOLS = [openai.pydantic_function_tool(Weather, name="weather"), openai.pydantic_function_tool(Clock, name="clock")]


async def turn(asked: Json, heard: Json) -> None:
    """Ask, run what is called, and ask again until there is an answer."""
    said: Any = HELLO
    if image := asked.get("image"):
        said = [{"type": "text", "text": HELLO}, {"type": "image_url", "image_url": {"url": image}}]
    messages: list[Any] = [{"role": "user", "content": said}]
    client = AsyncOpenAI(
        base_url=asked["url"],
        api_key="sk-caller",
        timeout=5,
        max_retries=asked["retries"],
        default_headers=asked["headers"],
    )
    async with client:
        while message := await ask(client, messages, asked, heard):
            calls = message.tool_calls or []
            if not calls:
                return
            messages.append(message.model_dump(exclude_none=True))
            for call in calls:
                name = call.function.name
                heard["ran"].append([name, json.loads(call.function.arguments)])
                messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULTS[name]})


async def ask(client: AsyncOpenAI, messages: list[Any], asked: Json, heard: Json) -> Any:
    """Ask once, note what is heard, and return the message; None when the caller left."""
    request: Json = {"model": "m1", "messages": messages, "extra_body": asked["body"]}
    if asked.get("tools"):
        request["tools"] = TOOLS
    if asked.get("form"):
        request["response_format"] = Weather
    if asked.get("whole"):
        reply = await client.chat.completions.parse(**request)
        heard["words"].append(reply.choices[0].message.content or "")
    else:
        request["stream_options"] = {"include_usage": True}
        async with client.chat.completions.stream(**request) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    heard["words"].append(event.delta)
                    if event.delta and asked.get("leaves"):
                        return None
            reply = await stream.get_final_completion()
    if reply.usage is not None:
        heard["usage"] = [reply.usage.prompt_tokens, reply.usage.completion_tokens]
    message = reply.choices[0].message
    if message.parsed is not None:
        heard["form"] = message.parsed.model_dump()
    return message


if __name__ == "__main__":
    asyncio.run(answer({"turn": turn}))
