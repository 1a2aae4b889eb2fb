"""A small HTTP API under a real uvicorn, for tools to call: it keeps what it was asked, and answers as it is told."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from served import Served

from firstword import App, Turn

Serve = Callable[[App], Served]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived; `target` is the path and query in the very bytes of the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    port: int  # of the client, so of its connection

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Api:
    """Answers every path with `answers[path]`: (status, headers, body), or a function that is ASGI's `send`'s user."""

    def __init__(self, serve: Serve) -> None:
        self.asked: list[Asked] = []
        self.left: queue.SimpleQueue[str] = queue.SimpleQueue()  # paths whose caller went away
        self.answers: dict[str, Any] = {}
        self.url = serve(cast(App, self)).url
        self.port = int(self.url.rpartition(":")[2])

    def says(self, path: str, body: Any, *, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Answer `path` from now on with this: bytes as they are, else as JSON."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.answers[path] = (status, named, content)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, as ASGI."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = scope["query_string"].decode()
        target = scope["raw_path"].decode() + (f"?{query}" if query else "")
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.asked.append(Asked(scope["method"], target, headers, body, scope["client"][1]))
        answer = self.answers.get(scope["path"], (200, {"content-type": "application/json"}, b'{"ok":true}'))
        if callable(answer):
            await answer(self, receive, send)
            return
        status, named, content = answer
        await _send(send, status, named, content)


async def _send(send: Any, status: int, named: dict[str, str], content: bytes) -> None:
    lines = [(name.encode(), value.encode()) for name, value in named.items()]
    lines.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content})


async def never(api: Api, receive: Any, send: Any) -> None:
    """Say nothing until the caller goes away."""
    message = await receive()
    api.left.put(message["type"])


async def half(api: Api, receive: Any, send: Any) -> None:
    """Promise 100 bytes, send 4 and hang up."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b'{"a"', "more_body": True})
    raise ConnectionAbortedError("hung up")


async def promise(api: Api, receive: Any, send: Any) -> None:
    """Promise a terabyte, and send one byte of it."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"1000000000000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    api.left.put((await receive())["type"])


async def flood(api: Api, receive: Any, send: Any) -> None:
    """Send bytes for ever, without saying how many there will be."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    leaves = asyncio.ensure_future(receive())
    while not leaves.done():
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await asyncio.sleep(0)
    api.left.put((await leaves)["type"])


def some_turn() -> Turn:
    """A turn, which a remote tool does not look at."""
    return Turn(request={"messages": [{"role": "user", "content": "Hello"}]})
