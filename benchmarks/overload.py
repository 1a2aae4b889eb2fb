"""Five times as many turns as the server has room for: do those that are let in notice?

Rules:
- Everything is real: `firstword serve` and the scripted upstream are processes, callers are sockets that dial for each
  turn and do not wait for each other (an open loop): what is refused is not offered later.
- Calm and storm run in turns against the same server, and what is compared is a ratio. A turn's time to its first word
  counts from the dial.
- Two kinds of room: turns in progress (FIRSTWORD_MAX_TURNS), and the processor, of which each turn burns a few
  milliseconds here (FIRSTWORD_SHED_AFTER).

    python -m benchmarks.overload [--seconds 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

from firstword.testing import Upstream, script

from .soak import Server, running

TIMES = 5.0  # of the room: what the storm offers
CALM = 0.5  # of the room
FIRST = 0.5  # seconds until the model's first word, as good models have it
EVERY = 0.1  # seconds between two words
WORDS = 20
STEPS = [
    script.head(200, script.EVENT_STREAM),
    script.role(),
    script.wait(FIRST - EVERY),
    *script.words(f"One{' word' * (WORDS - 1)}", every=EVERY),
    script.finish(),
    script.done(),
    script.end(),
]
TURN = FIRST + (WORDS - 1) * EVERY  # seconds that such a turn is in progress, about
# Turns are few and long, so that neither the callers nor the model are what a storm is too much for.
ROOM = 40  # turns in progress that one of the servers has room for
BURN = 0.02  # seconds of the processor that a turn of the other costs
CORE = 0.8  # of one core that turns of this kind may burn; the rest is for their words, and for refusals
TIMEOUT = 20.0  # seconds that a caller waits
MOST = 1.5  # times as long as in the calm: the first word, and the longest gap between two, at the median

BUSY = f"""
import time
from firstword import App

app = App()


@app.before_turn
async def burn(turn):
    until = time.thread_time() + {BURN}
    while time.thread_time() < until:
        pass
"""


@dataclass
class Heard:
    """What callers met: seconds to the first word of those that were let in, and to the answer of those that were not.

    gaps: the longest silence within each reply. wrong: what else they met; there should be none. crowd: what the rest
    of a storm met, who are not timed.
    """

    words: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    crowd: list[Heard] = field(default_factory=list)

    def add(self, other: Heard) -> None:
        """Take another round's in."""
        self.words += other.words
        self.gaps += other.gaps
        self.refusals += other.refusals
        self.wrong += other.wrong


def _request(port: int) -> bytes:
    body = msgspec.json.encode(
        {"model": "m1", "stream": True, "messages": [{"role": "user", "content": "Count."}], "script": STEPS}
    )
    head = f"POST /chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class _Call(asyncio.Protocol):
    """One caller: dials, asks, and listens until the server closes. As plain as can be: a storm is made of them."""

    def __init__(self, request: bytes, over: asyncio.Future[None]) -> None:
        self._request = request
        self._over = over
        self.began = time.monotonic()
        self.word = 0.0  # when the first word came
        self.last = 0.0  # when the latest bytes did
        self.gap = 0.0  # the longest time between two of them, from the first word on
        self.ended = 0.0
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.data += data
        now = time.monotonic()
        if self.word:
            self.gap = max(self.gap, now - self.last)
        elif b"One" in self.data:
            self.word = now
        self.last = now

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = time.monotonic()
        if not self._over.done():
            self._over.set_result(None)

    def note(self, heard: Heard) -> None:
        """Say what it met."""
        status = self.data[9:12].decode("latin-1")
        if self.word and self.data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            heard.words.append(self.word - self.began)
            heard.gaps.append(self.gap)
        elif status in ("429", "503") and b"retry-after-ms" in self.data.lower() and self.ended:
            heard.refusals.append(self.ended - self.began)
        else:
            heard.wrong[status or "nothing"] += 1


async def _call(request: bytes, port: int, heard: Heard) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    call = _Call(request, over)
    try:
        transport, _ = await loop.create_connection(lambda: call, "127.0.0.1", port)
    except OSError as error:
        heard.wrong[type(error).__name__] += 1
        return
    try:
        await asyncio.wait({over}, timeout=TIMEOUT)
    finally:
        transport.abort()
    call.note(heard)


async def offer(port: int, rate: float, seconds: float, seed: int) -> Heard:
    """Have `rate` callers a second dial at random moments for so many seconds; return what they met."""
    chance, heard, request = random.Random(seed), Heard(), _request(port)
    calls: set[asyncio.Task[None]] = set()
    began = at = time.monotonic()
    while at < began + seconds:
        await asyncio.sleep(max(at - time.monotonic(), 0))
        call = asyncio.create_task(_call(request, port, heard))
        calls.add(call)
        call.add_done_callback(calls.discard)
        at += chance.expovariate(rate)
    await asyncio.gather(*calls)
    return heard


