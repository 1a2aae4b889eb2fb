"""One request to a scripted model and its reply: what the script says, done on the wire.

Rules:
- The answer to a request stands in the request (see `firstword.testing.script`); for one without a script somebody
  else is asked, as a rule a plain good model that echoes the last words of the user. `GET /v1/models` lists two models.
- A script that is wrong is answered 500, and the record says why.
"""

from __future__ import annotations

import asyncio
import base64
import http
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from firstword import clock
from firstword.testing import script
from firstword.testing.witness import Ledger, Line, Record, read_body, read_head

WRITES_KEPT = 1_000  # of one record
MODELS = ("scripted", "scripted-mini")
PHRASES = {status.value: status.phrase for status in http.HTTPStatus}

Answer: TypeAlias = Callable[[Record], script.Script]


class Exchange:
    """One request and our reply to it: a script, done on the wire."""

    def __init__(self, line: Line, record: Record, ledger: Ledger, answer: Answer) -> None:
        self.line, self.record, self.ledger = line, record, ledger
        self._answer = answer
        self._framing: script.Framing = "none"
        self._body_read = False

    async def run(self) -> None:
        """Answer the request; return when the connection may be used again."""
        record = self.record
        self.line.records.append(record)
        self.ledger.records.append(record)
        carried = record.header("x-script")
        if carried is None:
            await self._read()
        record.marker = record.marker or record.header("x-marker") or _user(record.body)
        record.attempt = self.ledger.attempt(record.marker)
        self.ledger.changed()
        await self._play(self._script(carried))
        if record.ended is None:
            await self._do(script.Wait())
        await self._read()

    async def _read(self) -> None:
        if self._body_read:
            return
        data = await read_body(self.line, self.record)
        self._body_read = True
        if data:
            try:
                self.record.body = msgspec.json.decode(data)
            except msgspec.DecodeError:
                self.record.body = data.decode(errors="replace")
        self.record.requested = clock.now()

    def _script(self, carried: str | None) -> list[script.AnyStep]:
        record = self.record
        try:
            if carried is not None:
                return script.parse(msgspec.json.decode(base64.b64decode(carried)), record.attempt)
            body = record.body if isinstance(record.body, dict) else {}
            given = body.get("scripts", body.get("script"))
            return script.parse(self._answer(record) if given is None else given, record.attempt)
        except ValueError as wrong:
            record.mistake = str(wrong)
            return script.parse(script.refuses(500, f"The script is wrong: {wrong}"))

    async def _play(self, steps: Sequence[script.AnyStep]) -> None:
        for step in steps:
            await self._do(step)

    async def _do(self, step: script.AnyStep) -> None:
        # Writes and repetitions let the loop run: a script without waits must not keep it from hearing the peer.
        match step:
            case script.Head():
                await self._head(step)
            case script.Send():
                await self._send(step)
            case script.Wait():
                # A lost connection cancels us, so the wait without a time lasts until the peer closes.
                await (asyncio.Event().wait() if step.seconds is None else asyncio.sleep(step.seconds))
            case script.Read():
                await self._read()
            case script.Repeat():
                count = 0
                while step.times is None or count < step.times:
                    await self._play(step.steps)
                    await asyncio.sleep(0)
                    count += 1
            case script.End():
                await self._end()
            case script.Close():
                self.line.close(reset=step.reset)

    async def _head(self, step: script.Head) -> None:
        framing = {
            "chunked": ["transfer-encoding: chunked"],
            "length": [f"content-length: {step.length}"],
            "close": ["connection: close"],
            "none": [],
        }
        named = [f"{name}: {value}" for name, value in step.headers]
        rows = [f"HTTP/1.1 {step.status} {PHRASES.get(step.status, 'Unknown')}", *named, *framing[step.body], "", ""]
        self._framing = step.body
        await self._write("\r\n".join(rows).encode())

    async def _send(self, step: script.Send) -> None:
        data = (step.text.encode() + step.base64) * step.times
        size = step.pieces or len(data) or 1
        for start in range(0, len(data), size):
            if start and step.pause:
                await asyncio.sleep(step.pause)
            piece = data[start : start + size]
            framed = self._framing == "chunked" and not step.raw
            await self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if framed else piece)

    async def _end(self) -> None:
        if self._framing == "chunked":
            await self._write(b"0\r\n\r\n")
        self.record.ended = clock.now()
        if self._framing == "close":
            self.line.close()
        self.ledger.changed()

    async def _write(self, data: bytes) -> None:
        if len(self.record.writes) < WRITES_KEPT:
            self.record.writes.append((clock.now(), len(data)))
        self.record.sent += len(data)
        await self.line.write(data)
        await asyncio.sleep(0)


# --- the plain good model -------------------------------------------------------------------------


def echo(record: Record) -> script.Script:
    """Return what a good model does with a request that has no script."""
    path, body = record.path.partition("?")[0], record.body
    if path.endswith("/models"):
        told = {"object": "model", "created": script.CREATED, "owned_by": "firstword"}
        return script.json_document({"object": "list", "data": [{"id": id, **told} for id in MODELS]})
    if not path.endswith("/chat/completions"):
        return script.refuses(404, f"Unknown request URL: {path}", type="invalid_request_error")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return script.rejects()
    said = _last_words(body["messages"])
    counted = len(said.split())
    if not body.get("stream"):
        return script.json_document(_completion(said, counted))
    options = body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage")
    tail = [script.usage(completion=counted)] if asked else []
    return script.events(script.role(), script.words(said), script.finish(), tail, script.done())


def _completion(said: str, counted: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    whole = script.chunk({}, object="chat.completion", choices=[choice])
    return {**whole, "usage": script.tokens(completion=counted)}


def _last_words(messages: list[Any]) -> str:
    spoken = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
    content = spoken[-1].get("content") if spoken else ""
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _user(body: Any) -> str:
    return str(body.get("user") or "") if isinstance(body, dict) else ""


# --- the conversation ----------------------------------------------------------------------------


async def converse(line: Line, ledger: Ledger, idle: float | None, answer: Answer = echo) -> None:
    """Answer the requests of one connection in turn; end it after `idle` seconds without one.

    `answer` returns the script for a request that carries none.
    """
    while True:
        line.idle = True
        try:
            record = await asyncio.wait_for(read_head(line), idle)
        except asyncio.TimeoutError:
            return
        line.idle = False
        await Exchange(line, record, ledger, answer).run()
        if (record.header("connection") or "").lower() == "close":
            return
