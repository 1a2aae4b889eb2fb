"""Bodies that are too large, too deep or too manifold: what each costs us, and who streams beside it.

While a body is read and judged, the words of another turn on the same worker must go on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import pairwise

from caller import turn

from firstword.testing import script
from hostile.corpus import CHUNKED, GOOD, post
from hostile.finding import Finding
from hostile.victim import Victim
from hostile.wire import talk

MIB = 2**20
LIMIT = 20 * MIB  # the server's own bound, as it is set without anybody's doing
# What a body may cost: a part that is the same for all, and one that grows with each byte. Without a bound on keys, one
# of 12 MB took 300 MiB and 1.9 s of processor.
MEMORY, MEMORY_PER_BYTE = 64 * MIB, 3.0
PROCESSOR, PROCESSOR_PER_BYTE = 0.7, 60e-9  # seconds
GAP = 4.0  # seconds without a word for who streams beside it: the machine may be busy, and what it is, is told

EVERY = 0.01  # seconds between the words that somebody hears meanwhile


def _holding(value: bytes) -> bytes:
    """Return a good request with one more field."""
    return GOOD[:-1] + b',"x":' + value + b"}"


def _turn(**fields: object) -> bytes:
    return json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


def _said(count: int, **fields: object) -> bytes:
    return _turn(
        messages=[{"role": ("user", "assistant")[at % 2], "content": f"word {at}"} for at in range(count)], **fields
    )


def _tool(**function: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, **function}}


NUMBERS = b",".join(b"%d.5" % at for at in range(900_000))
PAIRS = b",".join(b'"key%d":1' % at for at in range(190_000))

BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "one byte over the limit": (lambda: GOOD + b" " * (LIMIT + 1 - len(GOOD)), 413),
    "a body of just the limit, of blanks": (lambda: GOOD + b" " * (LIMIT - len(GOOD)), 200),
    "100,000 levels of lists": (lambda: _holding(b"[" * 99_990 + b"]" * 99_990), 400),
    "100,000 levels of objects": (lambda: _holding(b'{"a":' * 99_990 + b"1" + b"}" * 99_990), 400),
    "100,000 levels that do not end": (lambda: _holding(b"[" * 99_990), 400),
    "a million empty objects": (lambda: _holding(b"[" + b"{}," * 999_999 + b"{}]"), 400),
    "99,000 empty objects": (lambda: _holding(b"[" + b"{}," * 98_999 + b"{}]"), 200),
    "a million keys": (lambda: b"{" + b",".join(b'"key%d":1' % at for at in range(1_000_000)) + b"}", 400),
    "190,000 keys, and one to be looked for twice": (lambda: _holding(b"{" + PAIRS + b',"\\u0022":1}'), 200),
    "nine million numbers": (lambda: _holding(b"[" + b"1," * 9_000_000 + b"1]"), 400),
    "900,000 numbers": (lambda: _holding(b"[" + NUMBERS + b"]"), 200),
    "a number of a million digits": (lambda: _holding(b"1" * 1_000_000), 400),
    "a fraction of a million digits": (lambda: _holding(b"0." + b"1" * 1_000_000), 200),
    "an exponent of a million digits": (lambda: _holding(b"1e" + b"9" * 1_000_000), 400),
    "a text of 19 MB": (lambda: _holding(b'"' + b"a" * 19_000_000 + b'"'), 200),
    "a text of 19 MB in escapes": (lambda: _holding(b'"' + b"\\u00e9" * 3_100_000 + b'"'), 200),
    "a text of 19 MB that looks like keys": (lambda: _holding(b'"' + b'\\" ' * 6_300_000 + b'"'), 200),
    "a key of 10 MB": (lambda: b'{"' + b"k" * 10_000_000 + b'":1,' + GOOD[1:], 200),
    "10,000 messages": (lambda: _said(10_000), 200),
    "45,000 messages": (lambda: _said(45_000), 200),
    "45,000 messages of an engine": (lambda: _said(45_000, app_id="a", turn_id=1, timestamp=1), 200),
    "80,000 parts of a message": (
        lambda: _turn(messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}] * 80_000}]),
        200,
    ),
    "a tool's name of 1 MB": (lambda: _turn(tools=[_tool(name="f" * 1_000_000)]), 200),
    "30,000 tools": (lambda: _turn(tools=[_tool()] * 30_000), 200),
    "a model's name of 1 MB": (lambda: _turn(model="m" * 1_000_000, stream=False), 200),
    "no UTF-8": (lambda: _holding(b'"\xff\xfe"'), 400),
    "half of a surrogate": (lambda: _holding(b'"\\ud800"'), 400),
    "a surrogate in UTF-8": (lambda: _holding(b'"\xed\xa0\x80"'), 400),
    "an overlong NUL": (lambda: _holding(b'"\xc0\x80"'), 400),
}


def by_length(body: bytes) -> bytes:
    """Return a request with a body of known length."""
    return post(b"Content-Length: %d" % len(body), b"Connection: close", body=body)


def in_chunks(body: bytes) -> bytes:
    """Return a request with a body in chunks of 64 KiB."""
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    return post(
        CHUNKED,
        b"Connection: close",
        body=b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n",
    )


def in_single_bytes(body: bytes) -> bytes:
    """Return a request with a body in chunks of a byte."""
    pieces = b"".join(b"1\r\n%c\r\n" % each for each in body)
    return post(CHUNKED, b"Connection: close", body=pieces + b"0\r\n\r\n")


WAYS = {"by length": by_length, "in chunks": in_chunks, "in chunks of a byte": in_single_bytes}
# In chunks it goes uvicorn's own way, which differs in how a body is collected, and not in what is made of it.
ATTACKS = [
    *((name, "by length") for name in BODIES),
    *(
        (name, "in chunks")
        for name in ("one byte over the limit", "a body of just the limit, of blanks", "10,000 messages")
    ),
    ("a number of a million digits", "in chunks of a byte"),
]


async def attack(name: str, way: str, victim: Victim) -> Finding:
    """Send one of the BODIES in one of the WAYS, while a turn streams beside it."""
    make, status = BODIES[name]
    body = make()
    return await send_beside(f"{name}, {way}", WAYS[way](body), status, len(body), victim)


async def send_beside(tried: str, request: bytes, status: int, size: int, victim: Victim) -> Finding:
    """Send a request and see what it costs: the server's memory, and the words of a turn that streams beside it."""
    grown, used = victim.grows(), victim.time_used()
    words = script.events(script.role(), script.repeat(script.wait(EVERY), script.text("word ")))
    async with victim.caller.dials(turn("Talk.", script=words)) as call:
        await call.hears_word("word")
        began = time.monotonic()
        attacking = asyncio.ensure_future(asyncio.to_thread(talk, victim.port, request, patience=30.0))
        async for _ in call.listens():
            if attacking.done():
                break
        heard = await attacking
        reads = [at for at, _ in call.heard.reads if at > began]
    times = [began, *reads]
    gap = max(later - earlier for earlier, later in pairwise(times))
    memory, used = grown(), victim.time_used() - used
    code = ", ".join(map(str, heard.statuses)) or "no answer"
    happened = (
        f"{code} after {reads[-1] - began:.2f} s for {size / 1e6:.1f} MB; {used:.2f} s of processor, "
        f"{memory / MIB:.0f} MiB held at most; "
        f"the longest gap in a turn beside it {gap * 1000:.0f} ms"
    )
    is_due = heard.statuses == [status] or (status == 413 and not heard.statuses)  # cut off while it was sent
    is_cheap = memory < MEMORY + MEMORY_PER_BYTE * size and used < PROCESSOR + PROCESSOR_PER_BYTE * size
    stands = heard.closed and is_due and is_cheap and gap < GAP
    return Finding(tried, happened, stands)
