"""LiveKit Agents as the caller: a line of JSON, `{way, url, ...}`, for each thing to do; a line for what came of it.

Runs in the environment that `make clients` makes. No room, no key: what it asks is the server at `url`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from livekit.agents import Agent, AgentSession, APIConnectOptions, APIError, APIStatusError, function_tool, llm
from livekit.agents.beta.tools import EndCallTool
from livekit.plugins import openai
from pydantic import BaseModel

PATIENCE = 10.0  # seconds that anything here may take
HELLO = "Hello there, my friend."

Json = dict[str, Any]


def model(asked: Json, url: str | None = None) -> openai.LLM:
    """Return the client as an app sets it up: our URL where OpenAI's was."""
    return openai.LLM(
        model="m1",
        base_url=url or asked["url"],
        api_key="sk-caller",
        user=asked.get("user", ""),
        extra_body=asked.get("body", {}),
        extra_headers=asked.get("headers", {}),
    )


class Caller(Agent):
    """An agent with two tools of its own; `ran` are the calls that it got."""

    def __init__(self) -> None:
        super().__init__(instructions="Be brief.")
        self.ran: list[Any] = []

    @function_tool
    async def weather(self, city: str) -> str:
        """Say how the weather is."""
        self.ran.append(["weather", {"city": city}])
        return "rain"

    @function_tool
    async def clock(self) -> str:
        """Say how late it is."""
        self.ran.append(["clock", {}])
        return "noon"


async def read(stream: llm.LLMStream, heard: Json, *, until_a_word: bool = False) -> None:
    """Note what the client understands of a stream."""
    async for chunk in stream:
        if chunk.usage is not None:
            heard["usage"] = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
        if chunk.delta is None:
            continue
        heard["words"].append(chunk.delta.content or "")
        heard["calls"] += [[call.name, call.arguments, call.call_id] for call in chunk.delta.tool_calls]
        if until_a_word and chunk.delta.content:
            return


class Weather(BaseModel):
    """The form that an answer may be."""

    city: str


def conversation(image: str | None = None) -> llm.ChatContext:
    """Return what the caller said, and showed."""
    context = llm.ChatContext.empty()
    shown = [llm.ImageContent(image=image)] if image else []
    context.add_message(role="user", content=[HELLO, *shown])
    return context


async def chats(asked: Json, heard: Json) -> None:
    """Ask `llm.LLM` once, with the tools of the agent."""
    options = APIConnectOptions(max_retry=asked.get("retries", 0), retry_interval=0.01, timeout=5)
    more: Json = {"tools": Caller().tools} if asked.get("tools") else {}
    if asked.get("ends"):
        more["tools"] = [*more.get("tools", []), *EndCallTool().tools]
    if asked.get("form"):
        more["response_format"] = Weather
    async with model(asked) as client:
        async with client.chat(chat_ctx=conversation(asked.get("image")), conn_options=options, **more) as stream:
            await read(stream, heard, until_a_word=asked.get("leaves", False))


async def turn(asked: Json, heard: Json) -> None:
    """Answer one turn, as every client is asked to: an `AgentSession` runs tools, all else is `llm.LLM`'s."""
    if asked.get("tools"):
        await talks({**asked, "said": [HELLO]}, heard)
        return
    await chats(asked, heard)
    if asked.get("form"):
        heard["form"] = Weather.model_validate_json("".join(heard["words"])).model_dump()


async def falls_over(asked: Json, heard: Json) -> None:
    """Ask a `FallbackAdapter` over several servers."""
    clients = [model(asked, url) for url in asked["urls"]]
    adapter = llm.FallbackAdapter(list(clients), attempt_timeout=asked["attempt_timeout"])
    began = time.monotonic()
    async with adapter.chat(chat_ctx=conversation()) as stream:
        await read(stream, heard)
    heard["seconds"] = time.monotonic() - began
    await adapter.aclose()
    for client in clients:
        await client.aclose()


async def talks(asked: Json, heard: Json) -> None:
    """Hold an `AgentSession` in text: it runs the calls, asks again, and keeps the history."""
    agent = Caller()
    async with model(asked) as client, AgentSession(llm=client) as session:
        await session.start(agent, record=False)
        for said in asked["said"]:
            await session.run(user_input=said)
        heard["ran"] = agent.ran
        heard["words"] = [item.text_content for item in session.history.items if said_by_the_agent(item)]


def said_by_the_agent(item: Any) -> bool:
    """Return whether an item of a history is what the agent said."""
    return item.type == "message" and item.role == "assistant"


async def interrupts(asked: Json, heard: Json) -> None:
    """Interrupt an `AgentSession` at its first word."""
    spoke = asyncio.Event()

    class Listening(Caller):
        """An agent that notices its first word on the way to the voice."""

        async def transcription_node(self, text: Any, model_settings: Any) -> Any:
            async for piece in text:
                heard["words"].append(str(piece))
                spoke.set()
                yield piece

    async with model(asked) as client, AgentSession(llm=client) as session:
        await session.start(Listening(), record=False)
        speech = session.generate_reply(user_input="Tell me a story.")
        await spoke.wait()
        await session.interrupt()
        await speech
        heard["interrupted"] = speech.interrupted


async def speculates(asked: Json, heard: Json) -> None:
    """Ask on a guess, and once more before that is answered; then go on reading the first answer as well."""
    options = APIConnectOptions(max_retry=2, retry_interval=0.1, timeout=5)
    async with model(asked) as client:
        async with client.chat(chat_ctx=conversation(), conn_options=options) as guess:
            heard["guess"] = {"words": [], "calls": []}
            await read(guess, heard["guess"], until_a_word=True)
            async with client.chat(chat_ctx=conversation(), conn_options=options) as stream:
                await read(stream, heard)
            try:
                await read(guess, heard["guess"])
            except APIError as error:
                heard["guess"]["error"] = str(error)


WAYS = {
    "turn": turn,
    "chats": chats,
    "falls_over": falls_over,
    "talks": talks,
    "interrupts": interrupts,
    "speculates": speculates,
}


async def main() -> None:
    """Do what each line says, until there are no more."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        heard: Json = {"words": [], "calls": [], "usage": None, "error": None}
        try:
            await asyncio.wait_for(WAYS[asked["way"]](asked, heard), PATIENCE)
        except APIError as error:
            status = error.status_code if isinstance(error, APIStatusError) else None
            kind = type(error).__name__
            heard["error"] = {"class": kind, "status": status, "again": error.retryable, "body": error.body}
            heard["error"]["message"] = str(error)
        except Exception as error:
            heard["error"] = {"class": type(error).__name__, "message": str(error)}
        heard["words"] = "".join(heard["words"])
        print(json.dumps(heard, default=str), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
