"""Those who take their time: heads and bodies a byte at a time, half of a head, replies that are not read."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable
from shutil import which

from caller import turn

from firstword.testing import script
from hostile.corpus import CHUNKED, GOOD, get, post
from hostile.finding import Finding
from hostile.victim import Victim
from hostile.wire import Heard, dial, hear, send

EVERY = 0.02  # seconds between two bytes: far less than any limit, so that no pause ends it
SOON = 2.5  # seconds in which an end must have come that is due after half a second; a kept connection has three
LATER = 8.0  # the same for what is due after those three
NEVER_READ = 4096  # bytes of a receive buffer that is not emptied


def drip(line: socket.socket, data: bytes) -> tuple[Heard, float]:
    """Send a byte at a time until the server has had enough; return what it said, and the seconds that it took."""
    began = time.monotonic()
    for at in range(len(data)):
        if not send(line, data[at : at + 1]) or select.select([line], [], [], EVERY)[0]:
            break
    return hear(line), time.monotonic() - began


def slow_head(victim: Victim) -> Finding:
    """A head that comes a byte at a time."""
    with dial(victim.port) as line:
        heard, took = drip(line, b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 1000)
    return _closed(slow_head, heard, took, [])


def slow_second_head(victim: Victim) -> Finding:
    """A head that comes a byte at a time, behind a reply that was read."""
    with dial(victim.port) as line:
        _first_reply(line)
        heard, took = drip(line, b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 1000)
    return _closed(slow_second_head, heard, took, [])


def half_a_second_head(victim: Victim) -> Finding:
    """Half of a head behind a reply that was read, and nothing more."""
    with dial(victim.port) as line:
        _first_reply(line)
        began = time.monotonic()
        send(line, get()[:20])
        heard = hear(line)
    return _closed(half_a_second_head, heard, time.monotonic() - began, [])


def nothing_at_all(victim: Victim) -> Finding:
    """A connection that says nothing."""
    began = time.monotonic()
    with dial(victim.port) as line:
        heard = hear(line)
    return _closed(nothing_at_all, heard, time.monotonic() - began, [])


def empty_lines(victim: Victim) -> Finding:
    """Empty lines before a head, a byte at a time and without end."""
    with dial(victim.port) as line:
        heard, took = drip(line, b"\r\n" * 3000)
    return _closed(empty_lines, heard, took, [])


def slow_body(victim: Victim) -> Finding:
    """A body of known length that comes a byte at a time."""
    with dial(victim.port) as line:
        send(line, post(b"Content-Length: 5000", body=b""))
        heard, took = drip(line, b" " * 5000)
    return _closed(slow_body, heard, took, [408])


def slow_chunks(victim: Victim) -> Finding:
    """A body in chunks that comes a byte at a time."""
    with dial(victim.port) as line:
        send(line, post(CHUNKED, body=b""))
        heard, took = drip(line, b"1\r\n \r\n" * 1000)
    return _closed(slow_chunks, heard, took, [408])


def slow_trailer(victim: Victim) -> Finding:
    """A whole body in chunks, and a trailer that comes a byte at a time."""
    with dial(victim.port) as line:
        send(line, post(CHUNKED, body=b"%x\r\n%b\r\n0\r\n" % (len(GOOD), GOOD)))
        heard, took = drip(line, b"x: y\r\n" * 1000)
    return _closed(slow_trailer, heard, took, [408])


def _first_reply(line: socket.socket) -> None:
    send(line, get())
    while not line.recv(65536).endswith(b"}"):
        pass


def _closed(attack: Callable[[Victim], Finding], heard: Heard, took: float, statuses: list[int]) -> Finding:
    said = f"answered {statuses[0]} and closed" if statuses else "closed without a word"
    stands = heard.closed and heard.statuses == statuses and took < SOON
    return Finding(_tried(attack), f"{said} after {took:.1f} s" if stands else f"{heard} after {took:.1f} s", stands)


def _tried(attack: Callable[[Victim], Finding]) -> str:
    return (attack.__doc__ or "").strip().rstrip(".")


# --- replies that are not read ------------------------------------------------------------------------

GET_DOCS = b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n"
MEMORY = 24 * 2**20  # bytes that a reader who does not read may cost
TALKS = script.events(script.role(), script.repeat(script.text("word " * 2000)))
ENDLESS = json.dumps(turn("Talk.", script=TALKS))


def _not_read(attack: Callable[[Victim], Finding], victim: Victim, *pieces: bytes) -> Finding:
    """Send requests, read nothing, and wait until the server has let go of the connection and of its model's."""
    assert victim.rests()
    models, grown = victim.models(), victim.grows()
    began = time.monotonic()
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NEVER_READ)
        line.settimeout(0.2)  # when the server takes no more, it has to end by itself
        line.connect(("127.0.0.1", victim.port))
        for piece in pieces:
            send(line, piece)
            select.select([], [], [], EVERY)
        was_open = victim.callers() == 1
        let_go = victim.rests(LATER) and victim.models() <= models
        took, memory = time.monotonic() - began, grown()
    happened = f"cut off after {took:.1f} s, with {memory / 2**20:.1f} MiB at most"
    stands = was_open and let_go and memory < MEMORY
    return Finding(_tried(attack), happened if let_go else f"held on to after {took:.1f} s", stands)


