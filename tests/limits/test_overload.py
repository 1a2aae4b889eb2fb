"""More turns than the server can carry: who is refused hears it at once, and who is being answered is not disturbed.

Real servers and real callers; lateness is made by code that keeps the event loop busy.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from caller import Caller, turn
from command import Run
from served import Served

from firstword import App
from firstword.limits import CALM, Limits
from firstword.limits.lag import Lag
from firstword.limits.queue import SHORT, Queue
from firstword.server.exchange import since_last_bytes
from firstword.testing import Upstream, script

Serve = Callable[[App], Served]
VAPI = {"call": {"id": "c1", "orgId": "o1", "assistantId": "a1"}}
WAITS = script.sends_only_the_role()
SAYS = script.events(script.says("Hello there."))


@pytest.fixture
def full(serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A server that has room for two turns."""
    monkeypatch.setenv("FIRSTWORD_MAX_TURNS", "2")
    return serve(App(base_url=upstream.base_url, first_token_timeout=20, hedge_share=0))


async def test_a_full_server_refuses_before_the_body_is_there(full: Served, upstream: Upstream, marker: str) -> None:
    """Two turns wait for their model. The third is refused by its head alone, and served once there is room."""
    caller = Caller(full.url)
    busy = turn(user=marker, script=WAITS)
    async with caller.dials(busy) as first:
        async with caller.dials(busy):
            await upstream.wait_asked(marker, 2)
            reader, writer = await asyncio.open_connection("127.0.0.1", full.port)
            writer.write(b"POST /chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            writer.transport.abort()
            assert head.startswith(b"HTTP/1.1 503 ")

            heard = await caller.says()
            assert (heard.status, heard.error["code"], heard.error["type"]) == (503, "overloaded", "server_error")
            said = "The server has 2 turns in progress, and can have no more."
            assert heard.error["message"] == f"{said}\nhint: ask again soon"
            assert 500 <= int(heard.headers["retry-after-ms"]) <= 1500 and "x-should-retry" not in heard.headers

            page = await caller.hears(method="GET", path="/metrics")
            assert b'firstword_limits_refused_total{limit="max_turns"} 2.0' in page.body
            for path in ("/health", "/ready", "/metrics", "/openapi.json"):
                assert (await caller.hears(method="GET", path=path)).status == 200, path
        assert await asyncio.to_thread(_room, full) == 1
        assert (await caller.says(user=f"{marker} later", script=SAYS)).text == "Hello there."
        first.hangs_up()
    assert await asyncio.to_thread(full.left_open) == {"in_use": 0, "turns": 0}
    limits = full.app._built.limits  # type: ignore[union-attr]
    assert limits.turns == 0 and limits.refused == {"max_turns": 2}


def _room(served: Served) -> int:
    """Wait until one of two turns is in progress: a hang-up takes a moment."""

    async def look() -> int:
        for _ in range(1000):
            if served.app._built.limits.turns == 1:  # type: ignore[union-attr]
                break
            await asyncio.sleep(0.001)
        return served.app._built.limits.turns  # type: ignore[union-attr]

    found: int = served.run(look)
    return found


async def test_an_engine_that_hears_no_errors_is_told_by_its_path(
    full: Served, upstream: Upstream, marker: str
) -> None:
    """Where the URL says that it is Vapi, the caller hears an apology; where nothing does, it is not looked for."""
    caller = Caller(full.url)
    busy = turn(user=marker, script=WAITS)
    async with caller.dials(busy), caller.dials(busy):
        await upstream.wait_asked(marker, 2)
        heard = await caller.says(path="/vapi/chat/completions", **VAPI)
        assert heard.status == 200 and heard.text.startswith("Sorry") and heard.done
        assert (await caller.says(**VAPI)).status == 503
        assert (await caller.hears({"messages": 3}, path="/vapi/chat/completions")).status == 400
    assert await asyncio.to_thread(full.left_open) == {"in_use": 0, "turns": 0}


async def test_not_all_the_world_is_told_aloud(full: Served) -> None:
    """Heads of turns on that path, and never a body: twice as many as there is room for are waited for, no more."""
    head = b"POST /vapi/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
    waiting = [await asyncio.open_connection("127.0.0.1", full.port) for _ in range(4)]
    for _, writer in waiting:
        writer.write(head)
    limits = full.app._built.limits  # type: ignore[union-attr]
    while limits.turns < 4:
        await asyncio.sleep(0.001)
    try:
        heard = await Caller(full.url).says(path="/vapi/chat/completions", **VAPI)
        assert (heard.status, heard.error["code"]) == (503, "overloaded")
    finally:
        for _, writer in waiting:
            writer.transport.abort()
    assert await asyncio.to_thread(full.left_open) == {"in_use": 0, "turns": 0}


async def test_no_bound_is_no_bound(serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator wants as many as come."""
    monkeypatch.setenv("FIRSTWORD_MAX_TURNS", "0")
    monkeypatch.setenv("FIRSTWORD_SHED_AFTER", "0")
    served = serve(App(base_url=upstream.base_url))
    heard = await asyncio.gather(*(Caller(served.url).says(script=SAYS) for _ in range(3 * CALM)))
    assert {each.status for each in heard} == {200}


# --- the loop is late -------------------------------------------------------------------------------


def burn(seconds: float) -> None:
    """Keep this thread busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def test_a_loop_that_is_late_for_long_is_late_and_recovers() -> None:
    """Every step takes 40 ms where 20 are too many: after a few looks it shows, and passes when the steps are short."""
    lag = Lag(0.02, lambda: True)
    lag.watch()
    try:
        for _ in range(400):
            if lag.is_late and lag.seconds > 0.02:
                break
            burn(0.04)
            await asyncio.sleep(0)
        assert lag.is_late and lag.seconds > 0.02
        for _ in range(400):
            if not lag.is_late:
                break
            await asyncio.sleep(0.01)
        assert not lag.is_late
    finally:
        lag.close()


async def test_one_long_step_is_no_overload() -> None:
    """The garbage collector, or a hook that blocks once: the loop was late for a moment, and nobody is refused."""
    lag = Lag(0.25, lambda: True)
    lag.watch()
    try:
        burn(0.5)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert not lag.is_late
    finally:
        lag.close()


async def test_nobody_looks_at_a_loop_with_few_turns() -> None:
    """A process that sleeps is not woken twenty times a second, and a late loop refuses no turn of the first few."""
    limits = Limits(shed_after=0.01)
    limits.turns = CALM - 1
    assert limits.shed() is None and limits._lag._timer is None
    limits.turns = CALM
    assert limits.shed() is None and limits._lag._timer is not None
    limits._lag._is_late = True
    assert limits.shed() is not None
    limits.turns = CALM - 1
    assert limits.shed() is None
    for _ in range(50):
        if limits._lag._timer is None:
            break
        await asyncio.sleep(0.01)
    assert limits._lag._timer is None and not limits._lag.is_late and limits.lag == 0.0


# --- new connections wait to be let in --------------------------------------------------------------

LONG = 2 * SHORT  # of what is too long


def test_a_queue_that_is_long_for_long_is_full_until_it_is_short_for_long() -> None:
    """A look every tenth of what is too long: only who has waited long is refused, and only while it is full."""
    queue = Queue(1.0)
    looks = [queue.is_too_long(LONG, at / 10) for at in range(21)]
    assert looks == [False] * 10 + [True] * 11
    assert [queue.is_too_long(0.0, 2.1), queue.is_too_long(LONG, 2.2), queue.is_too_long(SHORT, 2.3)] == [
        False,
        True,
        False,
    ]
    assert not queue.is_too_long(LONG, 3.3), "nobody has waited long for more than a second"


def test_a_burst_of_connections_is_no_overload() -> None:
    """The queue is long, but gets short in between, or nobody came for a while: nobody is refused."""
    queue = Queue(1.0)
    for round in range(5):
        assert not any(queue.is_too_long(LONG, round + at / 10) for at in range(9))
        assert not queue.is_too_long(0.0, round + 0.9)
    queue = Queue(1.0)
    assert not any(queue.is_too_long(9.0, minute * 60) for minute in range(5))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long bytes have waited")
def test_it_is_known_how_long_the_first_bytes_have_waited() -> None:
    """A caller dials and asks, and is let in 0.1 s later; the server sees when that was, and not when it was let in."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\n")
        burn(0.1)
        line, _ = listener.accept()
        with line:
            waited = since_last_bytes(line)
    assert waited is not None and 0.08 < waited < 5
    left, right = socket.socketpair()
    with left, right:
        assert since_last_bytes(left) is None
    assert since_last_bytes(None) is None


SLOW = """
import asyncio, time
from firstword import App

app = App(model="slow")

@app.model("slow")
async def slow(turn):
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    yield "word "
    await asyncio.sleep(60)
"""
DIAL = 150  # callers at once, each with 20 ms of work for the server


async def test_callers_who_dial_for_each_turn_are_shed_as_well(run: Run, tmp_path: Path) -> None:
    """Everybody dials at the same moment, and the loop lets them in one by one: no step of it is late.

    Without a look at the kernel's queue nobody is refused, and the last hears nothing for three seconds.
    """
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    command = (sys.executable, "-m", "firstword", "serve", "slow.py", "--host", "127.0.0.1", "--port", "0")
    port = int((await asyncio.to_thread(run(*command).caller)).url.rpartition(":")[2])
    body = json.dumps(turn(model="slow")).encode()
    request = b"POST /chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    async def call() -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        return (await reader.readuntil(b"\r\n\r\n"))[9:12], writer

    heard = await asyncio.gather(*(call() for _ in range(DIAL)))
    for _, writer in heard:
        writer.transport.abort()
    statuses = [status for status, _ in heard]
    assert set(statuses) == {b"200", b"503"}, set(statuses)
    assert CALM <= statuses.count(b"200") < DIAL / 2, statuses.count(b"200")


BUSY = """
import asyncio, time
from firstword import App

app = App(model="busy")

@app.model("busy")
async def busy(turn):
    for _ in range(5):
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        yield "word "
        await asyncio.sleep(0.02)
"""
AT_ONCE = 50  # turns in a second; ten of them are all the time that there is


async def test_five_times_what_it_can_carry_does_not_slow_who_is_answered(run: Run, tmp_path: Path) -> None:
    """A turn costs the loop 0.1 s, and a hundred begin within two seconds: if all were let in, some waited for ten.

    Who is let in shares the time with a few others only, and who is refused hears it soon enough to go elsewhere.
    """
    (tmp_path / "busy.py").write_text(BUSY, encoding="utf-8")
    command = (sys.executable, "-m", "firstword", "serve", "busy.py", "--host", "127.0.0.1", "--port", "0")
    url = (await asyncio.to_thread(run(*command, FIRSTWORD_SHED_AFTER="0.05").caller)).url
    # Engines keep connections: those are there already, and no queue of the kernel's slows the flood down.
    lines = [await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2])) for _ in range(2 * AT_ONCE)]
    body = json.dumps(turn(model="busy")).encode()
    request = b"POST /chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    took: list[float] = []
    refused: list[float] = []

    async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 503 "):
            refused.append(time.monotonic() - began)
        else:
            assert (await reader.readuntil(b"0\r\n\r\n")).count(b'"content":"word') == 5
            took.append(time.monotonic() - began)
        writer.transport.abort()

    calls = []
    for line in lines:
        calls.append(asyncio.ensure_future(call(*line)))
        await asyncio.sleep(1 / AT_ONCE)
    await asyncio.gather(*calls)
    took.sort()
    refused.sort()
    told = (len(took), took[len(took) // 2], took[-1], len(refused), refused[len(refused) // 2 :][:1])
    # On a busy machine many come in one step of the loop, and nobody can know yet that they are too many.
    assert len(took) > CALM and took[-1] < 8.5, told
    assert len(refused) > 10 and refused[len(refused) // 2] < took[len(took) // 2] / 2, told
