"""A voice engine's side of the wire, as plain as can be: h11 on a socket, every event with the time it came."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11

# The headers that tell of a turn; every reply of one has them.
ABOUT = ("x-request-id", "x-firstword-attempts", "x-firstword-model", "server-timing")


@dataclass
class Heard:
    """One reply, as far as it was read."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reads: list[tuple[float, bytes]] = field(default_factory=list)  # monotonic time, body bytes, as they came
    whole: bool = False  # the HTTP message came to its proper end

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def frames(self) -> list[bytes]:
        """The events, each with its blank line; asserts that nothing stands between them."""
        assert self.body == b"" or self.body.endswith(b"\n\n"), self.body[-80:]
        return [part + b"\n\n" for part in self.body.split(b"\n\n")[:-1]]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The events' JSON, `[DONE]` left out."""
        assert all(frame.startswith(b"data: ") for frame in self.frames), self.frames
        return [json.loads(frame[6:]) for frame in self.frames if frame != b"data: [DONE]\n\n"]

    @property
    def text(self) -> str:
        """What a caller hears."""
        deltas = [choice.get("delta", {}) for chunk in self.chunks for choice in chunk.get("choices", [])[:1]]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def done(self) -> bool:
        """The stream ended with one `[DONE]`, and nothing came after it."""
        return self.frames.count(b"data: [DONE]\n\n") == 1 and self.frames[-1] == b"data: [DONE]\n\n"

    @property
    def finish_reasons(self) -> list[str]:
        """Every finish_reason that was sent."""
        reasons = [choice.get("finish_reason") for chunk in self.chunks for choice in chunk.get("choices", [])]
        return [reason for reason in reasons if reason]

    @property
    def error(self) -> dict[str, Any]:
        """The error that the reply is, or that its last event says."""
        found: dict[str, Any] = (self.json if self.status != 200 else self.chunks[-1])["error"]
        return found


class Caller:
    """Calls one server. `hears` reads a whole reply; `dials` leaves it to the test when to hang up."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def hears(
        self, body: Any = None, *, path: str = "/chat/completions", method: str = "POST", **more: Any
    ) -> Heard:
        """Send one request and read its whole reply."""
        async with self.dials(body, path=path, method=method, **more) as call:
            async for _ in call.listens():
                pass
            return call.heard

    async def says(
        self,
        words: str = "Hello",
        *,
        path: str = "/chat/completions",
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Heard:
        """Say something, streamed, and hear the whole reply; `fields` are the body's."""
        return await self.hears(turn(words, **fields), path=path, headers=headers)

    @asynccontextmanager
    async def dials(
        self,
        body: Any = None,
        *,
        path: str = "/chat/completions",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Call]:
        """Open a connection and send one request; the connection is cut at the end of the block."""
        parts = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            call = Call(reader, writer)
            await call.send(method, path, parts.netloc, body, headers or {})
            yield call
        finally:
            writer.transport.abort()


class Call:
    """One request on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard = Heard()
        self._h11 = h11.Connection(h11.CLIENT)

    async def send(self, method: str, path: str, host: str, body: Any, headers: Mapping[str, str]) -> None:
        """Send the request; a dict or list is sent as JSON, bytes as they are."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {"host": host, "content-type": "application/json", "content-length": str(len(content)), **headers}
        for event in (
            h11.Request(method=method, target=path, headers=list(lines.items())),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self.writer.write(self._h11.send(event) or b"")
        await self.writer.drain()

    async def listens(self) -> AsyncIterator[bytes]:
        """Yield the body's bytes as they come, until the reply is over or the server closes."""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = await self.reader.read(65536)
                if not data and self._h11.their_state is h11.SEND_BODY and "content-length" not in self.heard.headers:
                    return  # cut: `whole` stays False
                try:
                    self._h11.receive_data(data)
                except h11.RemoteProtocolError:
                    return
                if not data and self._h11.their_state is h11.SEND_RESPONSE:
                    return
            elif isinstance(event, h11.Response):
                self.heard.status = event.status_code
                self.heard.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                data = bytes(event.data)
                self.heard.body += data
                self.heard.reads.append((time.monotonic(), data))
                yield data
            elif isinstance(event, h11.EndOfMessage):
                self.heard.whole = True
                return
            else:
                return

    async def hears_word(self, words: str) -> None:
        """Read until `words` were heard."""
        async for _ in self.listens():
            if words.encode() in self.heard.body:
                return
        raise AssertionError(f"never heard {words!r}: {self.heard}")

    def hangs_up(self) -> float:
        """Cut the connection; return when."""
        self.writer.transport.abort()
        return time.monotonic()


def turn(words: str = "Hello", **fields: Any) -> dict[str, Any]:
    """Return the body of a streamed turn; `fields` are added, or replace what stands."""
    return {"model": "m1", "stream": True, "messages": [{"role": "user", "content": words}], **fields}
