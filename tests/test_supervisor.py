"""The supervisor of several workers: whom it replaces, whom it leaves alone, and that it always comes to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from caller import Caller
from command import Process, Run

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
"""

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
