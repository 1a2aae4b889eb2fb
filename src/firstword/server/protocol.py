"""uvicorn's HTTP protocol with a shorter way for turns: one task, one write per event, a hang-up told at once.

A turn's request is taken over from uvicorn's own request cycle when it is of the usual kind: a POST to a chat
path with a body of known and modest length. Every other request, and everything else about a connection
(parsing, keep-alive, pipelining, the drain at shutdown), is uvicorn's as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from . import EXCHANGE
from .routes import CHAT

MAX_HEAD = 64 * 1024  # bytes of request line and headers; nobody's are longer, and uvicorn sets no limit
HEAD_TIMEOUT = 15.0  # seconds for a new connection to send its first head
USUAL_BODY = 1024 * 1024  # bytes; a larger one (images) comes in pieces, which uvicorn's own way reads with care

UNKNOWN = b"unknown"  # the length of a body that comes in chunks

_SIZE_LINES = tuple(b"%x\r\n" % size for size in range(1024))  # an event is rarely longer; formatting costs more
_TURN = CHAT.encode()


class Exchange:
    """One turn's request and reply on a connection; it stands where uvicorn's request cycle stands.

    A turn writes to it directly (`writers.Exchange`); everything else that answers speaks ASGI to it.
    """

    def __init__(self, protocol: VoiceProtocol, scope: MutableMapping[str, Any], *, keep_alive: bool) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._flow = protocol.flow
        self._scope = scope
        self._leave: Callable[[], None] | None = None
        self._lose: Callable[[], None] | None = None
        self._head = b""
        self._chunked = True
        self._waiter: asyncio.Future[None] | None = None
        self.begun = False
        # The names that uvicorn's protocol uses.
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        scope["extensions"] = {EXCHANGE: self}

    @property
    def message_event(self) -> Exchange:
        """What uvicorn sets: this, and no field of it, which would be a circle that only the collector could end."""
        return self

    def set(self) -> None:
        """Take note that the body grew or ended, or that the caller is gone."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.disconnected and self._leave is not None:
            self._leave()

    def on_leave(self, call: Callable[[], None] | None) -> None:
        """Take what to call when the caller leaves."""
        self._leave = call
        if call is not None and self.disconnected:
            call()

    def on_loss(self, call: Callable[[], None]) -> None:
        """Take what to call when the connection breaks after all was written: the end may not have arrived."""
        self._lose = call

    def break_off(self) -> None:
        """Take note that the connection broke."""
        if self._lose is not None:
            self._lose()

    async def run_asgi(self, app: Any) -> None:
        """Answer the request; named by uvicorn."""
        try:
            await app(self._scope, self.receive, self.send)
        finally:
            self._scope.clear()  # it knows us by its extension; as above
            if not self.response_complete and not self.disconnected:
                # The caller reads no more, or the server is going down: nothing that waits here can be delivered.
                self._transport.abort()

    def take_body(self) -> bytes | None:
        """Return the request's body, once; None while it is still on its way."""
        if self.more_body:
            return None
        body, self.body = bytes(self.body), bytearray()  # a turn lasts long, and needs its bytes no more
        return body

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the whole body, as ASGI."""
        while self.more_body and not self.disconnected:
            self._flow.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": bytes(self.body), "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Write one part of the reply, as ASGI; the head waits for the first bytes of the body."""
        if message["type"] == "http.response.start":
            lines = bytearray()
            for name, value in message["headers"]:
                if b"\r" in value or b"\n" in value:
                    raise ValueError("a header value holds a line break")
                if name == b"content-length":
                    self._chunked = False
                elif name == b"connection" and value == b"close":
                    self.keep_alive = False
                    continue
                lines += b"%b: %b\r\n" % (name, value)
            self.start(bytes(lines), status=message["status"])
        else:
            while not self.write(message["body"], more=message.get("more_body", False)):
                await self.drain()

    async def drain(self) -> None:
        """Wait until there is room, or the caller is gone."""
        await self._flow.drain()

    def start(self, headers: bytes, status: int = 200) -> None:
        """Begin the response; its head leaves with the first bytes of the body."""
        lines = [STATUS_LINE[status]]
        for name, value in self._protocol.server_state.default_headers:
            lines.append(b"%b: %b\r\n" % (name, value))
        lines.append(headers)
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")
        self._head = b"".join(lines)

    def write(self, data: bytes, *, more: bool) -> bool:
        """Write a part of the body, at once; the last one ends the response. False when there is no room for it."""
        if self.disconnected or self._flow.write_paused:
            return self.disconnected
        if more and data and self._chunked and not self._head:
            size = len(data)
            line = _SIZE_LINES[size] if size < len(_SIZE_LINES) else b"%x\r\n" % size
            self._transport.write(b"".join((line, data, b"\r\n")))
        elif data or not more:  # an empty chunk is HTTP's word for the end
            self._write_edge(data, more)
        return True

    def _write_edge(self, data: bytes, more: bool) -> None:
        """Write the first part of a response, the last one, or all of it."""
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._chunked and not more:
            data += b"0\r\n\r\n"
        self._transport.write(self._head + data)
        self._head = b""
        if not more:
            self.response_complete = True
            if not self.keep_alive:
                self._transport.close()
            self._protocol.on_response_complete()


