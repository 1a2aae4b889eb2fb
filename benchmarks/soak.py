"""Thousands of turns, some of them dropped by the caller at a random moment: what is left of them afterwards?

Rules:
- Everything is real: `firstword serve` and the scripted upstream are processes, callers are sockets. The same turns
  then run in this process, where asyncio's tasks and Python's objects can be counted.
- What is compared is a server at rest: after a tenth of the turns, and after all. Nothing may have grown by then but
  what an allocator keeps.

    python -m benchmarks.soak [--turns 10000] [--callers 30] [--drop 3]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvicorn

from firstword import App
from firstword.serving import options
from firstword.testing import Upstream, script

from .machine import settings

PROC = Path("/proc")
START_TIMEOUT = 20.0  # seconds until the server listens
REST_TIMEOUT = 10.0  # seconds until the last connection is closed
UPSTREAM_IDLE = 2.0  # seconds; then the upstream ends a kept connection, so that none is left at rest
EARLY = 0.1  # of the turns
MOST_GROWTH = 8 * 1024 * 1024  # bytes of memory between a tenth of the turns and all of them; a leak of 1 kB a turn
MOST_SHARE = 0.05  # of the memory, likewise, of a long soak
LONG = 10_000  # turns
MOST_OBJECTS = 500  # Python objects, likewise
UNSHED = {"FIRSTWORD_SHED_AFTER": "0"}  # callers who never wait are as many as a busy machine can serve, or more
DROPPED = "dropped"  # the mark of such a turn, for the upstream to count
SAID = "One, two, three, four, five."
WORDS = SAID.split()
STEPS = [
    script.wait(0.004),  # a caller can leave before the head,
    script.head(200, script.EVENT_STREAM),
    script.wait(0.004),  # before the first word,
    script.role(),
    *script.words(SAID, every=0.002),  # in mid-answer,
    script.finish(),
    script.wait(0.004),  # and after the last word
    script.done(),
    script.end(),
]
SILENCE = 0.008  # seconds before the first word
LONGEST = 10.0  # seconds that a turn may take
LAST = b"0\r\n\r\n"  # of a whole reply


class Left(Exception):
    """Something is left behind; the message says what."""


# --- callers --------------------------------------------------------------------------------------


class Who(NamedTuple):
    """Who calls: the path of the request, and a gate key if one is needed."""

    path: str = "/chat/completions"
    key: str = ""


@dataclass
class Tally:
    """How the turns ended. A drop is named by what its caller had heard."""

    whole: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)

    @property
    def dropped(self) -> int:
        """How many turns their callers dropped."""
        return sum(self.drops.values())


def request(port: int, who: Who, said: str, marker: str, steps: script.Script = STEPS) -> bytes:
    """Return a turn's request; `steps` are what the model does with it."""
    messages = [{"role": "user", "content": said}]
    body = msgspec.json.encode({"model": "m1", "stream": True, "messages": messages, "user": marker, "script": steps})
    head = f"POST {who.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    key = f"authorization: Bearer {who.key}\r\n" if who.key else ""
    return f"{head}{key}content-length: {len(body)}\r\n\r\n".encode() + body


async def call(
    port: int, turns: int, callers: int, seed: int, *, drop: int = 3, who: Sequence[Who] = (Who(),)
) -> Tally:
    """Have `turns` turns with as many callers at once; each `drop`th is dropped, all on kept connections.

    `who` they are goes round.
    """
    chance = random.Random(seed)
    plan = iter([(number, number % drop == 0, chance.random(), chance.randrange(5)) for number in range(turns)])
    tally = Tally()

    async def talk(me: Who) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        for number, drops, share, moment in plan:
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = f"Count to five, for the time {seed}.{number}."  # never the same: it would be a turn sent again
            writer.write(request(port, me, said, DROPPED if drops else "whole"))
            if drops:
                heard = await _listen(reader, 1 + int(share * len(WORDS)) if moment > 1 else None, SILENCE * share)
                tally.drops[_place(heard)] += 1
            else:
                heard = await _listen(reader, None, None)
                tally.whole += _is_whole(heard)
                if not _is_whole(heard):
                    tally.broken[heard[-200:].decode("latin-1") or ("closed" if reader.at_eof() else "silence")] += 1
            if drops or not _is_whole(heard):
                writer.transport.abort()
                reader = writer = None
        if writer is not None:
            writer.close()

    await asyncio.gather(*(talk(who[at % len(who)]) for at in range(callers)))
    return tally