def pages_not_read(victim: Victim) -> Finding:
    """Pages are asked for over and over, and none is read."""
    return _not_read(pages_not_read, victim, *[GET_DOCS * 10] * 10)


def last_page_not_read(victim: Victim) -> Finding:
    """Some pages, the last with `Connection: close`: less than fills a buffer, and none is read."""
    return _not_read(last_page_not_read, victim, GET_DOCS * 4 + get(b"Connection: close"))


def kept_page_not_read(victim: Victim) -> Finding:
    """Some pages on a connection that is kept, and none is read."""
    return _not_read(kept_page_not_read, victim, GET_DOCS * 5)


def words_not_read(victim: Victim) -> Finding:
    """A model talks without end, and nobody reads."""
    body = ENDLESS.encode()
    return _not_read(words_not_read, victim, post(b"Content-Length: %d" % len(body), body=body))


def words_not_read_after_chunks(victim: Victim) -> Finding:
    """A model talks without end to a request that came in chunks, which is uvicorn's own way, and nobody reads."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ENDLESS), ENDLESS.encode())
    return _not_read(words_not_read_after_chunks, victim, post(CHUNKED, body=body))


ATTACKS = [
    nothing_at_all,
    slow_head,
    slow_second_head,
    half_a_second_head,
    empty_lines,
    slow_body,
    slow_chunks,
    slow_trailer,
    pages_not_read,
    last_page_not_read,
    kept_page_not_read,
    words_not_read,
    words_not_read_after_chunks,
]


# --- a well-known tool ----------------------------------------------------------------------------------

SLOWHTTPTEST = which("slowhttptest")
MODES = {"-H": "slow heads", "-B": "slow bodies", "-X": "slow reading"}


def slowhttptest(victim: Victim, mode: str, *, connections: int = 200, seconds: int = 5) -> Finding:
    """Let slowhttptest do its worst in one of its MODES; it asks as well whether others are served meanwhile."""
    assert SLOWHTTPTEST is not None
    path = "openapi.json" if mode == "-X" else "chat/completions"
    words = [SLOWHTTPTEST, mode, "-u", f"http://127.0.0.1:{victim.port}/{path}", "-c", f"{connections}"]
    words += ["-r", f"{connections}", "-i", "1", "-l", f"{seconds}", "-p", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 60)
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    said = re.findall(r"service available:\s*(YES|NO)", told)
    ended = re.search(r"Exit status:\s*(.+)", told)
    let_go = victim.rests()
    happened = (
        f"others were served in {said.count('YES')} of {len(said)} looks; it ended with: "
        f"{ended[1].strip() if ended else 'nothing'}; all {'let go of' if let_go else 'still held'}"
    )
    stands = bool(said) and "NO" not in said and let_go
    return Finding(f"slowhttptest {mode} ({MODES[mode]}), {connections} connections", happened, stands)
