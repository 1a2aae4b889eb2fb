"""What the local upstream and the local proxy share: a process that plays its part on one port and tells on another.

Rules:
- That a peer closed is noticed and noted at once, whatever its conversation is busy with; only behind more than
  `UNREAD_LIMIT` bytes that nobody reads it stays unseen.
- Each write leaves before the next one is made (asyncio sets TCP_NODELAY).
- Questions are answered on the second port, `GET /seen` and `GET /connections`, and are not counted as traffic.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import socket
import ssl
import stat
import struct
import sys
import threading
import urllib.parse
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias, cast

import msgspec

from firstword import clock

UNREAD_LIMIT = 131_072  # bytes
HEAD_LIMIT = UNREAD_LIMIT // 2  # bytes; asyncio's reader stops reading at twice its limit
RECORDS_KEPT = 20_000
BACKLOG = 1_024  # connections; hundreds arrive at once

Until: TypeAlias = Literal["now", "asked", "settled", "closed"]
ClosedBy: TypeAlias = Literal["peer", "us"]


class BadHttp(Exception):
    """The peer does not speak HTTP/1.1 as RFC 9112 wants it."""


# --- what is told ---------------------------------------------------------------------------------


class Record(msgspec.Struct, kw_only=True):
    """One request and what became of it.

    Times are those of the monotonic clock, which all processes of a machine share; on a clock that jumps, that one's.
    """

    connection: int  # its number; equal numbers are one kept connection
    method: str
    path: str  # the target as it was sent, query included
    headers: list[tuple[str, str]]  # as they were sent
    body: Any = None  # the value if it was JSON, else its text; None if there was none or it was not read
    marker: str = ""  # the header `x-marker`, else the body's `user`
    attempt: int = 1  # the how-many-th request of this marker
    connected: float
    requested: float  # when all that was read of the request had arrived
    writes: list[tuple[float, int]] = []  # when, and how many bytes; the first thousand
    sent: int = 0  # bytes
    ended: float | None = None  # when the response was complete
    closed: float | None = None  # when the connection was seen to close
    closed_by: ClosedBy | None = None
    mistake: str = ""  # what is wrong with the script or the HTTP of this request

    def header(self, name: str) -> str | None:
        """Return the first value of the header `name`, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Connections(msgspec.Struct):
    """How many connections there are: `open` now, of these `idle` between requests, and in `total` so far."""

    open: int
    total: int
    idle: int


class Ledger:
    """What this process saw, and who waits to see more."""

    def __init__(self) -> None:
        self.records: deque[Record] = deque(maxlen=RECORDS_KEPT)
        self.lines: set[Line] = set()
        self.total = 0
        self._attempts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def attempt(self, marker: str) -> int:
        """Count one more request of `marker` and return the count."""
        self._attempts[marker] += 1
        return self._attempts[marker]

    def changed(self) -> None:
        """Let everyone who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, met: Callable[[], bool], within: float) -> bool:
        """Wait until `met`, for `within` seconds at most; return whether it is."""
        last = clock.now() + within
        while not met():
            try:
                await asyncio.wait_for(self._changed.wait(), last - clock.now())
            except asyncio.TimeoutError:
                return met()
        return True

    def of(self, marker: str | None) -> list[Record]:
        """Return the records of `marker`, or all of them."""
        return [record for record in self.records if marker is None or record.marker == marker]

    def are(self, marker: str | None, until: str, count: int) -> bool:
        """Return whether there are `count` records of `marker`, and each is as `until` says."""
        records = self.of(marker)
        closed = [record.closed is not None for record in records]
        settled = [record.ended is not None or over for record, over in zip(records, closed, strict=True)]
        each = {"closed": closed, "settled": settled}.get(until, [])
        return until == "now" or (len(records) >= count and all(each))

    def connections(self) -> Connections:
        """Count the connections."""
        return Connections(len(self.lines), self.total, sum(line.idle for line in self.lines))


# --- one connection -------------------------------------------------------------------------------


class Line(asyncio.Protocol):
    """One connection: `reader` for what comes, `write` for what goes, and who closed it.

    `converse` is what to do with it, in a task that lives as long as the connection.
    """

    def __init__(self, converse: Converse, ledger: Ledger) -> None:
        self.reader = asyncio.StreamReader(HEAD_LIMIT)
        self.records: list[Record] = []
        self.idle = True
        self.closed: float | None = None
        self._converse = converse
        self._ledger = ledger
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.reader.set_transport(self._transport)
        # 1 and not 0: a TLS transport compares with >= and would never be writable again.
        self._transport.set_write_buffer_limits(high=1)
        self.connected = clock.now()
        self._ledger.total += 1
        self.number = self._ledger.total
        self._ledger.lines.add(self)
        self._ledger.changed()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await self._converse(self)
        except BadHttp as wrong:
            await self._refuse(str(wrong))
        finally:
            self.close()

    async def _refuse(self, why: str) -> None:
        body = msgspec.json.encode({"error": {"message": why, "type": "invalid_request_error"}})
        head = f"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            await self.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def eof_received(self) -> None:
        self._over("peer")
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over("peer")
        self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _over(self, by: ClosedBy) -> None:
        if self.closed is not None:
            return
        self.closed = clock.now()
        for record in self.records:
            record.closed, record.closed_by = self.closed, by
        self._ledger.lines.discard(self)
        self._ledger.changed()

    async def write(self, data: bytes) -> None:
        """Write `data` and wait until all of it has left. Raises `ConnectionError` once the line is closed."""
        if self.closed is not None:
            raise ConnectionResetError
        self._transport.write(data)
        await self._writable.wait()

    def close(self, *, reset: bool = False) -> None:
        """Close with FIN, or with RST."""
        self._over("us")
        if not reset:
            self._transport.close()
            return
        # A linger of 0 seconds makes the kernel throw the connection away with RST: socket(7).
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()


Converse: TypeAlias = Callable[[Line], Awaitable[None]]


# --- HTTP, as strict as a test wants it -----------------------------------------------------------

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


async def read_head(line: Line) -> Record:
    """Wait for the next request and return the record of it, its body unread. Raises `BadHttp`."""
    try:
        head = (await line.reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1")
    except asyncio.LimitOverrunError as wrong:
        raise BadHttp("a head without an end") from wrong
    first, *rest = head.split("\r\n")
    request = re.fullmatch(rf"({_TOKEN}) (\S+) HTTP/1\.1", first)
    named = [re.fullmatch(rf"({_TOKEN}):[ \t]*(.*?)[ \t]*", row) for row in rest]
    if not request or not all(named):
        raise BadHttp(f"no head of a request: {head[:200]!r}")
    record = Record(
        connection=line.number,
        method=request[1],
        path=request[2],
        headers=[(row[1], row[2]) for row in named if row],
        connected=line.connected,
        requested=clock.now(),
    )
    if record.header("host") is None:
        raise BadHttp("no host header")
    return record


async def read_body(line: Line, record: Record) -> bytes:
    """Return the request's body. Raises `BadHttp` if its length is not told in exactly one way."""
    coding, length = record.header("transfer-encoding"), record.header("content-length")
    if record.header("expect"):
        await line.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if coding is None:
        if not re.fullmatch(r"[0-9]+", length or "0"):
            raise BadHttp(f"no length: {length!r}")
        return await line.reader.readexactly(int(length or 0))
    if coding.lower() != "chunked" or length is not None:
        raise BadHttp("two lengths, or a coding nobody knows")
    parts = []
    while size := await _chunk_size(line):
        parts.append(await line.reader.readexactly(size))
        if await line.reader.readexactly(2) != b"\r\n":
            raise BadHttp("a chunk that is not as long as it says")
    while await line.reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts)


