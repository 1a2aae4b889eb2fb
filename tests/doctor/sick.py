"""A custom LLM server that is in order, and takes one fault at a time: real sockets, on the loop of the test.

What a healthy one answers is made as a `Reply`; a fault is a function that changes it, or takes its place.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

KEY = "the-right-key-of-a-test"
PATH = "/chat/completions"
STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
DONE = b"data: [DONE]\n\n"


@dataclass
class Request:
    """One request; `body` is None when it is no JSON object."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    number: int  # of this server's requests, from 1

    @property
    def body(self) -> dict[str, Any] | None:
        try:
            value = json.loads(self.content)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    @property
    def messages(self) -> list[dict[str, Any]]:
        found = (self.body or {}).get("messages")
        return found if isinstance(found, list) else []

    @property
    def text(self) -> str:
        """All words of the last user's message."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                content = message.get("content")
                parts = content if isinstance(content, list) else [{"text": content}]
                return " ".join(part.get("text") or "" for part in parts)
        return ""

    @property
    def is_long(self) -> bool:
        return "one hundred and fifty" in self.text


@dataclass
class Reply:
    """One reply. `parts` leave each in a write of its own, `pauses` seconds before those that it names.

    framing: "chunked", "length", "close", or "open", which is chunked without an end.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(STREAM))
    parts: list[bytes] = field(default_factory=list)
    framing: str = "chunked"
    pauses: dict[int, float] = field(default_factory=dict)
    before_head: float = 0.0
    version: str = "1.1"
    raw: bytes | None = None  # instead of all that
    raw_later: bytes = b""  # a moment behind it
    waits_in_line: bool = False  # until no other such reply is being written

    @property
    def is_stream(self) -> bool:
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/event-stream")


Fault = Callable[[Request, Reply], "Reply | None"]  # None closes the connection without a reply


# --- health -----------------------------------------------------------------------------------------


def document(value: Any, status: int = 200, **headers: str) -> Reply:
    """Answer with JSON, or text."""
    content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    return Reply(status, {"content-type": "application/json", **headers}, [content], "length")


