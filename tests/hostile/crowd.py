"""Many who only hold a connection: ten thousand idle ones, more than may be kept, more than there are descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hostile.corpus import get
from hostile.finding import Finding
from hostile.victim import Victim
from hostile.wire import dial, hear, send, talk

IDLE = 10_000
SPARE = 200  # descriptors of the attacker's own
LATER = 6  # times as late as without them, in the median of some turns: a busy neighbour, not a queue
SLOW = 0.1  # seconds; what is less says nothing
TURNS = 15
EACH = 32 * 1024  # bytes that an idle connection may cost the process
SOON = 10.0  # seconds in which closed connections must be let go of


def may_open() -> int:
    """Let this process open as many connections as the system lets it, and return how many of IDLE that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > IDLE + SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (IDLE + SPARE, hard))
        return IDLE
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - SPARE


@contextmanager
def crowd(victim: Victim, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that have had a reply each, and say nothing more."""
    lines: list[socket.socket] = []
    try:
        for _ in range(count):
            lines.append(dial(victim.port))
            lines[-1].sendall(get())
            if len(lines) % 100 == 0:
                for line in lines[-100:]:
                    assert line.recv(4096).startswith(b"HTTP/1.1 200 ")
        yield lines
    finally:
        for line in lines:
            line.close()


async def first_words(victim: Victim) -> float:
    """Return the seconds to the first word, in the median of some turns."""
    took = []
    for _ in range(TURNS):
        began = time.monotonic()
        heard = await victim.caller.says("Hello there.")
        assert heard.text == "Hello there.", heard
        took.append(heard.reads[0][0] - began)
    return statistics.median(took)


async def idle_connections(victim: Victim) -> Finding:
    """Hold as many idle connections as may be, and have turns beside them."""
    count = may_open()
    assert await asyncio.to_thread(victim.rests)
    alone = await first_words(victim)
    assert await asyncio.to_thread(victim.rests)  # the loop has still to close its own
    before = victim.server.memory()
    with crowd(victim, count):
        each = (victim.server.memory() - before) / count
        held = victim.callers()
        idle = victim.time_used()
        beside = await first_words(victim)
        idle = victim.time_used() - idle
    let_go = await asyncio.to_thread(victim.rests, SOON)
    happened = (
        f"{held} held at {each / 1024:.1f} KiB each; first word after {beside * 1000:.1f} ms, "
        f"{alone * 1000:.1f} ms without them; all {'let go of' if let_go else 'still held'} afterwards"
    )
    stands = held >= count and each < EACH and beside < max(LATER * alone, SLOW) and let_go
    return Finding(f"{count} idle connections", happened, stands)


def no_descriptors(victim: Victim) -> Finding:
    """Open more connections than the server has descriptors, where no bound keeps some free."""
    assert victim.rests()
    before, began = victim.time_used(), time.monotonic()
    lines = [dial(victim.port) for _ in range(200)]
    with selectors.DefaultSelector() as ready:
        ready.select(1.0)  # a second in which a server that tries again and again would use all of it
    used, took = victim.time_used() - before, time.monotonic() - began
    held = victim.callers()
    for line in lines:
        line.close()
    is_back = victim.rests(SOON) and talk(victim.port, get(b"Connection: close")).statuses == [200]
    happened = (
        f"{held} held, {used:.2f} s of processor in {took:.1f} s, and {'as before' if is_back else 'dead'} afterwards"
    )
    return Finding("more connections than descriptors", happened, held < 100 and used < took / 2 and is_back)


def too_many(victim: Victim, most: int) -> Finding:
    """Open more connections than may be kept: the further ones are told so, and the first ones are served."""
    assert victim.rests()
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(dial(victim.port)) for _ in range(most)]
        for line in lines:
            send(line, get())
            assert line.recv(4096).startswith(b"HTTP/1.1 200 ")
        told = [talk(victim.port) for _ in range(5)]
        send(lines[0], get(b"Connection: close"))
        served = hear(lines[0]).statuses == [200]
    is_back = victim.rests(SOON) and talk(victim.port, get(b"Connection: close")).statuses == [200]
    refused = all(heard.closed and heard.statuses == [503] and b"retry-after: 1" in heard.data for heard in told)
    happened = f"the further ones got {told[0].statuses}; one of the first was {'served' if served else 'lost'}"
    return Finding(f"more connections than {most}, which is the bound", happened, refused and served and is_back)
