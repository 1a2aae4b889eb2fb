"""An upstream that does its worst costs its own turns and nobody else's: neither time nor memory.

Rules:
- The server is a process of its own; so is each upstream, so that a flood does not slow the good one down by itself.
- The first word of a turn beside is compared with what it takes on the same server when nobody is hostile.
- What a hostile turn hears is told in test_failure_modes.py and test_transport_http.py; here it only has to end.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from benchmarks.soak import Server, running
from caller import Caller, turn

from firstword.testing import Upstream, script

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory")

BESIDE = 9  # turns that are measured, one after the other
LONG_ENOUGH = 0.2  # seconds of measuring, when turns are slow
MEMORY = 20 * 1024 * 1024  # bytes that a hostile turn may cost: an event of 4 MB, what was read, and its copies
LATER = 12  # times as late as undisturbed, in the median: a busy neighbour on two cores, not a queue behind it
SLOW = 0.1  # seconds; what is less on a busy machine says nothing: without steps a flood took 0.3 to 4

# Two models in one list would stand in for each other, and the good one would be asked to play the hostile script.
OURS = """
import os
from firstword import App, Model, Send, Turn
from firstword.model import remote
from firstword.providers.openai import provider

app = App([Model("bad", base_url=os.environ["BAD"])], first_token_timeout=0.5, stall_timeout=0.5, warm=False)


@app.model("good")
async def good(turn: Turn, send: Send) -> None:
    await remote(provider, "good", os.environ["GOOD"], None, app._build().transport)(turn, send)
"""

STREAM = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = 65_536


def flood(head: str, piece: str) -> script.Script:
    """Send `head`, then `piece` over and over, as it is."""
    return [script.send(head, raw=True), script.repeat(script.send(piece * max(PIECE // len(piece), 1), raw=True))]


def stream(piece: str) -> script.Script:
    """Answer 200, then send `piece` over and over, in chunks of 64 kB."""
    return [script.head(200, script.EVENT_STREAM), script.repeat(script.send(piece * (PIECE // len(piece))))]


WORDS = "".join(step["text"] for step in script.says("Hello there, friend.") if step["do"] == "send")
HOSTILE = {
    "drips": [script.head(200, script.EVENT_STREAM), script.send(WORDS * 20, pieces=1), script.end()],
    "floods without a line break": script.floods(64 * 1024 * 1024),
    "floods with line breaks": stream("\n"),
    "floods with short lines": stream(": x\n"),
    "floods with comments": stream(": ping\n\n"),
    "floods with what is no json": stream("data: oh\n\n"),
    "thinks without end": stream('data: {"id":"c","choices":[{"index":0,"delta":{"reasoning":"x"}}]}\n\n'),
    "speaks without end": stream(script.text("Hello ")["text"]),
    "a page without end": [script.head(500, body="close"), script.repeat(script.send("x", times=PIECE))],
    "headers without end": flood("HTTP/1.1 200 OK\r\n", "x: y\r\n"),
    "early hints without end": flood("", "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"),
    "a chunk's extension without end": flood(STREAM + "5;", "a"),
    "trailers without end": flood(STREAM + "0\r\n", "x: y\r\n"),
    "answers twice": [*script.events(script.says("Hello")), script.send(STREAM + "5\r\nagain\r\n", raw=True)],
    "objects without an id": stream("data: {}\n\n"),
}


@dataclass(frozen=True)
class Floor:
    """The server, and both of its upstreams."""

    server: Server
    caller: Caller
    bad: Upstream


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Floor]:
    file = tmp_path_factory.mktemp("ours") / "ours.py"
    file.write_text(OURS)
    with Upstream.start() as bad:
        with running(bad.base_url, str(file), GOOD=upstream.base_url, BAD=bad.base_url) as server:
            yield Floor(server, Caller(f"http://127.0.0.1:{server.port}"), bad)


async def first_word(caller: Caller) -> float:
    """Have one good turn; return the seconds to its first word."""
    began = time.monotonic()
    heard = await caller.says("Hello there, friend.", model="good")
    assert heard.status == 200, heard.body
    assert (heard.text, heard.done) == ("Hello there, friend.", True)
    return heard.reads[0][0] - began


async def median(caller: Caller) -> float:
    """Have some good turns, one after the other; return the usual time to the first word."""
    until = time.monotonic() + LONG_ENOUGH
    taken = [await first_word(caller)]
    while len(taken) < BESIDE and time.monotonic() < until:
        taken.append(await first_word(caller))
    return statistics.median(taken)


async def suffer(port: int, body: dict[str, Any]) -> None:
    """Have one hostile turn after the other, at the least cost: no byte of a reply is looked at."""
    data = msgspec.json.encode(body)
    head = f"POST /chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head.encode() + data)
            while await reader.read(1_000_000):
                pass
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("steps", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_upstream_costs_only_its_own_turns(floor: Floor, marker: str, steps: script.Script) -> None:
    """Such a turn, again and again; a caller beside them hears the first word as before."""
    undisturbed = await median(floor.caller)
    before = floor.server.memory()
    floor.server.forget_peak()
    body = turn(model="bad", user=marker, script=steps)
    suffering = asyncio.ensure_future(suffer(floor.server.port, body))
    try:
        await floor.bad.wait_asked(marker, within=5)
        beside = await median(floor.caller)
    finally:
        suffering.cancel()
        await asyncio.wait([suffering])
    grown = floor.server.peak() - before

    await floor.bad.wait_connections(open=0, within=5)
    assert beside < max(LATER * undisturbed, SLOW), f"{beside:.3f} s, undisturbed {undisturbed:.3f} s"
    assert grown < MEMORY
