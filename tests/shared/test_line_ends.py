"""A connection to the store that is given up while it is being made ends, under either loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from firstword.shared.line import Line


async def give_up(steps: int) -> bool:
    """Cancel the connecting after so many steps of the loop, and end the line. False when it was done already."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    line = Line(answered=lambda call, reply: None, told=lambda words: None, lost=lambda line: None)
    sock = socket.create_connection(server.sockets[0].getsockname())
    sock.setblocking(False)
    connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(lambda: line, sock=sock))
    for _ in range(steps):
        await asyncio.sleep(0)
    was_connecting = connecting.cancel()
    await asyncio.wait([connecting])
    await asyncio.wait_for(line.end(), 10)
    with contextlib.suppress(OSError):
        sock.close()
    server.close()
    await asyncio.sleep(0.05)
    return was_connecting


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_line_that_is_given_up_while_it_is_made_ends(loop: str) -> None:
    """At each step of the loop in turn, until it is connected: nobody waits for ever, and the store is asked again."""
    new = asyncio.new_event_loop() if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop()
    try:
        steps = 0
        while new.run_until_complete(give_up(steps)):
            steps += 1
        assert steps >= 2
    finally:
        new.close()
