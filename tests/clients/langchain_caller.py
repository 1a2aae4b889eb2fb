"""LangChain's `ChatOpenAI` as the caller; see `lines.py`.

A chain as it is commonly written: `astream` with bound tools, and a loop that runs them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from lines import HELLO, RESULTS, Json, answer
from pydantic import BaseModel


class Weather(BaseModel):
    """The form that an answer may be."""

    city: str


@tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return RESULTS["weather"]


@tool
def clock() -> str:
    """Say how late it is."""
    return RESULTS["clock"]


TOOLS = {"weather": weather, "clock": clock}


async def turn(asked: Json, heard: Json) -> None:
    """Ask, run what is called, and ask again until there is an answer."""
    model = ChatOpenAI(
        model="m1",
        base_url=asked["url"],
        api_key="sk-caller",
        timeout=5,
        max_retries=asked["retries"],
        default_headers=asked["headers"],
        extra_body=asked["body"],
        stream_usage=True,
    )
    said: Any = HELLO
    if image := asked.get("image"):
        said = [{"type": "text", "text": HELLO}, {"type": "image_url", "image_url": {"url": image}}]
    if asked.get("form"):
        form = model.with_structured_output(Weather, method="json_schema")
        if asked.get("whole"):
            heard["form"] = (await form.ainvoke(said)).model_dump()
        else:
            async for filled in form.astream(said):
                heard["form"] = filled.model_dump()
        return
    messages: list[Any] = [HumanMessage(said)]
    chain = model.bind_tools(list(TOOLS.values())) if asked.get("tools") else model
    while message := await ask(chain, messages, asked, heard):
        messages.append(message)
        for call in message.tool_calls:
            heard["ran"].append([call["name"], call["args"]])
            result = await TOOLS[call["name"]].ainvoke(call["args"])
            messages.append(ToolMessage(result, tool_call_id=call["id"]))
        if not message.tool_calls:
            return


async def ask(chain: Any, messages: list[Any], asked: Json, heard: Json) -> Any:
    """Ask once, note what is heard, and return the message; None when the caller left."""
    whole: Any = None
    if asked.get("whole"):
        whole = await chain.ainvoke(messages)
        heard["words"].append(whole.text)
    else:
        stream = chain.astream(messages)
        async for chunk in stream:
            heard["words"].append(chunk.text)
            whole = chunk if whole is None else whole + chunk
            if asked.get("leaves") and chunk.text:
                await stream.aclose()
                return None
    if whole.usage_metadata:
        heard["usage"] = [whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]]
    return whole


if __name__ == "__main__":
    asyncio.run(answer({"turn": turn}))
