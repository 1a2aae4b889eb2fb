"""A server that is told to stop in the ways of a terminal, and turns that are ended when the drain is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import h11
import pytest
from caller import turn
from command import Run

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
LOCAL = ("--host", "127.0.0.1", "--port", "0")
BOTH = r"(?s)Application startup complete.*Application startup complete"
MINE = """
import asyncio
import os
from firstword import App

app = App(apology="Sorry.")


@app.after_turn
async def after(turn):
    print(f"after {turn.reply.text}", flush=True)


@app.model("held")
async def held(turn):
    yield "One"
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    yield " two"


@app.model("slow to end")
async def slow_to_end(turn):
    try:
        yield "One"
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.5)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


async def test_one_ctrl_c_in_a_terminal_cuts_nobody_off(run: Run, tmp_path: Path) -> None:
    """It reaches workers and supervisor at once: the turn has its time all the same. The next one is impatience."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL, "--workers", "2")
    process.says(BOTH)
    async with process.caller().dials(turn(model="held")) as call:
        await call.hears_word("One")
        os.killpg(process.pid, signal.SIGINT)
        process.says(r"(?s)Received SIGINT.*Waiting for child process")
        await asyncio.sleep(0.5)  # what would end the turn has had the time for it
        (tmp_path / "go").touch()
        async for _ in call.listens():
            pass
        assert call.heard.text == "One two" and call.heard.done
    assert await asyncio.to_thread(process.ends, 8) in (0, -signal.SIGINT)
    assert "Traceback" not in process.output


async def test_a_second_ctrl_c_waits_for_nobody(run: Run, tmp_path: Path) -> None:
    """Whoever presses it again, a moment later, wants the end."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL, "--workers", "2", FIRSTWORD_DRAIN_TIMEOUT="60")
    process.says(BOTH)
    async with process.caller().dials(turn(model="held")) as call:
        await call.hears_word("One")
        os.killpg(process.pid, signal.SIGINT)
        await asyncio.sleep(2.5)
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(ConnectionError, h11.RemoteProtocolError):
            async for _ in call.listens():
                pass
        assert "two" not in call.heard.text
    assert await asyncio.to_thread(process.ends, 8) in (0, -signal.SIGINT)


async def test_a_group_that_is_told_to_end_has_its_whole_delay(run: Run, tmp_path: Path) -> None:
    """`timeout` and some supervisors tell the whole group: the workers hear of it twice, and serve on all the same."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    (tmp_path / "go").touch()
    process = run(FIRSTWORD, "serve", *LOCAL, "--workers", "2", FIRSTWORD_DRAIN_DELAY="3")
    process.says(BOTH)
    caller = process.caller()
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    with pytest.raises(ConnectionRefusedError):
        while True:
            assert (await caller.says(model="held")).done
    assert time.monotonic() - began > 2.8
    assert await asyncio.to_thread(process.ends, 15) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.output


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=str)
async def test_a_turn_that_is_slow_to_end_has_an_end_too(run: Run, tmp_path: Path, more: list[str]) -> None:
    """The drain is over, and the model's code has something to put away first: the caller and the log hear of it."""
    (tmp_path / "custom_llm.py").write_text(MINE)
    process = run(FIRSTWORD, "serve", *LOCAL, *more, FIRSTWORD_DRAIN_TIMEOUT="1")
    if more:
        process.says(BOTH)
    async with process.caller().dials(turn(model="slow to end")) as call:
        await call.hears_word("One")
        process.tell(signal.SIGTERM)
        async for _ in call.listens():
            pass
    assert call.heard.whole and call.heard.text == "One Sorry." and call.heard.done
    assert await asyncio.to_thread(process.ends, 8) in (0, -signal.SIGTERM)
    assert process.output.count("outcome=server_stopping") == 1 and process.output.count("after One") == 1
