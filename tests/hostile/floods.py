"""Those who send too much of what is no body: headers, lines, extensions, trailers, requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import repeat

from hostile.corpus import CHUNKED, GOOD, HIDDEN, LENGTH, get, post
from hostile.finding import Finding
from hostile.victim import Victim
from hostile.wire import dial, hear, send

MIB = 2**20
MEMORY = 8 * MIB  # bytes that a flood may cost: what is read at once, some copies, and a busy allocator
ENDLESS = 256 * MIB  # bytes after which a flood without end is over; nobody takes a tenth of it
PIECE = 64 * 1024

BEGUN = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def _flood(
    tried: str,
    victim: Victim,
    pieces: Iterable[bytes],
    *,
    statuses: tuple[int, ...] | None,
    most: int = ENDLESS // 2,
) -> Finding:
    """Send a flood until the server has had enough.

    `statuses`: of all replies; None when how many there are is chance. `most`: bytes of it that may fit into all
    buffers on the way, or are thrown away while what came before is answered.
    """
    assert victim.rests()
    grown = victim.grows()
    began = time.monotonic()
    with dial(victim.port) as line:
        taken = send(line, *pieces)
        heard = hear(line)
    took, memory = time.monotonic() - began, grown()
    said = " and ".join(map(str, dict.fromkeys(heard.statuses))) or "no answer"
    happened = f"{said}, {'closed' if heard.closed else 'left open'} after {taken / MIB:.1f} MiB and {took:.1f} s, "
    is_due = statuses is None or tuple(heard.statuses) in (statuses, ())
    stands = heard.closed and is_due and taken <= most and memory < MEMORY
    if (
        taken < PIECE and statuses is not None
    ):  # nothing was under way when the server closed, so that its answer must have come
        stands = stands and tuple(heard.statuses) == statuses
    return Finding(tried, f"{happened}{memory / MIB:.1f} MiB held at most", stands)


def _endless(data: bytes) -> Iterable[bytes]:
    return repeat(data * (PIECE // len(data)), ENDLESS // PIECE)


CHUNKS = post(CHUNKED, body=b"")
FLOODS: dict[str, tuple[Iterable[bytes], tuple[int, ...] | None]] = {
    "10,000 headers": ([BEGUN, *repeat(b"x-header: value\r\n", 10_000), b"\r\n"], (431,)),
    "10,000 headers in one piece": ([BEGUN + b"a:b\r\n" * 10_000 + b"\r\n"], (431,)),
    "10,000 Cookie lines": ([BEGUN, *repeat(b"Cookie: a=b\r\n", 10_000), b"\r\n"], (431,)),
    "101 headers": ([get(*[b"x: y"] * 100)], (431,)),
    "a header of 70 kB in one piece": ([get(b"x: " + b"y" * 70_000)], (431,)),
    "a header of 1 MB": ([get(b"x: " + b"y" * 1_000_000)], (431,)),
    "a header's name of 1 MB": ([get(b"x" * 1_000_000 + b": y")], (431,)),
    "a request line of 1 MB": ([b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"], (431,)),
    "a query of 1 MB": ([b"GET /health?" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"], (431,)),
    "a header without end": ([BEGUN + b"x: ", *_endless(b"y")], (431,)),
    "headers without end": ([BEGUN, *_endless(b"x: y\r\n")], (431,)),
    "a method without end": (_endless(b"P"), (400,)),
    "a target without end": ([b"GET /", *_endless(b"a")], (431,)),
    "empty lines without end": (_endless(b"\r\n"), (431,)),
    "zeros without end": (_endless(b"\0"), (400,)),
    "a chunk's size without end": ([CHUNKS, *_endless(b"0")], (431,)),
    "a chunk's extension without end": ([CHUNKS + b"5;", *_endless(b"a")], (431,)),
    "a chunk with an extension of 2 MB": ([CHUNKS + b"5;" + b"a" * 2_000_000 + b"\r\n12345\r\n0\r\n\r\n"], (431,)),
    "a trailer without end": ([CHUNKS + b"1\r\n{\r\n0\r\nx: ", *_endless(b"y")], (431,)),
    "trailers without end": ([CHUNKS + b"1\r\n{\r\n0\r\n", *_endless(b"x: y\r\n")], (431,)),
    "a hundred requests at once": ([get() * 100], (*(200,) * 17, 400)),
    "requests without end, whose replies nobody waits for": (_endless(get()), None),
    "a turn, and a hundred requests behind it": ([post(LENGTH) + HIDDEN * 100], (200, *(404,) * 16, 400)),
}


def attack(name: str) -> Callable[[Victim], Finding]:
    """Return one of the FLOODS as an attack."""
    pieces, statuses = FLOODS[name]
    return lambda victim: _flood(name, victim, pieces, statuses=statuses)


def trailer_that_is_a_header(victim: Victim) -> Finding:
    """A trailer says what only a header may say: it must not become one."""
    body = b"%x\r\n%b\r\n0\r\nContent-Encoding: gzip\r\n\r\n" % (len(GOOD), GOOD)
    with dial(victim.port) as line:
        send(line, post(CHUNKED, b"Connection: close", body=body))
        heard = hear(line)
    stands = heard.statuses == [200]
    return Finding("a trailer that is a header's", "ignored" if stands else f"answered {heard.statuses}", stands)
