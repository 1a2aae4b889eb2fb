"""Put the server into a FastAPI application: the engine then posts to /llm/chat/completions.

Run it with `pip install fastapi` and `uvicorn --app-dir examples fastapi_mount:web`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from firstword import App

llm = App()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the connections to the model at the end: a mounted application hears of no shutdown itself."""
    yield
    await llm.close()


web = FastAPI(lifespan=lifespan)
web.mount("/llm", llm)


@web.get("/hello")
async def hello() -> dict[str, str]:
    """Be one of the application's own routes."""
    return {"say": "hello"}
