"""Write a reply: as server-sent events while it comes, or as one JSON object when it is whole.

The status line is held back until the first chunk that speaks. Until then an error still has a true HTTP
status of its own; after it, the only error that clients understand is an event that says `error`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

import msgspec

from .. import clock
from ..chunk import Chunk
from ..collect import completion
from ..errors import Error, UpstreamProtocolError
from ..platforms import of
from ..turn import Turn
from ..wire import DONE, frame
from .apology import conclusion
from .first import FirstWords
from .headers import lines, pairs, told

log = logging.getLogger("firstword")

ASGISend = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_WHOLE = 16 * 1024 * 1024  # bytes of chunks that a reply in one piece is made of
MAX_HELD = 256 * 1024  # bytes of unspoken chunks (long reasoning) after which the reply starts all the same

EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events otherwise
)


_EVENT_STREAM_LINES = b"".join(b"%b: %b\r\n" % line for line in EVENT_STREAM)


async def send_json(send: ASGISend, status: int, value: Any, headers: Mapping[str, str]) -> None:
    """Send one whole JSON response."""
    await send_body(send, status, "application/json", msgspec.json.encode(value), headers)


async def send_body(send: ASGISend, status: int, kind: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Send one whole response that no cache keeps."""
    lines = {
        "content-type": kind,
        "x-content-type-options": "nosniff",  # a caller's words must not become a page's script
        "cache-control": "no-store",
        "content-length": str(len(body)),
        **headers,
    }
    raw = [(name.encode("latin-1"), text.encode("latin-1", "replace")) for name, text in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: ASGISend, error: Error) -> None:
    """Answer a request that never became a turn, and leave a line in the log."""
    log.info("request refused status=%d code=%s", error.status, error.code)
    await send_json(send, error.status, error.body(), error.headers())


class Exchange(Protocol):
    """What our own HTTP protocol offers a turn beside ASGI: a body that is here, and writing that needs no waiting."""

    def waited(self) -> float | None:
        """Return the seconds that a connection's first request waited to be read; None for others, or when unknown."""

    def take_body(self) -> bytes | None:
        """Return the request's body, once; None while it is still on its way."""

    async def drain(self) -> None:
        """Wait until there is room."""

    def start(self, headers: bytes) -> None:
        """Begin a response with status 200 and these header lines; the head leaves with the first bytes."""

    def write(self, data: bytes, *, more: bool) -> bool:
        """Write a part of the body, at once; the last one ends the response. False when there is no room for it."""

    def on_leave(self, call: Callable[[], None] | None) -> None:
        """Take what to call when the caller leaves."""

    def on_loss(self, call: Callable[[], None]) -> None:
        """Take what to call when the connection breaks after all was written: the end may not have arrived."""


def both(one: Callable[[Chunk], None], other: Callable[[Chunk], None] | None) -> Callable[[Chunk], None]:
    """Return what gives a chunk to both."""
    if other is None:
        return one

    def give(chunk: Chunk) -> None:
        one(chunk)
        other(chunk)

    return give


