"""What is counted is told and written down although threads are busy, a folder hangs, or somebody's numbers break."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from firstword import telemetry
from firstword.telemetry import Counts, Metrics, Values

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")


async def test_a_mistake_while_counts_are_gathered_is_not_the_end_of_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Something that tells its numbers breaks once: the log says where, and what is counted later is written down."""
    monkeypatch.setattr(telemetry, "EVERY", 0.01)
    counts, broken = Counts(), [ValueError("words of a caller")]

    def tell() -> Values:
        if broken:
            raise broken.pop()
        return {}

    counts.readings.append(tell)
    metrics = Metrics(counts, folder=tmp_path)
    try:
        end = asyncio.get_running_loop().time() + 5
        while not list(tmp_path.glob("*.json")):
            assert asyncio.get_running_loop().time() < end, "it was never written"
            await asyncio.sleep(0.005)
    finally:
        await metrics.close()
    (record,) = caplog.records
    assert "counts cannot be shared type=ValueError" in record.getMessage() and "words" not in caplog.text


@pytest.mark.parametrize("shares", [True, False])
async def test_counts_are_told_while_all_threads_are_busy(tmp_path: Path, shares: bool) -> None:
    """Users' functions wait for a database that does not answer: whoever looks after the server wants to see that."""
    pool, answers = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(answers.wait, 30)
    metrics = Metrics(Counts(), folder=tmp_path if shares else None)
    try:
        _, page = await asyncio.wait_for(metrics.page(), 5)
        await asyncio.wait_for(metrics.close(), 5)
    finally:
        answers.set()
    assert b"firstword_workers 1.0" in page


async def test_a_folder_that_hangs_keeps_nobody_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is on a disk of another machine that is gone, as here a pipe to which nobody writes."""
    monkeypatch.setattr(telemetry, "LEAVE_TIMEOUT", 0.05)
    os.mkfifo(tmp_path / "gone.json")
    metrics = Metrics(Counts(), folder=tmp_path)
    try:
        await asyncio.wait_for(metrics.close(), 5)
        assert "why=the folder hangs" in caplog.text
    finally:
        pipe = (tmp_path / "gone.json").rename(tmp_path / "pipe")
        with pipe.open("r+b", buffering=0) as other_end:
            other_end.write(b"{}")  # the thread goes on
    end = asyncio.get_running_loop().time() + 5
    while any(thread.name == "firstword-metrics" for thread in threading.enumerate()):
        assert asyncio.get_running_loop().time() < end, "the thread did not end"
        await asyncio.sleep(0.005)
