"""The clock that jumps: what takes no time, who has which time, and how a run ends.

Rules:
- `quickly` bounds the true time; all other times are asserted as they are, without a tolerance.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from firstword import clock
from firstword.testing import run, run_here
from firstword.testing.clock import JumpingLoop


@contextlib.contextmanager
def quickly(jumped: float, ratio: float = 20.0) -> Iterator[None]:
    """Assert that so many seconds of the jumping clock take a fraction of them."""
    began = time.perf_counter()
    yield
    assert jumped > ratio * (time.perf_counter() - began)


async def moment() -> float:
    return asyncio.get_running_loop().time()


# --- what jumps -----------------------------------------------------------------------------------


async def test_an_hour_of_sleep_takes_no_time() -> None:
    """The usual case: nothing to do until a timer."""

    async def main() -> tuple[float, float]:
        began = await moment()
        await asyncio.sleep(3600)
        return began, await moment()

    with quickly(3600, ratio=1000):
        assert await run(main) == (0.0, 3600.0)


async def test_every_kind_of_timer_rings_at_its_moment() -> None:
    """Timers of asyncio, of async_timeout or asyncio.timeout, and of our own; none of them is set twice."""

    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        rung: list[tuple[float, str]] = []

        def ring(name: str) -> None:
            rung.append((loop.time(), name))

        async def bounded() -> None:
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                async with clock.timeout(3.0):
                    await loop.create_future()
            ring("timeout")

        async def waits() -> None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(loop.create_future(), 4.0)
            ring("wait_for")

        loop.call_later(1.0, ring, "call_later")
        loop.call_at(2.0, ring, "call_at")
        loop.call_later(2.5, ring, "never").cancel()
        timer = clock.Timer(lambda: 5.0, lambda: ring("Timer"))
        await asyncio.gather(bounded(), waits(), asyncio.sleep(6.0))
        timer.stop()
        return rung

    with quickly(6):
        rung = await run(main)
    assert rung == [(1.0, "call_later"), (2.0, "call_at"), (3.0, "timeout"), (4.0, "wait_for"), (5.0, "Timer")]


async def test_computing_takes_no_time() -> None:
    """Somebody computes while a timer is due: it rings at its own moment all the same."""

    async def main() -> float:
        alarm = asyncio.ensure_future(asyncio.sleep(0.001))
        await asyncio.sleep(0)
        time.sleep(0.05)
        await alarm
        return await moment()

    assert await run(main) == 0.001


def test_a_test_without_a_loop_has_a_door_of_its_own() -> None:
    """A plain `def test`, and a file that is run."""

    async def main() -> float:
        await asyncio.sleep(60)
        return clock.now()

    with quickly(60):
        assert run_here(main) == 60.0
        assert asyncio.run(run(main)) == 60.0


async def test_the_door_without_a_loop_refuses_a_thread_with_one() -> None:
    """Nobody could wait there."""
    with pytest.raises(RuntimeError, match="await run"):
        run_here(moment)


async def test_within_a_run_the_clock_is_the_same() -> None:
    """A helper that calls `run` is called by a test that does."""

    async def main() -> float:
        await asyncio.sleep(2)
        return await run(moment)

    assert await run(main) == 2.0


# --- who has which time ---------------------------------------------------------------------------


async def test_everybody_else_keeps_the_true_time() -> None:
    """A server of another test runs in another thread; a plain function of this run belongs to this run."""

    async def main() -> tuple[float, float, float]:
        await asyncio.sleep(1_000_000)
        with_us = await asyncio.to_thread(clock.now)
        found: list[float] = []
        other = threading.Thread(target=lambda: found.append(clock.now()))
        other.start()
        other.join()
        return clock.now(), with_us, found[0]

    before = time.monotonic()
    here, with_us, elsewhere = await run(main)
    assert (here, with_us) == (1_000_000.0, 1_000_000.0)
    assert before <= elsewhere <= time.monotonic()


async def test_after_the_last_run_the_clock_is_the_plain_one() -> None:
    """Nobody pays for a clock that does not run."""

    async def main() -> object:
        return clock.now

    assert await run(main) is not time.monotonic
    assert clock.now is time.monotonic


async def test_two_runs_have_two_clocks() -> None:
    """Tests that run at once: the second begins within the first, and ends after it."""
    met, over = threading.Event(), threading.Event()

    async def first() -> float:
        await asyncio.sleep(10)
        await asyncio.to_thread(met.wait, 5)
        return clock.now()

    async def second() -> tuple[float, float]:
        began = clock.now()
        met.set()
        await asyncio.to_thread(over.wait, 5)
        await asyncio.sleep(20)
        return began, clock.now()

    one, two = asyncio.ensure_future(run(first)), asyncio.ensure_future(run(second))
    assert await one == 10.0
    over.set()
    assert await two == (0.0, 20.0)
    assert clock.now is time.monotonic


# --- how it ends ----------------------------------------------------------------------------------


async def test_when_nobody_can_ever_go_on_that_is_said() -> None:
    """An event that nobody sets: on any other loop the test would hang."""

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match=r"nothing is left that could wake anybody: .*wait_for_ever > Event.wait"):
        await run(wait_for_ever)


async def test_a_thread_that_was_started_by_hand_may_still_wake_somebody() -> None:
    """A client library with a thread of its own: when nothing else is left, it has a moment of true time."""

    async def main() -> float:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        threading.Timer(0.1, loop.call_soon_threadsafe, [told.set]).start()
        await told.wait()
        return await moment()

    assert await run(main) == 0.0


async def test_what_is_raised_comes_out_and_what_waits_is_ended() -> None:
    """A test fails within: its other tasks are cancelled, and leave through their `finally`."""
    ended = []

    async def beside() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(await moment())

    async def main() -> None:
        task = asyncio.ensure_future(beside())
        await asyncio.sleep(1)
        assert task.done(), "this is what failed"

    with pytest.raises(AssertionError, match="this is what failed"):
        await run(main)
    assert ended == [1.0]


async def test_a_task_that_is_left_behind_is_an_error() -> None:
    """Somebody started it and has forgotten it."""

    async def forgotten() -> None:
        await asyncio.sleep(100)

    async def main() -> asyncio.Task[None]:
        return asyncio.ensure_future(forgotten())

    with pytest.raises(RuntimeError, match=r"left behind: .*forgotten"):
        await run(main)


async def test_a_task_that_is_about_to_end_is_not_left_behind() -> None:
    """It needs some more steps, and no more time."""

    async def ends() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def main() -> asyncio.Task[None]:
        return asyncio.ensure_future(ends())

    assert (await run(main)).done()


async def test_what_a_callback_raises_comes_out_at_the_end() -> None:
    """Nobody awaits it, and any other loop would only log it."""

    def breaks() -> None:
        raise LookupError("in a callback")

    async def main() -> None:
        asyncio.get_running_loop().call_later(1.0, breaks)
        await asyncio.sleep(2.0)

    with pytest.raises(LookupError, match="in a callback"):
        await run(main)


async def test_whoever_gives_up_on_a_run_ends_it() -> None:
    """A time-out of the test's own, in true time: the thread is over when the cancellation comes out."""
    ended: list[str] = []
    waiting = threading.Event()

    async def main() -> None:
        try:
            await asyncio.to_thread(waiting.set)
            with socket.socket() as listener:  # leads out of the loop, so that the time is true
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                listener.setblocking(False)
                await asyncio.get_running_loop().sock_accept(listener)
        finally:
            ended.append("ended")

    running = asyncio.ensure_future(run(main))
    await asyncio.to_thread(waiting.wait, 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["ended"]
    assert not [each for each in threading.enumerate() if each.name == "jumping clock"]


async def test_at_one_moment_all_is_done_before_time_goes_on() -> None:
    """`settle` returns when nothing is left to do, plain functions included, and no later."""

    async def main() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        done: list[str] = []

        async def steps() -> None:
            for _ in range(10):
                await asyncio.sleep(0)
            await asyncio.to_thread(time.sleep, 0.02)
            done.append("steps")
            await asyncio.sleep(1)
            done.append("later")

        task = asyncio.ensure_future(steps())
        await loop.settle()
        seen = list(done), loop.time()
        await task
        return seen

    assert await run(main) == (["steps"], 0.0)