async def _chunk_size(line: Line) -> int:
    size = (await line.reader.readuntil(b"\r\n"))[:-2].partition(b";")[0]
    if not re.fullmatch(rb"[0-9a-fA-F]+", size):
        raise BadHttp(f"no chunk size: {size[:80]!r}")
    return int(size, 16)


# --- the process ----------------------------------------------------------------------------------


async def _tell(line: Line, ledger: Ledger) -> None:
    """Answer questions: `/seen?marker&until&count&within` and `/connections?open&within`."""
    while True:
        record = await read_head(line)
        body = msgspec.json.encode(await _answer(record.path, ledger))
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await line.write(head.encode() + body)


async def _answer(path: str, ledger: Ledger) -> dict[str, Any]:
    target = urllib.parse.urlsplit(path)
    asked = dict(urllib.parse.parse_qsl(target.query, keep_blank_values=True))
    within = float(asked.get("within", 0))
    if target.path == "/connections":
        count = asked.get("open")
        met = await ledger.wait_until(lambda: count is None or len(ledger.lines) == int(count), within)
        return {"met": met, "seen": ledger.connections()}
    marker, until, times = asked.get("marker"), asked.get("until", "now"), int(asked.get("count", 0))
    met = await ledger.wait_until(lambda: ledger.are(marker, until, times), within)
    return {"met": met, "seen": ledger.of(marker)}


def arguments(rules: str | None) -> argparse.ArgumentParser:
    """Return the options that both processes have; the first line of a module's `rules` describes it."""
    parser = argparse.ArgumentParser(description=(rules or "").partition("\n")[0])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    return parser


def play(
    part: Callable[[Line, Ledger], Awaitable[None]], *, address: str, port: int, tls: ssl.SSLContext | None = None
) -> None:
    """Play `part` on every connection, until the process is ended or the one that holds our stdin is gone.

    The first line on stdout tells both ports: `{"port": 8001, "control": 8002}`.
    """
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_leash, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(part, address, port, tls))


def _leash() -> None:
    # Not sys.stdin: a thread inside it holds a lock that the interpreter wants at its end.
    while os.read(0, 1):
        pass
    os._exit(0)


async def _serve(
    part: Callable[[Line, Ledger], Awaitable[None]], address: str, port: int, tls: ssl.SSLContext | None
) -> None:
    loop, ledger, questions = asyncio.get_running_loop(), Ledger(), Ledger()
    traffic = await loop.create_server(
        lambda: Line(lambda line: part(line, ledger), ledger), address, port, ssl=tls, backlog=BACKLOG
    )
    control = await loop.create_server(lambda: Line(lambda line: _tell(line, ledger), questions), "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (traffic, control)]
    sys.stdout.write(f'{{"port": {ports[0]}, "control": {ports[1]}}}\n')
    sys.stdout.flush()
    await asyncio.Event().wait()
