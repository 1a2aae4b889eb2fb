"""One connection to an upstream: a request written, its response read as it arrives.

An asyncio protocol around httptools. It holds one response at a time; what the upstream sends while no
response is due ends the connection, so bytes can never reach another turn. Errors are firstword's own.

A turn's task sleeps in `listen` while the answer's pieces go, in the socket's own callback, to the sink that it
gave; it wakes when the sink asks for it. Waking a task for every piece is what most relays spend their time on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

import httptools

from ..errors import UpstreamConnectError, UpstreamProtocolError, UpstreamTruncated
from .alarm import Alarm, late

MAX_HEAD = 64 * 1024  # bytes of status line and headers; real ones are about 1 kB
STEP = 4 * 1024  # bytes that are read in one go; a conversation sends less, and others must have their turn
HIGH_WATER = 256 * 1024  # bytes waiting for a slow caller before we stop reading from the upstream
DRAIN_TIMEOUT = 1.0  # seconds for the end of a body whose words we already have
DRAIN_BYTES = 64 * 1024  # more than this after the words is not worth a kept connection

# Takes the next bytes of a body, and returns the seconds in which the next ones must come, or None to wake the turn.
Sink: TypeAlias = Callable[[bytes], float | None]


class Connection(asyncio.Protocol):
    """One TCP or TLS connection; `on_idle` is called when it can take the next request, `on_closed` once at its end."""

    def __init__(self, on_idle: Callable[[Connection], None], on_closed: Callable[[Connection], None]) -> None:
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[object] | None = None
        self._writable = True  # the socket has room
        self._alarm = Alarm(self._loop, self._ring)
        self._sink: Sink | None = None
        self.closed = False
        self.uses = 0  # requests written so far
        self._busy = False
        self._draining = False
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        """Forget the last response."""
        self._body: list[bytes] = []
        self._later = bytearray()  # the rest of a large read
        self._unread = 0  # bytes that came since somebody took the body
        self._drained = 0
        self._overhead = 0  # bytes of headers, chunk extensions and trailers since the last byte of body
        self._paused = False
        self._failure: Exception | SystemExit | None = None
        self.heard = False  # any byte of this response came
        self.head_done = False
        self.ended = False  # the whole response is here
        self._keeps_alive = False
        self.status = 0
        self.headers: dict[str, str] = {}  # names in lower case; of repeated ones the last

    # --- asyncio's side --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.abort()
            return
        self.heard = True
        if len(data) > STEP or self._later:
            self._later += data
            if len(self._later) == len(data):
                self._read_later()
            return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamProtocolError("The model's server switched protocols, which nobody asked for."))
        except httptools.HttpParserError:
            # A callback of ours that raised has stored its own failure first.
            self._fail(UpstreamProtocolError("The model's server sent a reply that is not HTTP."))
        if self._draining:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                self.abort()
            elif self.ended:
                self._finish()
        elif self._body:
            self._overhead = 0
            if self._sink is not None and self._failure is None:
                self._pour(self._sink)
                return
            self._unread += len(data)
            if self._unread > HIGH_WATER and not self._paused and not self.closed:
                self._paused = True
                self._read(False)
        else:
            self._overhead += len(data)
            if self._overhead > MAX_HEAD:
                what = "framing without end, and no words in it"
                if not self.head_done:
                    what = f"response headers of more than {MAX_HEAD} bytes"
                self._fail(UpstreamProtocolError(f"The model's server sent {what}."))
            if self._sink is not None and not self.ended and self._failure is None:
                return  # a piece of framing: nobody need wake for it
        self._wake()

    def _pour(self, sink: Sink) -> None:
        """Give the sink what has just arrived; wake the turn when the sink asks for it, or at the end."""
        body = self._body
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        try:
            allowed = sink(data)
        except (Exception, SystemExit) as error:  # out of a callback of the loop's it would end all other calls
            self._fail(error)
            return
        if allowed is None:
            self._sink = None
            self._wake()
            return
        self._alarm.set(allowed)
        if self.ended:
            self._wake()

    def _read_later(self) -> None:
        """Read a large piece step by step: a flood shall not keep other turns waiting."""
        if self.closed or not self._later:
            return
        if not self._busy:
            self.abort()
            return
        self._read(False)
        step = bytes(self._later[:STEP])
        del self._later[:STEP]
        self._loop.call_soon(self._read_later)
        self._receive(step)
        if not self._later and not self._paused:
            self._read(True)

    def _read(self, on: bool) -> None:
        if self._transport is not None and not self.closed:
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        return False  # close our side too: a half-open upstream has nothing more to say

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closed:
            return
        if self._later:
            later = bytes(self._later)
            self._later.clear()
            self._receive(later)
            if self.closed:  # meanwhile
                return
        self.closed = True
        self._alarm.stop()
        if not self.ended and self._failure is None:
            if self.head_done and exc is None and self._ends_with_connection():
                self.ended = True
            elif self.head_done:
                self._failure = UpstreamTruncated(
                    "The model's server closed the connection in the middle of its answer."
                )
            else:
                self._failure = UpstreamConnectError("The model's server closed the connection without an answer.")
        self._wake()
        self._on_closed(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    # --- httptools' side -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.ended:
            # A second response to one request: whose it is nobody can know.
            self._fail(UpstreamProtocolError("The model's server answered one request twice."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:  # trailers come after the body, and say nothing to us
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._failure is not None:
            return
        status = self._parser.get_status_code()
        if status == 101:
            self._fail(UpstreamProtocolError("The model's server switched protocols, which nobody asked for."))
        elif status < 200:
            self.headers = {}  # 100 Continue, 103 Early Hints: the answer is still to come
        else:
            self.status = status
            self.head_done = True

    def on_body(self, data: bytes) -> None:
        if self._draining or self._failure is not None:
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.ended = True
            # Asked here and not later: the parser forgets the headers as soon as this call returns.
            self._keeps_alive = self._parser.should_keep_alive()

    # --- the pool's side -------------------------------------------------------------------------

    async def send(self, head: bytes, body: bytes, within: float) -> None:
        """Write one request. Returns when the socket has taken it; `within` seconds, else UpstreamTimeout."""
        assert self._transport is not None
        deadline = self._loop.time() + within
        if self.uses:
            self._reset()
        self.uses += 1
        self._busy = True
        # One write for a turn's usual size, so that head and body share a packet; no copy of a large image.
        if len(body) <= 64 * 1024:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        # An upstream may answer (413, 401) before it has read a large body: do not wait for the rest then.
        while not self._writable and not self.heard and not self.closed:
            await self._wait(deadline, "first token")

    async def head(self, within: float, phase: str = "first token") -> None:
        """Wait for the response's status and headers; `within` seconds, else UpstreamTimeout.

        Raises UpstreamError when there will be none.
        """
        deadline = self._loop.time() + within
        while not self.head_done:
            if self._failure is not None:
                raise self._failure
            await self._wait(deadline, phase)

    async def listen(self, sink: Sink, within: float, phase: str = "stall") -> bool:
        """Give what arrives of the body to `sink`, as it arrives. True when `sink` asked to wake; False at the end.

        Raises UpstreamTruncated when the body was cut, UpstreamTimeout when `within` seconds, or those that `sink`
        allowed last, went by.
        """
        deadline = self._loop.time() + within
        if within <= 0 and not (self._body or self.ended) and self._failure is None:
            raise late(phase)  # a flood of bytes that say nothing is always there before the alarm is
        while True:
            if self._body:
                allowed = sink(self._take())
                if allowed is None:
                    return True
                deadline = self._loop.time() + allowed
            if self._failure is not None:
                raise self._failure
            if self.ended:
                return False
            self._sink = sink
            try:
                await self._wait(deadline, phase)
                if self._sink is None:
                    return True
            finally:
                self._sink = None

    async def read(self, within: float, phase: str = "stall") -> bytes:
        """Return what has arrived of the body since the last call, at least one byte; empty at its end.

        Raises as `listen` does.
        """
        pieces: list[bytes] = []
        await self.listen(pieces.append, within, phase)
        return b"".join(pieces)

    def release(self) -> None:
        """End the response here: a whole one keeps the connection, any other closes it. Harmless after `drain`."""
        if self.closed or self._draining or not self._busy:
            return
        if self.ended and self._failure is None:
            self._finish()
        else:
            self.abort()

    def drain(self) -> None:
        """End the response here, but let the last bytes of a body come in, so that the connection can be kept."""
        if self.closed or self.ended or self._failure is not None or self._paused:
            self.release()
            return
        self._draining = True
        self._body.clear()
        self._alarm.set(DRAIN_TIMEOUT)

    def abort(self) -> None:
        """Close at once, unread bytes and all."""
        if self._transport is not None and not self.closed:
            self._later.clear()
            self._transport.abort()
            self.connection_lost(None)

    def evict_after(self, seconds: float) -> None:
        """Close after `seconds` of idleness."""
        self._alarm.set(seconds)

    @property
    def keep_alive_hint(self) -> float | None:
        """The seconds of idleness that the peer's `keep-alive: timeout=` allows, when it says so."""
        for part in self.headers.get("keep-alive", "").split(","):
            name, _, value = part.strip().partition("=")
            if name.lower() == "timeout" and value.isdecimal():
                return float(value)
        return None

    # --- inside ----------------------------------------------------------------------------------

    def _ends_with_connection(self) -> bool:
        """True when the body has no length of its own, so that the close is its end."""
        return (
            "content-length" not in self.headers and "chunked" not in self.headers.get("transfer-encoding", "").lower()
        )

    def _finish(self) -> None:
        self._draining = False
        assert self._transport is not None
        # A request that the upstream answered before reading all of it (413) would stand before the next one.
        # A transport that is closing has thrown its rest away, and tells us a step later.
        whole = self._transport.get_write_buffer_size() == 0 and not self._transport.is_closing() and not self._later
        if whole and self._keeps_alive and self._failure is None:
            self._busy = False
            self._read_on()
            self._on_idle(self)
        else:
            self.abort()

    def _fail(self, failure: Exception | SystemExit) -> None:
        if self._failure is None:
            self._failure = failure
        self.abort()

    def _take(self) -> bytes:
        """Return what has arrived of the body, and read on if that had become too much."""
        data = b"".join(self._body)
        self._body.clear()
        self._unread = 0
        self._read_on()
        return data

    def _read_on(self) -> None:
        if self._paused:
            self._paused = False
            if not self._later:
                self._read(True)

    async def _wait(self, deadline: float, phase: str) -> None:
        """Wait for the other side to do something, until `deadline` on the loop's clock."""
        waiter: asyncio.Future[object] = self._loop.create_future()
        self._waiter = waiter
        self._alarm.set(deadline - self._loop.time())
        try:
            if await waiter is _LATE:
                raise late(phase)
        finally:
            self._waiter = None

    def _ring(self) -> None:
        """End what has lasted too long."""
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(_LATE)
        elif self._draining or not self._busy:
            self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_LATE = object()
