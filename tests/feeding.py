"""A connection whose upstream is the test itself: bytes arrive in the very pieces that the test says.

Rules:
- The socket is real and its other end says nothing; each piece is given as asyncio gives what it has read.
- Nothing is given to a connection that has closed: asyncio would not either.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from firstword.errors import UpstreamError
from firstword.transport import Connection

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
NEXT = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"
MOST_STEPS = 100_000  # a connection whose body nobody takes reads no more
STEPS = 50  # of the loop; whatever an upstream's last byte or its close begins is over long before


@dataclass(frozen=True)
class Heard:
    """What came of one response. `kept` says that the connection waits for the next request."""

    status: int
    body: bytes
    failure: type[UpstreamError] | None
    ended: bool
    kept: bool


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, connection: Connection, far: socket.socket, idle: list[Connection]) -> None:
        self.connection, self._far, self._idle = connection, far, idle

    async def answers(self, pieces: Sequence[bytes], *, closes: bool = False) -> Heard:
        """Ask for one response, give `pieces`, then close if it `closes`; return what was heard.

        A response that neither ends nor fails has `ended` False and no failure.
        """
        self._idle.clear()
        await self.connection.send(REQUEST, b"", 5)
        listening = asyncio.ensure_future(_listen(self.connection))
        await asyncio.sleep(0)
        for piece in pieces:
            if self.connection.closed or listening.done():
                break
            self.connection.data_received(piece)
            await asyncio.sleep(0)
            await self._until_it_reads()
        if closes:
            self._far.recv(len(REQUEST))  # a close with something unread would be a reset
            self._far.close()
        for _ in range(STEPS):
            if listening.done():
                break
            await asyncio.sleep(0)
        ended = listening.done()
        assert ended or not closes, "the upstream is gone and its response still waited for"
        listening.cancel()
        body, failure = await listening if ended else (b"", None)
        self.connection.release()
        return Heard(self.connection.status, body, failure, ended, bool(self._idle))

    async def _until_it_reads(self) -> None:
        """Wait while the connection wants nothing: asyncio would give it nothing either."""
        transport = self.connection._transport
        assert isinstance(transport, asyncio.ReadTransport)
        for _ in range(MOST_STEPS):
            if transport.is_reading() or transport.is_closing():
                break
            await asyncio.sleep(0)


@asynccontextmanager
async def dialled() -> AsyncIterator[Peer]:
    """Connect; at the end nothing is left open and no callback of ours has raised."""
    near, far = socket.socketpair()
    idle: list[Connection] = []
    closed: list[Connection] = []
    mistakes: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, what: mistakes.append(what))
    _, connection = await loop.create_connection(lambda: Connection(idle.append, closed.append), sock=near)
    try:
        yield Peer(connection, far, idle)
    finally:
        connection.abort()
        await asyncio.sleep(0)  # the transport closes its socket a step later
        far.close()
    assert closed == [connection] and not mistakes, mistakes


async def hears(pieces: Sequence[bytes], *, closes: bool = False) -> Heard:
    """Return what is heard of a response in these `pieces`.

    Asserts that of a connection that is kept the next response is the next one, whatever the first one was.
    """
    async with dialled() as peer:
        heard = await peer.answers(pieces, closes=closes)
        assert heard.kept != peer.connection.closed
        if heard.kept and not closes:
            after = await peer.answers([NEXT])
            assert (after.status, after.body, after.failure, after.kept) == (200, b"next", None, True)
    return heard


async def _listen(connection: Connection) -> tuple[bytes, type[UpstreamError] | None]:
    body = b""
    try:
        await connection.head(5)
        while data := await connection.read(5):
            body += data
    except UpstreamError as error:
        return body, type(error)
    return body, None


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return `data` in pieces that end at `places`; none of them is empty."""
    at = sorted({place for place in places if 0 < place < len(data)})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True) if start < end]
