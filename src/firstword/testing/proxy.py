"""The local proxy: it opens tunnels by CONNECT, as a company's proxy does, and records who asked for which.

Rules:
- A record is kept of each request; its `path` is the `host:port` that was asked for.
- Nothing but CONNECT is served; without the right Basic credentials, if any are required, the answer is 407.
"""

from __future__ import annotations

import asyncio
import base64
import http
from collections.abc import Awaitable

from firstword import clock
from firstword.testing.witness import Ledger, Line, arguments, play, read_head

PIECE = 65_536  # bytes


async def converse(line: Line, ledger: Ledger, basic: str | None, refuse: int | None) -> None:
    """Answer the one request of a connection, and be a tunnel if it may be opened.

    `basic` is the `user:password` required, `refuse` the status every request is refused with.
    """
    record = await read_head(line)
    line.idle = False
    record.marker = record.header("x-marker") or ""
    record.attempt = ledger.attempt(record.marker)
    line.records.append(record)
    ledger.records.append(record)
    status = refuse or _status(record.method, record.header("proxy-authorization"), basic)
    target = None
    if status == 200:
        host, _, port = record.path.rpartition(":")
        try:
            target = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, ValueError):
            status = 502
    challenge = 'proxy-authenticate: Basic realm="local"\r\n' if status == 407 else ""
    length = "" if status == 200 else "content-length: 0\r\nconnection: close\r\n"
    try:
        await line.write(f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n{challenge}{length}\r\n".encode())
        record.ended = clock.now()
        ledger.changed()
        if target is not None:
            await _tunnel(line, *target)
    finally:
        if target is not None:
            target[1].close()


def _status(method: str, credentials: str | None, basic: str | None) -> int:
    if method != "CONNECT":
        return 405
    if basic is None or credentials == "Basic " + base64.b64encode(basic.encode()).decode():
        return 200
    return 407


async def _tunnel(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until either side ends; then both are closed."""

    async def up() -> None:
        while True:
            writer.write(await line.reader.read(PIECE))
            await writer.drain()

    async def down() -> None:
        while data := await reader.read(PIECE):
            await line.write(data)

    ways = [asyncio.create_task(up()), asyncio.create_task(down())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


def main() -> None:
    """Serve until ended, as the command line says."""
    parser = arguments(__doc__)
    parser.add_argument("--basic", metavar="USER:PASSWORD", help="require these credentials")
    parser.add_argument("--refuse", type=int, metavar="STATUS", help="refuse every tunnel with this status")
    options = parser.parse_args()

    def part(line: Line, ledger: Ledger) -> Awaitable[None]:
        return converse(line, ledger, options.basic, options.refuse)

    play(part, address=options.address, port=options.port)


if __name__ == "__main__":
    main()
