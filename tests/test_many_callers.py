"""Failures that come with many callers, slow ones and those who hang up: leaks, lost slots, crossed words.

Rules:
- A number is that of the public failure list which test_failure_modes.py goes through.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, Turn
from firstword.testing import Upstream, script


@pytest.fixture(scope="module")
def served(upstream: Upstream) -> Iterator[Served]:
    running = Served(App(base_url=upstream.base_url))
    yield running
    running.stop()


@pytest.fixture
def caller(served: Served) -> Caller:
    return Caller(served.url)


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
async def test_44_memory_after_many_streams(caller: Caller, served: Served) -> None:
    """LiteLLM#12685: of 300 streams a third is hung up on; nothing of them is left."""
    steps = script.events(script.says("word " * 20))
    gate = asyncio.Semaphore(25)

    async def stream(number: int) -> None:
        async with gate, caller.dials(turn(script=steps)) as call:
            if number % 3:
                async for _ in call.listens():
                    pass
                assert call.heard.done
            else:
                await call.hears_word("word")

    async def forget_idle() -> None:
        while served._server.server_state.connections:
            await asyncio.sleep(0.005)  # the last callers' ends of the line
        assert served.app._built is not None
        for connections in served.app._built.transport._idle.values():  # kept ones are no leak, and not always as many
            for connection in list(connections):
                connection.abort()

    async def measure() -> tuple[int, int]:
        assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}
        await asyncio.to_thread(served.run, forget_idle)
        gc.collect()
        return len(gc.get_objects()), resident()

    await asyncio.gather(*map(stream, range(100)))
    before = await measure()
    await asyncio.gather(*map(stream, range(300)))
    objects, memory = (late - early for late, early in zip(await measure(), before, strict=True))
    assert objects < 300 and memory < 6 * 1024 * 1024, (objects, memory)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
async def test_45_a_caller_who_does_not_read(caller: Caller, upstream: Upstream, marker: str) -> None:
    """Helicone's unbounded channel: the upstream is made to wait, and little is held in between."""
    steps = [script.head(200, script.EVENT_STREAM), script.repeat(script.text("x" * 16_000))]
    before = resident()
    async with caller.dials(turn(user=marker, script=steps)) as call:
        call.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = -1
        while sent != (sent := (await upstream.wait_asked(marker))[0].sent) or not sent:
            await asyncio.sleep(0.1)
        assert resident() - before < 8 * 1024 * 1024
        call.hangs_up()
        (record,) = await upstream.wait_closed(marker)
    assert record.closed_by == "peer" and record.sent < 64 * 1024 * 1024


async def test_a_reply_that_waits_for_a_slow_reader_has_one_end(serve: Callable[[App], Served]) -> None:
    """All was said, and the turn's time is over while the end waits for room: nothing follows `[DONE]`."""
    turns: list[Turn] = []
    app = App(turn_timeout=0.3)

    @app.model("long")
    async def says_it_all(request: Turn) -> str:
        turns.append(request)
        return "x" * 12 * 1024 * 1024  # more than the kernel holds

    async with Caller(serve(app).url).dials(turn(model="long")) as call:
        call.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not turns or turns[0].error is None:
            await asyncio.sleep(0.01)
        call.writer.transport.resume_reading()  # type: ignore[attr-defined]
        async for _ in call.listens():
            pass
    assert call.heard.body.count(b"data: [DONE]") == 1 and call.heard.body.endswith(b"data: [DONE]\n\n")
    assert call.heard.whole


async def test_46_abandoned_streams_give_their_connections_back(
    caller: Caller, upstream: Upstream, served: Served, marker: str
) -> None:
    """Bifrost#6802: each burnt a slot of the pool until none was left."""

    async def abandon(number: int) -> None:
        steps = (script.stalls_after("Hello"), script.never_answers())[number % 2]
        async with caller.dials(turn(user=marker, script=steps)) as call:
            if number % 2 == 0:
                await call.hears_word("Hello")
            else:
                await upstream.wait_asked(marker, count=40, within=5)

    await asyncio.gather(*map(abandon, range(40)))
    assert {record.closed_by for record in await upstream.wait_closed(marker, count=40)} == {"peer"}
    assert await asyncio.to_thread(served.left_open) == {"in_use": 0, "turns": 0}


async def test_47_no_word_reaches_another_caller(caller: Caller, upstream: Upstream) -> None:
    """LiteLLM#25447: 60 turns at once, some of which fail or are hung up on, on connections that are used again."""

    async def talk(number: int) -> None:
        mine = f"marker{number:03}"
        said = " ".join([mine] * 8)
        ways = [script.events(script.says(said, every=0.001)), script.closes_after(said), script.refuses(429, mine)]
        async with caller.dials(turn(user=mine, script=ways[number % 3])) as call:
            async for _ in call.listens():
                if number % 4 == 3 and call.heard.body.count(mine.encode()) > 2:
                    break
            assert set(re.findall(rb"marker\d+", call.heard.body)) == {mine.encode()}

    for _ in range(2):
        await asyncio.gather(*map(talk, range(60)))


@pytest.mark.parametrize(
    "given", [{}, {"models": ["first", "second"]}, {"fillers": ["One moment."]}], ids=["plain", "race", "fill"]
)
async def test_a_turn_leaves_nothing_for_the_collector(
    serve: Callable[[App], Served], upstream: Upstream, given: dict[str, Any]
) -> None:
    """What a turn made is let go of when it is over: circles would pile up, and then hold up every call at once."""
    server = serve(App(base_url=upstream.base_url, **given))
    body = json.dumps(turn("Hi", script=script.events(script.says("Hello there, friend.")))).encode()
    data = b"POST /chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

    async def take_turns(count: int) -> None:
        for _ in range(count):
            writer.write(data)
            await asyncio.wait_for(reader.readuntil(b"data: [DONE]\n\n\r\n0\r\n\r\n"), 5)

    await take_turns(3)
    await asyncio.to_thread(server.left_open)
    gc.collect()
    gc.disable()
    try:
        await take_turns(10)
        await asyncio.to_thread(server.left_open)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(thing).__qualname__ for thing in gc.garbage if type(thing).__module__.startswith("firstword")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        writer.transport.abort()

    assert left == []
