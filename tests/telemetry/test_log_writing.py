"""Writing the log ends no turn and holds none up: pipes that are full, torn or closed, full disks, many workers."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from caller import Caller
from command import Run, is_there

from firstword.telemetry.out import PIECE, HumanLine, Out
from firstword.testing import Upstream, script

FRIEND = "Hello there, friend."
ANSWER = script.events(script.says(FRIEND))


def record_of(message: str) -> logging.LogRecord:
    return logging.LogRecord("firstword", logging.INFO, "", 0, message, (), None)


async def test_lines_of_several_workers_do_not_mix(serving: Run, upstream: Upstream, marker: str) -> None:
    """Two workers write long lines into one pipe at once: each arrives whole."""
    process = serving("--workers", "2", FIRSTWORD_LOG="json", FIRSTWORD_LOG_TRANSCRIPTS="true")
    caller = process.caller()
    long = "word " * 300
    said = [caller.says(long, user=f"{marker} {number}", scripts=[ANSWER]) for number in range(60)]
    assert {heard.text for heard in await asyncio.gather(*said)} == {FRIEND}
    while process.output.count('"message":"transcript"') < 60:
        await asyncio.sleep(0.02)
    lines = [line for line in process.output.splitlines() if '"time"' in line]
    found = [json.loads(line) for line in lines]
    assert sum(each["message"] == "transcript" for each in found) == 60
    assert {each["caller"] for each in found if each["message"] == "transcript"} == {long}


@pytest.mark.parametrize("out", ["full", "closed", "stuck"])
@pytest.mark.parametrize("form", ["human", "json"])
async def test_a_log_that_takes_nothing_ends_no_turn(
    upstream: Upstream, marker: str, tmp_path: Path, free_port: str, out: str, form: str
) -> None:
    """The disk is full, the reader of the log has gone, or it has stopped reading and the pipe is full."""
    reads, writes = os.pipe()
    target = os.open("/dev/full", os.O_WRONLY) if out == "full" else os.dup(writes)
    if out == "stuck":
        os.set_blocking(writes, False)
        try:
            while os.write(writes, b"x" * 4096):
                pass
        except BlockingIOError:
            os.set_blocking(writes, True)
    os.close(writes)
    if out == "closed":
        os.close(reads)
    environment = {**os.environ, "LLM_BASE_URL": upstream.base_url, "FIRSTWORD_LOG": form}
    environment |= {"FIRSTWORD_LOG_TRANSCRIPTS": "true"}
    code = (
        "import uvicorn; from firstword import App; from firstword.serving import Setup, options\n"
        f"uvicorn.run(App(), host='127.0.0.1', port={free_port}, **options(Setup(log={form!r})))"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=target, stdout=subprocess.DEVNULL)
    try:
        caller = Caller(f"http://127.0.0.1:{free_port}")
        while not await is_there(caller):
            assert process.poll() is None
        for number in range(3):
            assert (await caller.says(user=f"{marker} {number}", scripts=[ANSWER])).text == FRIEND
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(10) in (0, -15)
        os.close(target)
        if out != "closed":
            os.close(reads)


class Pipe:
    """A pipe with a handler of ours at one end."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        self.file = os.fdopen(self.writes, "w")
        self.out = Out(self.file)
        self.out.setFormatter(HumanLine())

    def fill(self) -> int:
        """Fill the pipe; return with how many bytes."""
        size = 0
        os.set_blocking(self.writes, False)
        try:
            while True:
                size += os.write(self.writes, b"x" * PIECE)
        except BlockingIOError:
            os.set_blocking(self.writes, True)
        return size

    def close(self) -> None:
        os.close(self.reads)
        self.file.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lost_lines_are_counted_and_told(pipe: Pipe) -> None:
    """The reader stops, and goes on: what could not be written is gone, and the next line says how much."""
    size = pipe.fill()
    for number in range(3):
        pipe.out.handle(record_of(f"lost {number}"))
    assert pipe.out.lost == 3
    os.read(pipe.reads, size)
    pipe.out.handle(record_of("again"))
    pipe.out.handle(record_of("and again"))
    said = os.read(pipe.reads, 65536).decode().splitlines()
    assert said == ["WARNING:  lines of the log were lost count=3", "INFO:     again", "INFO:     and again"]


def test_a_reader_who_is_always_behind_holds_up_hardly_anybody(pipe: Pipe) -> None:
    """It takes some lines, falls behind and takes some more, over and over: patience is for once a second."""
    size = pipe.fill()
    began = time.monotonic()
    for _ in range(30):
        pipe.out.handle(record_of("lost"))
        assert pipe.out.lost == 1
        os.read(pipe.reads, size)
        pipe.out.handle(record_of("taken"))
        assert pipe.out.lost == 0
        size = pipe.fill()
    assert time.monotonic() - began < 0.2


def test_half_a_line_is_not_the_beginning_of_the_next(pipe: Pipe) -> None:
    """A long line finds room for its first piece only; what comes later begins on a line of its own."""
    size = pipe.fill()
    os.read(pipe.reads, PIECE)
    pipe.out.handle(record_of("a" * PIECE))
    assert pipe.out.lost == 1
    read = b""
    while len(read) < size:
        read += os.read(pipe.reads, 65536)
    pipe.out.handle(record_of("again"))
    lines = (read + os.read(pipe.reads, 65536)).decode().lstrip("x").splitlines()
    assert lines[0].startswith("INFO:     aaa") and lines[1:] == [
        "WARNING:  lines of the log were lost count=1",
        "INFO:     again",
    ]


def test_a_long_line_is_written_whole(pipe: Pipe) -> None:
    """Several pieces of a pipe's size, with signs that no encoding has."""
    pipe.out.handle(record_of("ä" * 10_000 + "\ud800"))
    said = b""
    while not said.endswith(b"\n"):
        said += os.read(pipe.reads, 65536)
    assert said.decode() == f"INFO:     {'ä' * 10_000}\\ud800\n"


def test_a_line_that_cannot_be_made_shows_nothing_of_itself(pipe: Pipe) -> None:
    """Somebody logs with too few fields: what the fields hold may be a caller's words."""
    pipe.out.handle(logging.LogRecord("other", logging.INFO, "", 0, "%s and %s", ("secret",), None))
    said = os.read(pipe.reads, 65536).decode()
    assert said == "ERROR:    a line of the log could not be made logger=other type=TypeError\n"


def test_a_stream_that_is_no_file_is_written_to() -> None:
    """As under a test, or in an application that keeps its errors in memory; one that is closed ends nothing."""
    stream = io.StringIO()
    out = Out(stream)
    out.setFormatter(HumanLine())
    out.handle(record_of("here"))
    assert stream.getvalue() == "INFO:     here\n"
    stream.close()
    out.handle(record_of("gone"))
    assert out.lost == 1