def _offer(port: int, rate: float, seconds: float, seed: int) -> Heard:
    return asyncio.run(offer(port, rate, seconds, seed))


async def storms(server: Server, room: float, seconds: float, rounds: int) -> tuple[Heard, Heard]:
    """Offer what there is room for, and five times that, in turns; `room` is in turns a second.

    The storm comes from a process of its own, so that the callers who are timed do not wait for it in their own.
    """
    loop, port = asyncio.get_running_loop(), server.port
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        await loop.run_in_executor(other, _offer, port, room * CALM, min(seconds, 2.0), 0)
        calm, storm = Heard(), Heard()
        for number in range(rounds):
            calm.add(await offer(port, room * CALM, seconds, seed=3 * number + 1))
            more = loop.run_in_executor(other, _offer, port, room * (TIMES - CALM), seconds, 3 * number + 2)
            storm.add(await offer(port, room * CALM, seconds, seed=3 * number + 3))
            storm.crowd.append(await more)
    return calm, storm


def figures(calm: Heard, storm: Heard) -> dict[str, Any]:
    """Return what is to be seen of it. Times are milliseconds."""
    found: dict[str, Any] = {"calm: turns": len(calm.words), "calm: refused": len(calm.refusals)}
    everybody = [storm, *storm.crowd]
    found |= {"storm: let in": sum(len(each.words) for each in everybody)}
    found |= {"storm: refused": sum(len(each.refusals) for each in everybody)}
    for name, times in (("calm", calm.words), ("storm", storm.words), ("refused", storm.refusals)):
        found |= {f"{name}: p50 (ms)": at(times, 0.5), f"{name}: p99 (ms)": at(times, 0.99)}
    found["first word, storm/calm, p50"] = round(at(storm.words, 0.5) / at(calm.words, 0.5), 2)
    found["first word, storm/calm, p99"] = round(at(storm.words, 0.99) / at(calm.words, 0.99), 2)
    found["longest gap, calm, p50 (ms)"] = at(calm.gaps, 0.5)
    found["longest gap, storm, p50 (ms)"] = at(storm.gaps, 0.5)
    found["longest gap, storm, p99 (ms)"] = at(storm.gaps, 0.99)
    found["neither served nor told"] = sum(sum(each.wrong.values()) for each in [calm, *everybody])
    return found


def holds(found: dict[str, Any]) -> bool:
    """Say whether who was let in was served as in the calm, and who was not was told, and was most of them."""
    is_served = found["first word, storm/calm, p50"] <= MOST
    is_smooth = found["longest gap, storm, p50 (ms)"] <= MOST * found["longest gap, calm, p50 (ms)"]
    is_shed = found["storm: refused"] > found["storm: let in"] and found["neither served nor told"] == 0
    return bool(is_served and is_smooth and is_shed)


def at(times: list[float], share: float) -> float:
    """Return a quantile, in milliseconds."""
    if len(times) < 2:
        return float("nan")
    return round(1000 * statistics.quantiles(times, n=100)[round(share * 100) - 1], 1)


def burned() -> float:
    """Return the seconds in which this machine burns BURN seconds of one core, now, in the median of some."""
    took = []
    for _ in range(25):
        began, until = time.monotonic(), time.thread_time() + BURN
        while time.thread_time() < until:
            pass
        took.append(time.monotonic() - began)
    return statistics.median(took)


async def of_turns(seconds: float, rounds: int) -> dict[str, Any]:
    """The server has room for ROOM turns in progress."""
    with Upstream.start() as upstream:
        given = {"FIRSTWORD_MAX_TURNS": str(ROOM), "FIRSTWORD_SHED_AFTER": "0"}
        with running(upstream.base_url, **given) as server:
            return figures(*await storms(server, ROOM / TURN, seconds, rounds))


async def of_the_processor(seconds: float, rounds: int) -> dict[str, Any]:
    """Each turn burns BURN seconds: the server has room for what its core can burn, of what others leave of it."""
    room = CORE / burned()
    with tempfile.TemporaryDirectory() as folder, Upstream.start() as upstream:
        file = Path(folder, "busy.py")
        file.write_text(BUSY, "utf-8")
        with running(upstream.base_url, str(file), FIRSTWORD_MAX_TURNS="0") as server:
            return figures(*await storms(server, room, seconds, rounds))


def main() -> None:
    """Run both and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for title, run in (("turns in progress", of_turns), ("the processor", of_the_processor)):
        print(title)
        for name, value in asyncio.run(run(asked.seconds, asked.rounds)).items():
            print(f"  {name:<30}{value:>10,}", flush=True)


if __name__ == "__main__":
    main()