def error(status: int, message: str = "Something is wrong.") -> Reply:
    """Answer with an error in OpenAI's shape."""
    return document({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one chunk."""
    named = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1767000000, "model": "m1"}
    return {**named, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def frame(value: Any) -> bytes:
    """Return one event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def piece(text: str) -> bytes:
    """Return the event of some words."""
    return frame(chunk({"content": text}))


def events(*frames: bytes, finish: str = "stop", usage: dict[str, Any] | None = None) -> Reply:
    """Answer with a stream of frames between the role and the end."""
    role = frame(chunk({"role": "assistant", "content": ""}))
    counted = [frame(chunk({}, choices=[], usage=usage))] if usage else []
    return Reply(parts=[role, *frames, frame(chunk({}, finish)), *counted, DONE])


def answer(request: Request) -> str:
    """Return what is said to a request."""
    body = request.body or {}
    if body.get("response_format"):
        return '{"city":"Paris","sunny":true}'
    if found := re.search(r"code word is (\w+)", request.text):
        return f"{found[1]}."
    if request.is_long:
        return " ".join(f"number{count}" for count in range(40))
    return "今天 很好 😀" if "你好" in request.text else "All is well here today."


def prompt_tokens(messages: Iterable[dict[str, Any]]) -> int:
    """Count words."""
    return sum(3 + len(str(message.get("content") or "").split()) for message in messages)


def healthy(request: Request) -> Reply:
    """Answer as a good server does."""
    if request.path != PATH:
        return error(404)
    if request.method != "POST":
        return error(405)
    if KEY not in (request.headers.get("authorization", "").removeprefix("Bearer "), request.headers.get("api-key")):
        return error(401, "This key is not known.")
    body = request.body
    if body is None or not isinstance(body.get("messages"), list):
        return error(400, "There are no messages.")
    said = answer(request)
    usage = {"prompt_tokens": prompt_tokens(request.messages), "completion_tokens": 3}
    if body.get("stream") is not True:
        message = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        return document({**chunk({}), "object": "chat.completion", "choices": [message], "usage": usage})
    if isinstance(body.get("tool_choice"), dict):
        return events(*call(), finish="tool_calls")
    words = re.findall(r"\s*\S+", said)[: body.get("max_tokens")]
    asked = (body.get("stream_options") or {}).get("include_usage")
    return events(*map(piece, words), usage=usage if asked else None)


def call(*deltas: dict[str, Any]) -> list[bytes]:
    """Return the events of a tool call in the strict form, or of these `tool_calls` entries."""
    opening = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    good = [opening, {"index": 0, "function": {"arguments": '{"city":"Paris"}'}}]
    return [frame(chunk({"tool_calls": [delta]})) for delta in deltas or good]


def well(request: Request, reply: Reply) -> Reply:
    """Have no fault."""
    return reply


# --- faults -----------------------------------------------------------------------------------------


def on_streams(change: Callable[[list[bytes]], list[bytes]]) -> Fault:
    """Change the frames of each stream."""
    return lambda request, reply: replace(reply, parts=change(list(reply.parts))) if reply.is_stream else reply


def on_chunks(change: Callable[[dict[str, Any], int], Any]) -> Fault:
    """Change each chunk, of which it gets the number too; None leaves it out."""

    def fault(frames: list[bytes]) -> list[bytes]:
        changed = [each if each == DONE else change(json.loads(each[6:]), at) for at, each in enumerate(frames)]
        return [each if isinstance(each, bytes) else frame(each) for each in changed if each is not None]

    return on_streams(fault)


def inserts(*frames: bytes, at: int = 2) -> Fault:
    """Put something between the events."""
    return on_streams(lambda parts: [*parts[:at], *frames, *parts[at:]])


def calls(*entries: dict[str, Any] | bytes, finish: str = "tool_calls") -> Fault:
    """Call the tool in this way."""

    def fault(request: Request, reply: Reply) -> Reply:
        if reply.is_stream and isinstance((request.body or {}).get("tool_choice"), dict):
            frames = [each if isinstance(each, bytes) else call(each)[0] for each in entries]
            return events(*(frames or call()), finish=finish)
        return reply

    return fault


def when(is_it: Callable[[Request], Any], then: Reply | Fault | None) -> Fault:
    """Answer some requests otherwise; None closes the connection."""

    def fault(request: Request, reply: Reply) -> Reply | None:
        if reply.status == 200 and is_it(request):
            return then(request, reply) if callable(then) else then
        return reply

    return fault


def on_errors(change: Callable[[Request, Reply], Reply]) -> Fault:
    """Answer mistakes otherwise."""
    return lambda request, reply: reply if reply.status == 200 else change(request, reply)


class Sick:
    """A server with one fault, or none, on the test's own loop for the length of an `async with`."""

    def __init__(self, fault: Fault = well, tls: ssl.SSLContext | None = None) -> None:
        self.fault, self._tls = fault, tls
        self.requests: list[Request] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{PATH}"

    async def __aenter__(self) -> Sick:
        self._lock, self._over = asyncio.Lock(), asyncio.Event()
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0, ssl=self._tls, limit=4_000_000)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._turn(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, path, headers, content, len(self.requests) + 1)
        self.requests.append(request)
        reply = self.fault(request, healthy(request))
        if reply is None:
            return False
        await asyncio.sleep(reply.before_head)
        if reply.raw is not None:
            writer.write(reply.raw)
            await writer.drain()
            await asyncio.sleep(0.05 if reply.raw_later else 0)
            writer.write(reply.raw_later)
            await writer.drain()
            writer.close()
            return False
        if reply.waits_in_line:
            async with self._lock:
                return await self._write(reply, writer)
        return await self._write(reply, writer)

    async def _write(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        framing = {
            "length": f"content-length: {sum(map(len, reply.parts))}\r\n",
            "close": "connection: close\r\n",
        }.get(reply.framing, "transfer-encoding: chunked\r\n")
        lines = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        writer.write(f"HTTP/{reply.version} {reply.status} Some\r\n{lines}{framing}\r\n".encode())
        is_chunked = reply.framing in ("chunked", "open")
        for at, part in enumerate(reply.parts):
            if pause := reply.pauses.get(at, reply.pauses.get(-1, 0.0)):
                await asyncio.sleep(pause)
            writer.write(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked and part else part)
            await writer.drain()
        if reply.framing == "open":
            await self._over.wait()
        if is_chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if reply.framing == "close":
            writer.close()
            return False
        return reply.headers.get("connection") != "close" and reply.version == "1.1"
