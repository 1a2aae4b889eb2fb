"""The supervisor of several workers: whom it replaces, whom it leaves alone, and that it always comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from caller import Caller, turn
from command import Process, Run

from firstword.clock import timeout

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
TWO = (FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", "0", "--workers", "2")
BOTH = r"(?s)Application startup complete.*Application startup complete"
MINE = """
import os
from firstword import App

app = App()


@app.model("mine")
async def mine(turn):
    return str(os.getpid())


@app.model("holding")
async def holding(turn):
    '''Hold the interpreter itself, as a regular expression or an extension in C does.'''
    import ctypes
    yield f"{os.getpid()} holds"
    ctypes.PyDLL(None).usleep(6_500_000)
    yield " and on"
"""
# The supervisor's own times, shorter than anybody would have them.
HASTY = "from firstword.serving import worker, workers; %s\nfrom firstword.cli import main; main()"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


async def two_answer(caller: Caller, *, but: set[int]) -> set[int]:
    """Call until two processes besides some have answered, and return them."""
    pids: set[int] = set()
    while len(pids) < 2:
        pids |= {int((await caller.says(model="mine")).text)} - but
    return pids


async def ends(process: Process, within: float = 15) -> None:
    """Tell a server to stop, and wait for its end."""
    process.tell(signal.SIGTERM)
    assert await asyncio.to_thread(process.ends, within) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.output


async def test_a_restart_while_a_worker_is_put_off(run: Run, tmp_path: Path) -> None:
    """A worker cannot come back, the file is mended, and SIGHUP comes before it is tried again: nobody is lost."""
    file = tmp_path / "custom_llm.py"
    file.write_text(MINE)
    process = run(*TWO, FIRSTWORD_DRAIN_TIMEOUT="2")
    process.says(BOTH)
    caller = process.caller()
    old = await two_answer(caller, but=set())
    file.write_text("raise SystemExit(3)")
    os.kill(min(old), signal.SIGKILL)
    process.says("failed to start. The others stay")
    file.write_text(MINE)
    process.tell(signal.SIGHUP)
    new = await two_answer(caller, but=old)
    process.says(rf"Finished server process \[{max(old)}\]")
    end = time.monotonic() + 5.5  # the one that was put off would be tried again meanwhile
    while time.monotonic() < end:
        assert await two_answer(caller, but=set()) == new
    await ends(process)


async def test_a_worker_that_gives_nobody_the_interpreter_is_left_alone(run: Run, tmp_path: Path) -> None:
    """A file takes 6 seconds to load, and a turn as long, and nothing else runs meanwhile: that is not for ever."""
    slow = "import ctypes, multiprocessing\nif multiprocessing.parent_process(): ctypes.PyDLL(None).usleep(6_000_000)\n"
    (tmp_path / "custom_llm.py").write_text(slow + MINE)
    process = run(*TWO, FIRSTWORD_HUNG_AFTER="30")
    process.says(BOTH)
    caller = process.caller()
    heard = await caller.says(model="holding")
    assert heard.done and heard.text.endswith(" and on")
    assert "hangs" not in process.output and "died" not in process.output
    await ends(process)


async def test_a_machine_that_stands_still_has_no_worker_that_hangs(run: Run, tmp_path: Path) -> None:
    """`docker pause`, a machine that is moved: all stop for longer than a worker may be silent, and go on."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(*TWO, FIRSTWORD_HUNG_AFTER="2")
    process.says(BOTH)
    caller = process.caller()
    pids = await two_answer(caller, but=set())
    for _ in range(2):
        os.killpg(process.pid, signal.SIGSTOP)
        await asyncio.sleep(2.6)
        os.killpg(process.pid, signal.SIGCONT)
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            assert await two_answer(caller, but=set()) == pids
    assert "hangs" not in process.output
    await ends(process)


async def test_one_of_two_cannot_begin_and_the_other_takes_its_time(run: Run, tmp_path: Path) -> None:
    """The first start: one worker fails at once, by an accident, and the other still loads; soon there are two."""
    accident = """
import multiprocessing, os, time
if multiprocessing.parent_process():
    try:
        os.mkdir("accident")
    except FileExistsError:
        time.sleep(2)
    else:
        raise SystemExit(3)
"""
    (tmp_path / "custom_llm.py").write_text(accident + MINE)
    process = run(*TWO)
    process.says("failed to start. The others stay")
    process.says(BOTH)
    await two_answer(process.caller(), but=set())
    await ends(process)


