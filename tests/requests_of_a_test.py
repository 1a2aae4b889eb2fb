"""Requests of one test to the scripted upstream, through the transport as the model uses it.

Rules:
- Scripts travel in headers here, so that an upstream can act before it has read the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from caller import turn

from firstword import App
from firstword.testing import Upstream, script
from firstword.transport import Connection, Transport
from firstword.wire import HttpRequest

OK = [script.head(body="length", length=2), script.send("ok"), script.end()]


class Line:
    """Requests of one test to the scripted upstream."""

    def __init__(self, transport: Transport, upstream: Upstream, marker: str) -> None:
        self.transport, self.upstream, self.marker = transport, upstream, marker

    async def asks(self, *scripts: script.Script, body: bytes = b"{}", within: float = 5.0) -> Connection:
        """Send one request; with several scripts, the n-th is for the n-th request of this test."""
        steps = scripts[0] if len(scripts) == 1 else list(scripts)
        headers = tuple(script.in_headers(steps, self.marker).items())
        request = HttpRequest("POST", self.upstream.base_url + "/chat/completions", headers, body)
        return await self.transport.request(request, within=within)

    async def hears(self, *scripts: script.Script, body: bytes = b"{}", within: float = 5.0) -> bytes:
        """Send one request and return the whole body of the response."""
        connection = await self.asks(*scripts, body=body, within=within)
        try:
            return await everything(connection)
        finally:
            connection.release()

    async def connections(self, count: int) -> list[int]:
        """Return which connection each of `count` requests came by, numbered from 0."""
        records = await self.upstream.wait_asked(self.marker, count=count)
        assert len(records) == count
        numbers = [record.connection for record in records]
        return [sorted(set(numbers)).index(number) for number in numbers]


async def everything(connection: Connection) -> bytes:
    body = b""
    while data := await connection.read(5):
        body += data
    return body


def raw(reply: bytes | str) -> list[script.Step]:
    """Answer with these very bytes."""
    return [script.send(reply, raw=True), script.end()]


async def until(met: Callable[[], bool]) -> None:
    """Let the loop run until it is so."""

    async def look() -> None:
        while not met():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(look(), 5)


@contextlib.contextmanager
def deaf(backlog: int = 8) -> Iterator[socket.socket]:
    """Listen on a port on which only the test itself answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def full() -> Iterator[int]:
    """Yield a port whose kernel drops every further connection, as that of a host that is away."""
    with deaf(backlog=0) as listener, contextlib.ExitStack() as crowd:
        port: int = listener.getsockname()[1]
        for _ in range(4):
            one = crowd.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port


async def says_to(app: App, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, str]:
    """Send one turn to an App as a server does; return the status and the body. The App is closed then."""
    sent: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": msgspec.json.encode(turn("Hello", **fields))}]

    async def receive() -> dict[str, Any]:
        return incoming.pop() if incoming else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        sent.append(message)

    raw_headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await app({"type": "http", "method": "POST", "path": "/chat/completions", "headers": raw_headers}, receive, send)
    await app.close()
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:]).decode()
