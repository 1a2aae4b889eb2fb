"""A relay as one writes it in an afternoon: FastAPI, pydantic models, the openai SDK, and a new client for every turn.

Rules: nothing in here is slow on purpose, and nothing is tuned. It is the shape that the usual samples have: one route,
no settings, the client left to the garbage collector.
Run with `python benchmarks/naive.py PORT`; the model is at LLM_BASE_URL.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from pydantic import BaseModel


class Message(BaseModel):
    """One message of the conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatCompletionRequest(BaseModel):
    """What a voice engine posts."""

    model: str
    messages: list[Message]
    stream: bool = True
    temperature: float | None = None
    max_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None


app = FastAPI()


@app.post("/v1/chat/completions")
async def chat_completions(request: ChatCompletionRequest, authorization: str = Header("")) -> StreamingResponse:
    """Ask the model, and stream what it answers."""
    client = AsyncOpenAI(api_key=authorization.removeprefix("Bearer "), base_url=os.environ["LLM_BASE_URL"])
    completion: Any = await client.chat.completions.create(**request.model_dump(exclude_none=True))

    async def events() -> AsyncIterator[str]:
        async for chunk in completion:
            yield f"data: {json.dumps(chunk.to_dict())}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