async def test_a_busy_worker_is_somebody_who_serves(run: Run, tmp_path: Path) -> None:
    """One worker cannot come back, while the other has no time to answer the supervisor: it is there all the same."""
    file = tmp_path / "custom_llm.py"
    file.write_text(MINE)
    process = run(*TWO)
    process.says(BOTH)
    caller = process.caller()
    pids = await two_answer(caller, but=set())
    async with caller.dials(turn(model="holding")) as call:
        await call.hears_word("holds")
        busy = int(call.heard.text.split()[0])
        file.write_text("raise SystemExit(3)")
        os.kill((pids - {busy}).pop(), signal.SIGKILL)
        async for _ in call.listens():
            pass
        assert call.heard.done and call.heard.text == f"{busy} holds and on"
    process.says("failed to start. The others stay")
    assert (await caller.says(model="mine")).text == str(busy)
    await ends(process)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can take another process' descriptors away")
async def test_a_system_that_has_nothing_left_keeps_its_server(run: Run, tmp_path: Path) -> None:
    """There are no descriptors for a new worker, neither for a dead one nor for more: it is tried until there are."""
    import resource

    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(sys.executable, "-c", HASTY % "workers.RETRY_PAUSE = 1", *TWO[1:])
    process.says(BOTH)
    caller = process.caller()
    pids = await two_answer(caller, but=set())
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, hard))
    for sig in (signal.SIGTTIN, signal.SIGHUP):
        process.tell(sig)
    process.says("(?s)" + "(No worker can be started: Too many open files. hint: .*){2}")
    assert await two_answer(caller, but=set()) == pids
    os.kill(min(pids), signal.SIGKILL)
    process.says(rf"(?s)\[{min(pids)}\] died.*(No worker can be started.*){{2}}")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    await two_answer(caller, but={min(pids)})
    await ends(process)


async def test_workers_do_not_outlive_their_supervisor(run: Run, tmp_path: Path) -> None:
    """The supervisor alone is killed: the port is free soon, and nobody answers without being looked after."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(*TWO)
    process.says(BOTH)
    caller = process.caller()
    await two_answer(caller, but=set())
    process.tell(signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        while True:
            with contextlib.suppress(ConnectionResetError):  # it came when the last one stopped listening
                await caller.says(model="mine")
    process.ends()
    assert process.output.count("Finished server process") == 2


SLOW = "import os, time\nif os.path.exists('slow'): time.sleep(float(open('slow').read()))\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers share one socket")
async def test_nobody_waits_for_a_successor_that_takes_long(run: Run, tmp_path: Path) -> None:
    """The file loads for 4 seconds, and a worker dies: the other has its share, until the next one is there."""
    (tmp_path / "custom_llm.py").write_text(SLOW + MINE)
    (tmp_path / "slow").write_text("4")
    process = run(*TWO)
    process.says(BOTH)
    caller = process.caller()
    old = await two_answer(caller, but=set())
    os.kill(min(old), signal.SIGKILL)
    process.says(rf"Child process \[{min(old)}\] died")
    async with timeout(3):
        heard = [await caller.says(model="mine") for _ in range(30)]
    assert {each.text for each in heard} == {str(max(old))}
    await two_answer(caller, but={min(old)})
    await ends(process)


async def test_a_worker_that_never_comes_up_is_tried_again(run: Run, tmp_path: Path) -> None:
    """What it loads never comes, once: it is killed when its time is over, and the next one has more luck."""
    (tmp_path / "custom_llm.py").write_text(SLOW + MINE)
    hasty = HASTY % "worker.READY_WITHIN = 4; workers.RETRY_PAUSE = 0.5"
    process = run(sys.executable, "-c", hasty, *TWO[1:])
    process.says(BOTH)
    caller = process.caller()
    old = await two_answer(caller, but=set())
    (tmp_path / "slow").write_text("600")
    os.kill(min(old), signal.SIGKILL)
    process.says(r"has not come up, and is killed(?s:.*)failed to start. The others stay")
    (tmp_path / "slow").write_text("0")
    await two_answer(caller, but={min(old)})
    await ends(process)
