"""The clock that jumps, where it does not: plain functions in threads, and real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from firstword import clock
from firstword.testing import run
from firstword.testing.clock import PATIENCE, JumpingLoop


async def moment() -> float:
    return asyncio.get_running_loop().time()


async def test_time_stands_still_while_a_plain_function_runs() -> None:
    """A hook that is a plain `def`: a timer that is due meanwhile rings when it has returned."""

    async def main() -> tuple[str, float]:
        alarm = asyncio.ensure_future(asyncio.sleep(0.001, "alarm"))
        hook = asyncio.ensure_future(asyncio.to_thread(time.sleep, 0.1))
        ended, _ = await asyncio.wait([alarm, hook], return_when=asyncio.FIRST_COMPLETED)
        at = await moment()
        await alarm
        return ("hook" if hook in ended else "alarm"), at

    assert await run(main) == ("hook", 0.0)


async def test_a_plain_function_that_waits_for_the_loop_gets_its_time() -> None:
    """It would wait for ever on a clock that stands still: after a second of patience time goes on."""

    async def main() -> float:
        loop = asyncio.get_running_loop()

        def ask() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result(10)

        began = time.monotonic()
        await asyncio.to_thread(ask)
        assert time.monotonic() - began >= PATIENCE + 0.2
        return await moment()

    assert await run(main) >= 0.2


async def test_a_plain_function_that_nobody_awaits_holds_the_clock_too() -> None:
    """A caller has left, and a hook still runs in its thread: it ends before anything later happens."""

    async def main() -> tuple[float, float]:
        began, let_go = threading.Event(), threading.Event()
        told: list[float] = []

        def hook() -> None:
            began.set()
            let_go.wait(5)
            told.append(clock.now())

        waiting = asyncio.ensure_future(asyncio.to_thread(hook))
        await asyncio.to_thread(began.wait, 5)
        waiting.cancel()
        threading.Timer(0.1, let_go.set).start()
        await asyncio.sleep(30)
        return told[0], await moment()

    assert await run(main) == (0.0, 30.0)


async def test_a_pool_of_threads_of_the_users_own_holds_the_clock() -> None:
    """`run_in_executor` with an executor: what it brings is waited for as well."""

    async def main() -> float:
        with ThreadPoolExecutor(1) as pool:
            slow = asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0.05)
            alarm = asyncio.ensure_future(asyncio.sleep(0.01))
            await asyncio.wait([slow, alarm], return_when=asyncio.FIRST_COMPLETED)
            assert slow.done() and not alarm.done()
            at = await moment()
            await alarm
            return at

    assert await run(main) == 0.0


async def test_while_a_real_socket_is_open_time_is_true() -> None:
    """A hook that asks a real database: its answer takes what it takes, and the clock goes with it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(10)
                time.sleep(0.2)
                line.sendall(b"answer")

        database = threading.Thread(target=serve)
        database.start()

        async def main() -> tuple[bytes, float, float]:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            began, true = await moment(), time.monotonic()
            writer.write(b"question")
            answer = await reader.read(10)
            passed, truly = await moment() - began, time.monotonic() - true
            writer.close()
            await writer.wait_closed()
            before = await moment()
            await asyncio.sleep(1000)  # nothing leads out of here any more
            assert await moment() == before + 1000
            return answer, passed, truly

        answer, passed, truly = await run(main)
        database.join()
    assert answer == b"answer"
    assert 0.15 < passed <= truly


async def test_a_timer_rings_to_the_moment_beside_a_real_socket() -> None:
    """It is waited for in true time, and the clock then says what was asked for."""

    async def main() -> tuple[float, float]:
        _, far = ends = socket.socketpair()
        near, _ = ends
        _, writer = await asyncio.open_connection(sock=near)
        true = time.monotonic()
        await asyncio.sleep(0.1)
        truly = time.monotonic() - true
        writer.close()
        await writer.wait_closed()
        far.close()
        return await moment(), truly

    at, truly = await run(main)
    assert at == 0.1 and truly >= 0.099


async def test_a_real_socket_that_has_the_number_of_a_closed_wire_is_a_real_one() -> None:
    """The kernel gives the lowest number that is free."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        wires = [loop.wire() for _ in range(20)]
        numbers = {end.fileno() for wire in wires for end in wire}
        for wire in wires:
            for end in wire:
                end.close()
        near, far = socket.socketpair()
        assert near.fileno() in numbers
        threading.Timer(0.2, far.sendall, [b"late"]).start()
        reader, writer = await asyncio.open_connection(sock=near)
        alarm = asyncio.ensure_future(asyncio.sleep(0.05))
        assert await reader.read(4) == b"late"
        at = loop.time()
        writer.close()
        await writer.wait_closed()
        far.close()
        await alarm
        return at

    assert 0.1 < await run(main) < 5


async def test_both_ends_of_a_wire_are_within_the_loop() -> None:
    """A hundred questions and answers, a second apart, in no time; the numbers of closed wires are used again."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        for _ in range(100):
            ours, theirs = loop.wire()
            reader, writer = await asyncio.open_connection(sock=ours)
            far_reader, far_writer = await asyncio.open_connection(sock=theirs)
            await asyncio.sleep(1)
            far_writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            assert await far_reader.read() == b""
            far_writer.close()
            await asyncio.gather(writer.wait_closed(), far_writer.wait_closed())
        return await moment()

    began = time.monotonic()
    assert await run(main) == 100.0
    assert time.monotonic() - began < 5
