"""One turn's request and reply on a connection of our own protocol: a body that is here, and one write per event."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from . import EXCHANGE

_SIZE_LINES = tuple(b"%x\r\n" % size for size in range(1024))  # an event is rarely longer; formatting costs more


# Where Linux's `struct tcp_info` has tcpi_last_data_recv, milliseconds: behind 8 bytes and eleven numbers of 4.
_LAST_BYTES = slice(52, 56)


def since_last_bytes(connection: Any) -> float | None:
    """Return the seconds since a socket got its last bytes, read or not; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_BYTES.stop)
    except (AttributeError, OSError):  # closed, or no TCP: a Unix socket
        return None
    return int.from_bytes(info[_LAST_BYTES], sys.byteorder) / 1000 if len(info) == _LAST_BYTES.stop else None


class Exchange:
    """One turn's request and reply on a connection; it stands where uvicorn's request cycle stands.

    A turn writes to it directly (`writers.Exchange`); everything else that answers speaks ASGI to it.
    """

    def __init__(
        self, protocol: HttpToolsProtocol, scope: MutableMapping[str, Any], *, keep_alive: bool, is_first: bool
    ) -> None:
        self._is_first = is_first  # request of its connection
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
        self.response_started = False
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

    def waited(self) -> float | None:
        """Return the seconds since the kernel had the last bytes of a connection's first request; None for others.

        A later request waits in no queue: its connection was let in long ago. Only Linux keeps that time.
        """
        return since_last_bytes(self._transport.get_extra_info("socket")) if self._is_first else None

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
        self.response_started = True
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