class EventWriter:
    """Write a streamed reply; it is the `send` of the outermost stage. `status` is 0 until the response has started.

    Chunks that came in one read of the upstream leave in one write (`turn.corked`); all others leave at once. Each goes
    to `keep` as well.
    """

    def __init__(
        self, turn: Turn, send: ASGISend, exchange: Exchange | None, *, keep: Callable[[Chunk], None] | None
    ) -> None:
        self._turn = turn
        self._asgi_send = send
        self._exchange = exchange
        self._keep = keep
        self._held: list[bytes] = []
        self._held_size = 0
        self._may_start = False  # something was spoken, or what was not (reasoning) is too long to be held
        self._is_over = False  # the end was written, or waits until the caller reads
        self._first: FirstWords | None = FirstWords(turn)  # None once there is nothing more to be noted
        self.has_spoken = False
        self.status = 0
        self.last: Chunk | None = None  # the last chunk that was taken
        turn.flush = self.flush

    async def __call__(self, chunk: Chunk) -> None:
        """Write one chunk, at once when it speaks; returns when the caller's socket has room again."""
        if not self.at_once(chunk):
            await self.flush()

    def at_once(self, chunk: Chunk) -> bool:
        """Write one chunk without waiting. False when that cannot be: then `turn.flush` has to be awaited."""
        if self._keep is not None:
            self._keep(chunk)
        self.last = chunk
        exchange = self._exchange
        if (
            exchange is not None
            and self.has_spoken
            and self.status
            and not self._held
            and not self._turn.corked
            and exchange.write(chunk.frame, more=True)
        ):
            first = self._first
            if first is not None and first.see(chunk):
                self._first = None
            return True  # the usual chunk, in the middle of a reply
        self._held.append(chunk.frame)
        if not self.has_spoken:
            self.has_spoken = chunk.speaks
            self._held_size += len(chunk.frame)
            # An ending without a word waits for what may have to be said instead.
            goes_on = chunk.finish_reason is None and bool(chunk.look().choices)
            self._may_start = self.has_spoken or (self._held_size > MAX_HELD and goes_on)
            if not self._may_start:
                return True
        if self._first is not None and self._first.see(chunk):
            self._first = None
        if self._turn.corked:
            return True
        return exchange is not None and self._write_through(exchange, more=True)

    async def flush(self) -> None:
        """Write what is held, unless nothing has been spoken yet."""
        if self._may_start and self._held:
            await self._write(more=True)

    async def close(self) -> None:
        """End a whole reply: its last event and `[DONE]` leave together."""
        if self._first is not None:
            self._first.end()
        await self._end(DONE)

    async def _end(self, *frames: bytes) -> None:
        """Write the last frames; once, also when a caller who does not read them is given up."""
        if not self._is_over:
            self._is_over = True
            self._turn.reply.last = self.last
            self._held += frames
        await self._write(more=False)

    async def conclude(self, words: str) -> None:
        """End a reply that is not whole by words of our own; what was held, and never heard, is dropped."""
        if self._is_over:
            await self._end()
            return
        if not (self.has_spoken and self.status):
            self._held.clear()
        if not self.status:
            self.last = None
        chunks = conclusion(self._turn, words, self.last)
        said = self._turn.reply.chunks if self.status else []
        self._turn.reply.chunks = [*said, *chunks]
        if words and self._first is not None:
            self._first.instead()
        await self._end(*(chunk.frame for chunk in chunks), DONE)

    async def fail(self, error: Error) -> None:
        """End a reply that is not whole: a true status if none was sent, else an error event and no `[DONE]`."""
        if not self.status:
            self.status = error.status
            await _send_error(self._asgi_send, self._turn, error)
            return
        await self._end(frame(msgspec.json.encode(_error_body(self._turn, error))))

    async def _write(self, *, more: bool) -> None:
        if self._exchange is not None:
            while not self._write_through(self._exchange, more=more):
                await self._exchange.drain()
            return
        if not self.status:
            self._start()
            headers = [*EVENT_STREAM, *pairs(self._turn)]
            await self._asgi_send({"type": "http.response.start", "status": 200, "headers": headers})
        data = b"".join(self._held)
        self._held.clear()
        await self._asgi_send({"type": "http.response.body", "body": data, "more_body": more})

    def _write_through(self, exchange: Exchange, *, more: bool) -> bool:
        if not self.status:
            self._start()
            exchange.start(_EVENT_STREAM_LINES + lines(self._turn).encode("latin-1"))
        if not exchange.write(b"".join(self._held), more=more):
            return False
        self._held.clear()
        return True

    def _start(self) -> None:
        turn = self._turn
        if turn.interruptable is not None or turn.voice is not None:
            try:
                opening = of(turn).opening(turn, (self.last and self.last.data.get("id")) or turn.id)
                if opening is not None:
                    self._held.insert(0, opening.frame)
            except Exception:
                turn.interruptable = turn.voice = None  # nor can it be told with what is said instead
                raise
        self.status = 200
        heard = turn.timeline.heard
        turn.timeline.sent = clock.now() if heard is None else heard  # the words that begin it


class ObjectWriter:
    """Write a reply in one piece. `status` is 0 until the response has started. Each chunk goes to `keep` as well."""

    def __init__(self, turn: Turn, send: ASGISend, *, keep: Callable[[Chunk], None] | None = None) -> None:
        self._turn = turn
        self._asgi_send = send
        self._keep = keep
        self._chunks: list[Chunk] = []
        self._size = 0
        self.status = 0
        self.last: Chunk | None = None  # nothing is sent before all is

    @property
    def has_spoken(self) -> bool:
        """True when there is something to hear."""
        return any(chunk.speaks for chunk in self._chunks)

    async def __call__(self, chunk: Chunk) -> None:
        """Keep one chunk. Raises UpstreamProtocolError when the reply grows over MAX_WHOLE."""
        self._size += len(chunk.frame)
        if self._size > MAX_WHOLE:
            raise UpstreamProtocolError(f"The model's answer is longer than {MAX_WHOLE} bytes.")
        self._chunks.append(chunk)
        if self._keep is not None:
            self._keep(chunk)

    async def close(self) -> None:
        """Send the whole reply."""
        whole = of(self._turn).whole(completion(self._chunks))
        self._turn.reply.chunks = self._chunks
        self.status = 200
        self._turn.timeline.sent = clock.now()
        await send_json(self._asgi_send, 200, whole, told(self._turn))

    async def conclude(self, words: str) -> None:
        """Send these words instead of a reply that is not whole."""
        self._chunks = conclusion(self._turn, words, None)
        await self.close()

    async def fail(self, error: Error) -> None:
        """Send the error; nothing was sent before."""
        if not self.status:
            self.status = error.status
            await _send_error(self._asgi_send, self._turn, error)


async def _send_error(send: ASGISend, turn: Turn, error: Error) -> None:
    headers = {**told(turn), **error.headers()}
    await send_json(send, error.status, _error_body(turn, error), headers)


def _error_body(turn: Turn, error: Error) -> dict[str, Any]:
    return of(turn).mistake(error.body(), error.status)