class VoiceProtocol(HttpToolsProtocol):
    """One connection of a voice engine."""

    _exchange: Exchange | None = None  # the turn that is being answered
    _head_size: int | None = None  # bytes of the head that is coming in; None between heads
    _length = b""  # what the head that is coming in says of its body
    _patience: asyncio.TimerHandle | None = None  # for the next head
    _patient_until = 0.0  # on the loop's clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a head before long: a connection that says nothing is not kept for ever."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._expect_head(HEAD_TIMEOUT)

    def on_response_complete(self) -> None:
        """Wait for the next request, as long as uvicorn is told to; the timer is set once and looks again later."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._expect_head(self.timeout_keep_alive)

    def _expect_head(self, within: float) -> None:
        self._patient_until = self.loop.time() + within
        if self._patience is None:
            self._patience = self.loop.call_later(within, self._lose_patience)

    def _lose_patience(self) -> None:
        """Close a connection that sends no head; look again later when it has sent one since."""
        self._patience = None
        left = self._patient_until - self.loop.time()
        if left > 0:
            self._patience = self.loop.call_later(left, self._lose_patience)
        elif self._head_size is not None or self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count the head's bytes, and the time that it may take."""
        super().on_message_begin()
        self._length = b""
        self._head_size = 0
        self._patient_until = self.loop.time() + HEAD_TIMEOUT

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and note what says how long the body is."""
        name = name.lower()
        if name == b"content-length":
            self._length = self._length or value  # behind a transfer-encoding it says nothing
        elif name == b"transfer-encoding":
            self._length = UNKNOWN
        elif name == b"expect":
            super().on_header(name, value)
            return
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take a turn's request over; leave any other to uvicorn."""
        self._head_size = None
        path, _, query = self.url.partition(b"?")
        # A path that is not plain is uvicorn's to decode.
        if path.endswith(_TURN) and b"%" not in path and path.isascii() and self._is_usual():
            scope: MutableMapping[str, Any] = cast("MutableMapping[str, Any]", self.scope)
            scope.update(method="POST", path=path.decode(), raw_path=path, query_string=query)
            self._exchange = Exchange(self, scope, keep_alive=self.parser.should_keep_alive())
            self.cycle = cast("RequestResponseCycle", self._exchange)
        else:
            super().on_headers_complete()
        if self.cycle is not None and getattr(self.server_state, "is_draining", False):
            self.cycle.keep_alive = False  # the next turn goes to another server

    def _is_usual(self) -> bool:
        """True for a POST with a body of modest length, when no other request is being answered here."""
        if self.parser.get_method() != b"POST" or self.expect_100_continue or self.parser.should_upgrade():
            return False
        if self.parser.get_http_version() != "1.1" or self.root_path or self.limit_concurrency is not None:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        length = self._length
        return len(length) < 8 and length.isdigit() and int(length) <= USUAL_BODY

    def on_message_complete(self) -> None:
        """Begin the turn: its request is whole."""
        super().on_message_complete()
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Begin the turn also before its body is whole: how long that may take is the server's to say."""
        super().data_received(data)
        if self._head_size is not None:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self.transport.abort()
        self._begin()

    def _begin(self) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.begun:
            exchange.begun = True
            self._start_asgi_task(cast("RequestResponseCycle", exchange), self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the turn that its caller is gone."""
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.disconnected = True
            exchange.set()
        elif exchange is not None and exc is not None:
            exchange.break_off()
