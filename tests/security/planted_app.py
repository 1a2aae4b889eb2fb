"""An App with a secret in every place that takes one, and a mistake for every word that asks for it.

The secrets come in the environment, as JSON: `PLANTED`; `ELSEWHERE` is an API that repeats what it is sent.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from firstword import App, Chunk, RequestError, Turn
from firstword.model import Model
from firstword.tools.http import HTTPTool
from firstword.tools.mcp import MCP

planted: dict[str, str] = json.loads(os.environ["PLANTED"])
elsewhere = os.environ["ELSEWHERE"]
secrets = " ".join(planted.values())

app = App(
    [Model("m1"), Model("by-proxy", base_url="https://api.example/v1", api_key=planted["model key"])],
    voice="openai:tts",
    voice_base_url=f"{elsewhere}/v1",
    agora_app_id="app",
    agora_agents_api_base_url=elsewhere,
    session=["header:x-session-id"],
)
app.add_tools(
    HTTPTool(
        "fetches",
        f"{elsewhere}/tool",
        description="Fetch.",
        parameters={"what": "it"},
        query={"what": "{what}"},
        headers={"authorization": "${TOOL_KEY}"},
        private=True,
    ),
    MCP("http://127.0.0.1:9/mcp", headers={"authorization": "${MCP_KEY}"}, private=True),
)


class Broken(Exception):
    """A mistake that says all it knows."""


def breaks(turn: Turn, where: str) -> None:
    """Raise when the caller's words ask for it here."""
    if f"breaks {where}" in turn.text:
        try:
            raise KeyError(secrets)
        except KeyError as error:
            raise Broken(secrets, turn.messages, dict(turn.headers), turn) from error


@app.before_turn
def before(turn: Turn) -> None:
    """Break, or refuse the turn in words of its own."""
    breaks(turn, "before")
    if "refuses" in turn.text:
        raise RequestError("Not today.")


@app.on_chunk
def chunks(turn: Turn, chunk: Chunk) -> None:
    """Break."""
    breaks(turn, "chunk")


@app.read_aloud
def aloud(turn: Turn, text: str) -> str:
    """Break."""
    breaks(turn, "aloud")
    return text


@app.after_turn
async def after(turn: Turn) -> None:
    """Break."""
    breaks(turn, "after")


@app.on_event
def event(told: Any) -> None:
    """Break always."""
    raise Broken(secrets, told)


@app.stage
async def stage(turn: Turn, send: Any, call_next: Any) -> None:
    """Break, before or behind the model."""
    breaks(turn, "stage")
    await call_next(turn, send)
    breaks(turn, "end")


@app.model("own")
async def own(turn: Turn) -> AsyncIterator[str]:
    """Speak, and break."""
    yield "Well, "
    breaks(turn, "own")
    if "exits" in turn.text:
        raise SystemExit(secrets)
    if "waits" in turn.text:
        await asyncio.sleep(60)
    yield "all is good."


@app.tool
async def explodes(what: str) -> str:
    """Break, with the argument."""
    raise Broken(secrets, what)


@app.tool
async def exits(what: str) -> str:
    """End the process, as if that were a tool's to do."""
    raise SystemExit(secrets + what)


@app.tool
async def answers(what: str) -> dict[str, str]:
    """Answer with a secret."""
    return {"found": planted["tool result"]}


@app.tool
async def waits(what: str) -> str:
    """Take too long."""
    await asyncio.sleep(60)
    return what