async def _listen(reader: asyncio.StreamReader, words: int | None, within: float | None) -> bytes:
    """Read until the reply's end, or until `words` words came, or for `within` seconds if no `words` are given."""
    heard = b""

    async def read() -> None:
        nonlocal heard
        while not heard.endswith(LAST) and (words is None or _count(heard) < words):
            data = await reader.read(65_536)
            if not data:
                return
            heard += data

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read(), LONGEST if words is not None or within is None else within)
    return heard


def _count(heard: bytes) -> int:
    return sum(word.encode() in heard for word in WORDS)


def _is_whole(heard: bytes) -> bool:
    return heard.startswith(b"HTTP/1.1 200 ") and heard.endswith(b"data: [DONE]\n\n\r\n" + LAST) and _count(heard) == 5


def _place(heard: bytes) -> str:
    if b"[DONE]" in heard:
        return "after the end"
    return {0: "before a word", len(WORDS): "after the last word"}.get(_count(heard), "in mid-answer")


# --- the server at rest ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A running `firstword serve`."""

    port: int
    pid: int

    def memory(self) -> int:
        """Return the bytes that it holds."""
        return int((PROC / str(self.pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """Return the most that it held since `forget_peak`, in bytes."""
        lines = (PROC / str(self.pid) / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024

    def forget_peak(self) -> None:
        """Let the peak be what it holds now."""
        (PROC / str(self.pid) / "clear_refs").write_text("5")

    def descriptors(self) -> int:
        """Count all that it has open."""
        return len(list((PROC / str(self.pid) / "fd").iterdir()))

    def sockets(self) -> int:
        """Count its sockets, those that it listens on included."""
        count = 0
        for link in (PROC / str(self.pid) / "fd").iterdir():
            with suppress(OSError):  # closed in the meantime
                count += str(link.readlink()).startswith("socket:")
        return count


@contextmanager
def running(base_url: str, *command: str, **environment: str) -> Iterator[Server]:
    """Run `firstword serve`, with its words in `command`, in front of `base_url`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    words = [sys.executable, "-m", "firstword", "serve", *command, "--host", "127.0.0.1", "--port", str(port)]
    given = os.environ | {"LLM_BASE_URL": base_url, **environment}
    process = subprocess.Popen(words, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_TIMEOUT
        while process.poll() is None and time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        else:
            raise Left("the server did not start")
        yield Server(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def rest(is_reached: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait until a server is at rest. Raises Left, which says `what` is there instead."""
    until = time.monotonic() + REST_TIMEOUT
    while not is_reached():
        if time.monotonic() > until:
            raise Left(what())
        await asyncio.sleep(0.02)


async def _steady(look: Callable[[], int]) -> int:
    """Return what `look` sees once it sees it twice: the first visitor's connection may still be closing."""
    seen = -1
    while seen != (seen := look()):
        await asyncio.sleep(0.1)
    return seen


# --- the two runs ---------------------------------------------------------------------------------


async def soak_process(
    turns: int,
    callers: int,
    *,
    drop: int = 3,
    early: float = EARLY,
    pause: float = 0.0,
    who: Sequence[Who] = (Who(),),
    look: Callable[[Server], Awaitable[dict[str, Any]]] | None = None,
    **environment: str,
) -> dict[str, Any]:
    """Run the turns against a process, each `drop`th dropped; return the figures. Raises Left.

    early: the share of the turns after which it is looked at first. pause: seconds until a server is at rest that has
    no connection any more. look: what looks at it when all is over, and adds figures. environment: its settings.
    """
    given, soon = {"FIRSTWORD_WARM": "false", **UNSHED, **environment}, round(turns * early)
    with Upstream.start(idle=UPSTREAM_IDLE) as upstream, running(upstream.base_url, **given) as server:
        before = await _steady(server.sockets)

        async def at_rest() -> tuple[int, int]:
            await rest(
                lambda: server.sockets() == before,
                lambda: f"sockets are left open: {server.sockets()}, {before} before",
            )
            await upstream.wait_connections(open=0, within=REST_TIMEOUT)
            await asyncio.sleep(pause)
            return server.memory(), server.descriptors()

        first = await call(server.port, soon, callers, seed=1, drop=drop, who=who)
        (memory_early, open_early), began = await at_rest(), time.monotonic()
        then = await call(server.port, turns - soon, callers, seed=2, drop=drop, who=who)
        taken = time.monotonic() - began
        memory_late, open_late = await at_rest()
        records = await asyncio.to_thread(upstream.seen, DROPPED, until="now")
        seen = {} if look is None else await look(server)
    figures = {
        **_ended(first, then),
        "turns a second": round((turns - soon) / taken),
        "drops seen upstream": len(records),
        "of these, broken off": sum(record.ended is None for record in records),
        "sockets before and after": before,
        "descriptors early": open_early,
        "descriptors after all": open_late,
        "memory early (MB)": round(memory_early / 2**20, 1),
        "memory after all (MB)": round(memory_late / 2**20, 1),
        **seen,
    }
    # Of few turns the first ones are a large part: what an allocator takes once is no growth.
    most = min(MOST_GROWTH, memory_early * MOST_SHARE) if turns >= LONG else MOST_GROWTH
    if memory_late - memory_early > most:
        raise Left(f"memory grew by {memory_late - memory_early} bytes: {figures}")
    if open_late > open_early:
        raise Left(f"descriptors grew: {figures}")
    return figures


async def soak_here(turns: int, callers: int, *, drop: int = 3) -> dict[str, Any]:
    """Run the turns in this process, each `drop`th dropped; return the figures. Raises Left."""
    with Upstream.start(idle=UPSTREAM_IDLE) as upstream, settings(UNSHED):
        app = App(base_url=upstream.base_url, warm=False)
        async with _serving(app) as port:
            before = _names()

            async def at_rest() -> int:
                await rest(lambda: _names() == before, lambda: f"tasks are left: {_names() - before}")
                await upstream.wait_connections(open=0, within=REST_TIMEOUT)
                gc.collect()
                return len(gc.get_objects())

            first = await call(port, turns // 10, callers, seed=3, drop=drop)
            early = await at_rest()
            then = await call(port, turns - turns // 10, callers, seed=4, drop=drop)
            late = await at_rest()
    figures = {
        **_ended(first, then),
        "tasks before and after": sum(before.values()),
        "objects after a tenth": early,
        "objects after all": late,
    }
    if late - early > MOST_OBJECTS:
        raise Left(f"{late - early} objects more than after a tenth of the turns: {figures}")
    return figures


def _ended(first: Tally, then: Tally) -> dict[str, Any]:
    broken = first.broken + then.broken
    if broken:
        few = ", ".join(f"{count} x {text!r}" for text, count in broken.most_common(3))
        raise Left(f"{sum(broken.values())} turns did not arrive whole: {few}")
    drops = dict(sorted((first.drops + then.drops).items()))
    return {"whole": first.whole + then.whole, "dropped": first.dropped + then.dropped, **drops}


def _names() -> Counter[str]:
    return Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]


@asynccontextmanager
async def _serving(app: App) -> AsyncIterator[int]:
    """Serve `app` on this loop, with the options of the command; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, **{**options(), "log_config": None}))
        serving: Awaitable[None] = asyncio.ensure_future(server.serve([listener]))
        await rest(lambda: server.started, lambda: "the server did not start")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


def report(title: str, figures: dict[str, Any]) -> str:
    """Return the figures as lines."""
    return "\n".join([title, *(f"  {name:<26}{value:>10,}" for name, value in figures.items())])


def main() -> None:
    """Run both, print the figures, end with 1 when anything is left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=30)
    parser.add_argument("--drop", type=int, default=3, help="every how many turns one is dropped")
    asked = parser.parse_args()
    if not PROC.joinpath("self/statm").exists():
        raise SystemExit("soak: needs Linux's account of memory and open files (/proc)\nhint: run it in a container")
    try:
        print(
            report("firstword serve", asyncio.run(soak_process(asked.turns, asked.callers, drop=asked.drop))),
            flush=True,
        )
        print(report("in one process", asyncio.run(soak_here(asked.turns, asked.callers, drop=asked.drop))))
    except Left as left:
        raise SystemExit(f"soak: {left}") from None


if __name__ == "__main__":
    main()
