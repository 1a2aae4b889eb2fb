"""The way to an MCP server: over HTTP through our own connections, so that one address policy holds, or a process.

Imported when a server is connected: the `mcp` SDK, and the httpx2 that it speaks through, are an optional extra.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from ..errors import ToolError, UpstreamError
from ..transport import Connection
from ..wire import HttpRequest
from ._outside import LONGEST_WAIT, Outside

MAX_BODY = 4 * 1024 * 1024  # bytes of an answer, and of one event of a stream
WRITE_TIMEOUT = 30.0  # seconds for what httpx2 does itself
# Ours to say; the rest of what httpx2 wants to send is the SDK's.
_OURS = ("host", "connection", "content-length", "transfer-encoding", "accept-encoding")

Look = Callable[[], None]


@asynccontextmanager
async def over_http(url: str, headers: Mapping[str, str], outside: Outside, look: Look) -> AsyncGenerator[Any, None]:
    """Yield the streams to a server behind `url`; `look` is called when it may be away, or have changed."""
    timeout = httpx2.Timeout(WRITE_TIMEOUT, read=LONGEST_WAIT)
    wire = _Wire(outside, look)
    async with httpx2.AsyncClient(transport=wire, headers=dict(headers), timeout=timeout, trust_env=False) as client:
        async with streamable_http_client(url, http_client=client, max_sse_event_size=MAX_BODY) as (read, write):
            yield _Noticed(read, look), write


@asynccontextmanager
async def over_stdio(command: Sequence[str], env: Mapping[str, str], look: Look) -> AsyncGenerator[Any, None]:
    """Yield the streams to a process of our own, which ends with them; `look` is called when it has ended."""
    server = StdioServerParameters(command=command[0], args=list(command[1:]), env=dict(env))
    async with stdio_client(server) as (read, write):
        yield _Noticed(read, look), write


class _Noticed:
    """A stream of the SDK's that says when it has ended; else a dead server is noticed when it is next asked."""

    def __init__(self, stream: Any, look: Look) -> None:
        self._stream = stream
        self._look = look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> _Noticed:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> Any:
        return await self._stream.__aexit__(*raised)

    def __aiter__(self) -> _Noticed:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except (StopAsyncIteration, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._look()
            raise


class _Wire(httpx2.AsyncBaseTransport):
    """httpx2's requests over our own connections."""

    def __init__(self, outside: Outside, look: Look) -> None:
        self._outside = outside
        self._look = look

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        within = request.extensions.get("timeout", {}).get("read") or LONGEST_WAIT
        headers = tuple((name, value) for name, value in request.headers.multi_items() if name.lower() not in _OURS)
        asked = HttpRequest(request.method, str(request.url), (*headers, ("accept-encoding", "identity")), content)
        try:
            # What is not a GET may change something: it is never sent twice, so never on a connection that was kept.
            fresh = request.method != "GET"
            connection = await self._outside.transport().request(asked, within=within, fresh=fresh)
        except (UpstreamError, ToolError) as error:
            self._look()
            raise httpx2.ConnectError(error.message, request=request) from error
        if connection.status in (401, 403):  # the SDK would only say that something was wrong
            connection.abort()
            refused = ToolError(f"it answered {connection.status}, so the key is to be checked")
            raise httpx2.ConnectError(refused.message, request=request) from refused
        if request.method == "GET":  # the server's notices, from now on: what changed before was not heard
            self._look()
        stream = _Body(connection, within, self._look if request.method == "GET" else None)
        return httpx2.Response(connection.status, headers=connection.headers, stream=stream, request=request)


class _Body(httpx2.AsyncByteStream):
    """The body of one answer, as it arrives. Its end matters (`ended`) when it is the server's own stream."""

    def __init__(self, connection: Connection, within: float, ended: Look | None) -> None:
        self._connection = connection
        self._within = within
        self._ended = ended
        self._is_stream = "text/event-stream" in connection.headers.get("content-type", "")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        try:
            while data := await self._connection.read(self._within):
                total += len(data)
                if total > MAX_BODY and not self._is_stream:
                    raise httpx2.StreamError(f"the answer has more than {MAX_BODY} bytes")
                yield data
        except UpstreamError as error:
            raise httpx2.ReadError(error.message) from error
        finally:
            if self._ended is not None:
                self._ended()

    async def aclose(self) -> None:
        self._connection.release()
