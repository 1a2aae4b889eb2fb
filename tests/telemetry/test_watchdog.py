"""Code that holds the event loop is named in the log, with its line; a worker that it holds for ever is replaced."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from types import FrameType

import msgspec
import pytest
from caller import Caller, turn
from command import Run

from firstword.telemetry.watchdog import place_of, stack

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
LOCAL = ("--host", "127.0.0.1", "--port", "0")
MINE = """
import os
import time
import firstword
from lookups import slow_lookup

app = firstword.App()


@app.before_turn
async def look(turn):
    seconds = float(turn.request.get("hold", 0))
    if seconds:
        slow_lookup(seconds)


@app.model("mine")
async def mine(turn):
    yield str(os.getpid())


@app.model("holding")
async def holding(turn):
    yield "Yes."
    while True:
        time.sleep(0.1)


@app.model("busy")
async def busy(turn):
    '''Nothing holds the loop for long, but there is much of it.'''
    import asyncio

    def step():
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass

    async def steps():
        for _ in range(2):
            step()
            await asyncio.sleep(0)

    await asyncio.gather(*(steps() for _ in range(100)))
    yield "Done."
"""
LOOKUPS = """
import time

def slow_lookup(seconds):
    def ask():
        time.sleep(seconds)
    ask()
"""


def write(folder: Path) -> None:
    (folder / "custom_llm.py").write_text(MINE)
    (folder / "lookups.py").write_text(LOOKUPS)


async def seconds_held(caller: Caller) -> float:
    page = (await caller.hears(path="/metrics", method="GET")).body.decode()
    return float(re.findall(r"^firstword_loop_held_seconds_total (\S+)", page, re.MULTILINE)[0])


async def test_the_line_that_holds_the_loop_is_named(run: Run, tmp_path: Path) -> None:
    """A hook waits without awaiting, twice: the log names the user's own line once, and the page counts both."""
    write(tmp_path)
    process = run(FIRSTWORD, "serve", *LOCAL)
    caller = process.caller()
    for hold in (2.5, 2):
        assert (await caller.says(model="mine", hold=hold)).done
    process.says(r"event loop goes on in=ask at=lookups\.py:6 seconds=\d")
    assert len(re.findall(r"event loop held in=ask at=lookups\.py:6 seconds=\d\S* hint: ", process.output)) == 1
    while await seconds_held(caller) < 3.5:  # its thread adds up the second a moment after the loop goes on
        await asyncio.sleep(0.01)


async def test_a_process_that_stood_still_is_told_of(run: Run, tmp_path: Path) -> None:
    """Nothing of it runs for two seconds, as when a call into C lets no thread run: nobody could see who holds it."""
    write(tmp_path)
    process = run(FIRSTWORD, "serve", *LOCAL)
    caller = process.caller()
    while await seconds_held(caller) == 0:
        process.tell(signal.SIGSTOP)
        await asyncio.sleep(2)
        process.tell(signal.SIGCONT)
    process.says(r"event loop stood still seconds=\d\S* hint: ")


async def test_a_busy_loop_is_held_by_nobody(run: Run, tmp_path: Path) -> None:
    """Much is done in small steps: the loop is late for seconds, and no line is to blame."""
    write(tmp_path)
    process = run(FIRSTWORD, "serve", *LOCAL)
    caller = process.caller()
    assert (await caller.says(model="busy")).text == "Done."
    assert "event loop held" not in process.output


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
async def test_a_worker_that_is_held_for_ever_is_replaced(run: Run, tmp_path: Path) -> None:
    """One of two workers never comes back from a turn: the log says where it is, and another takes its place."""
    write(tmp_path)
    process = run(FIRSTWORD, "serve", *LOCAL, "--workers", "2", FIRSTWORD_HUNG_AFTER="3")
    process.says(r"(?s)Application startup complete.*Application startup complete")
    caller = process.caller()
    old = set()
    while len(old) < 2:
        old.add((await caller.says(model="mine")).text)
    async with caller.dials(turn(model="holding")) as call:
        await call.hears_word("Yes.")
        process.says(r"event loop held in=holding at=custom_llm\.py:26 ")
        process.says(r"(?s)hangs: it is replaced.*Application startup complete", within=40)
    new = set()
    while len(new) < 2:
        new.add((await caller.says(model="mine")).text)
    assert len(old & new) == 1
    process.tell(signal.SIGTERM)
    assert process.ends(15) in (0, -signal.SIGTERM)


def test_who_is_named() -> None:
    """The user's innermost line; behind a library that the user calls, not the library's; in a library, its first."""
    here = sys._getframe()

    def called(*_: object) -> list[FrameType]:
        frames.append(stack(sys._getframe()))
        return []

    frames: list[list[FrameType]] = []
    msgspec.json.encode(object(), enc_hook=called)
    json.dumps(object(), default=called)
    called()
    for each in frames:
        behind = each[each.index(here) :]
        assert place_of(behind).function == "called" and place_of(behind).line.startswith("test_watchdog.py:")
    library = [frame for frame in frames[1] if frame.f_code.co_filename.endswith(("encoder.py", "json/__init__.py"))]
    assert place_of(library).function == "dumps"
