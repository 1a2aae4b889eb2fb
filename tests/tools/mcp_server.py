"""An MCP server of the official SDK, as a process: `mcp_server.py http PORT [legacy]` or `mcp_server.py stdio`.

`legacy` refuses the newer handshake, as servers of before 2026 do (on stdio: `old_mcp_server.py`). Over HTTP the port
is printed once it listens; it answers only requests with the key of MCP_SERVER_KEY, if that is set.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.shared.exceptions import MCPError
from mcp.types import METHOD_NOT_FOUND, ToolAnnotations

server = MCPServer("tests", log_level="ERROR")
legacy = "legacy" in sys.argv
calls: list[str] = []


@server.tool()
async def echo(text: str) -> str:
    """Say it again."""
    calls.append("echo")
    return text


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def weather(city: str, days: int = 1) -> dict[str, Any]:
    """Say how the weather will be."""
    return {"city": city, "days": [20.5] * days}


@server.tool(structured_output=False)
async def plain(text: str) -> list[str]:
    """Answer in parts of text."""
    return [text, text]


@server.tool()
async def slow() -> str:
    """Never answer."""
    calls.append("slow")
    await asyncio.Event().wait()
    return ""


@server.tool()
async def how_often(name: str) -> int:
    """Say how often a tool was called."""
    return calls.count(name)


@server.tool()
async def fail(words: str) -> str:
    """Fail with these words."""
    raise ValueError(words)


@server.tool()
async def picture() -> Image:
    """Draw."""
    return Image(data=b"\x89PNG" * 10, format="png")


@server.tool(structured_output=False)
async def big(size: int) -> str:
    """Say much."""
    return "x" * size


@server.tool()
async def die() -> str:
    """End the process without a word."""
    os._exit(1)


@server.tool()
async def pid() -> int:
    """Say which process this is."""
    return os.getpid()


@server.tool()
async def environment(name: str) -> str:
    """Say what a variable is."""
    return os.environ.get(name, "(not set)")


@server.tool()
async def grow(name: str, ctx: Context) -> str:  # type: ignore[type-arg]
    """Have one tool more from now on, and say so to whoever listens."""

    async def more() -> str:
        return name

    server.add_tool(more, name=name)
    if legacy:
        await ctx.request_context.session.send_tool_list_changed()
    else:
        await ctx.notify_tools_changed()
    return "done"


def clashing(name: str) -> None:
    """Add a tool of this name, which says its name."""

    async def say() -> str:
        return name

    server.add_tool(say, name=name)


for odd in ("files.read", "files/read", "a.b", "a_b", "1st", "x" * 70):
    clashing(odd)


async def refuse_discovery(ctx: Any, call_next: Any) -> Any:
    """Do not know what came with the revision of 2026."""
    if ctx.method == "server/discover":
        raise MCPError(METHOD_NOT_FOUND, "Method not found")
    return await call_next(ctx)


def guarded(app: Any, key: str) -> Any:
    """Answer 401 to whoever has no key."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {key}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return call


def main() -> None:
    if legacy:
        server.middleware.append(refuse_discovery)
    if sys.argv[1] == "stdio":
        server.run("stdio")
        return
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[2])))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    app: Any = server.streamable_http_app()
    if "MCP_SERVER_KEY" in os.environ:
        app = guarded(app, os.environ["MCP_SERVER_KEY"])
    config = uvicorn.Config(app, log_config=None, lifespan="on")
    asyncio.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
