"""The two C programs that measure: compiled on first use, started, and asked for their figures.

Rules: nothing is timed in Python. There is no substitute for a C compiler, because a load generator in Python
would be slower than the servers that it measures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import msgspec

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER / "build"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow")
LOOK_EVERY = 0.1  # seconds between two looks at a server under load


class InstrumentError(Exception):
    """The benchmark cannot be run here; the message says what is missing."""


class Figures(msgspec.Struct):
    """What the load generator counted and timed in one run; times in nanoseconds."""

    turns: int
    whole: int
    dropped: int
    refused: int
    broken: int
    wrong: int
    unfinished: int
    chunks: int
    connections: int
    first_ns: list[int]
    beside_ns: list[int]
    delay_ns: list[int]
    drops: list[int]

    @property
    def errors(self) -> int:
        """Turns that neither arrived whole nor were dropped on purpose."""
        return self.refused + self.broken + self.wrong + self.unfinished


class Stats(msgspec.Struct):
    """What the upstream saw since it was last reset: `ended` holds id, moment in ns, and 1 if spoken to the end."""

    speaking: int
    sent: int
    late_mean_ns: int
    late_max_ns: int
    ended: list[tuple[int, int, int]]


def compilers() -> list[str]:
    """Return the names a C compiler may have here: the one in CC, else the usual ones."""
    return [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]


def find_compiler() -> str | None:
    """Return the first compiler that is installed."""
    return next((name for name in compilers() if shutil.which(name)), None)


def missing() -> str | None:
    """Say in one line what keeps the instruments from running here; None if nothing does."""
    if not sys.platform.startswith("linux"):
        return f"the load generator needs Linux (epoll): this is {sys.platform}"
    if find_compiler() is None:
        return f"the load generator needs a C compiler: {' or '.join(compilers())} was not found"
    return None


def build(folder: Path = BUILD, *, flags: Sequence[str] = FLAGS) -> None:
    """Compile `load` and `upstream` into `folder`, unless they are newer than their sources."""
    if reason := missing():
        raise InstrumentError(f"{reason}\nhint: apt-get install gcc libc6-dev, or name a compiler in CC")
    folder.mkdir(parents=True, exist_ok=True)
    changed = max(path.stat().st_mtime for path in FOLDER.glob("*.[ch]"))
    for name in ("load", "upstream"):
        program = folder / name
        if program.exists() and program.stat().st_mtime > changed:
            continue
        command = [find_compiler() or compilers()[0], *flags, "-o", str(program), str(FOLDER / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstrumentError(f"{name}.c does not compile: {done.stderr.strip()}")


@dataclass(frozen=True)
class Upstream:
    """The running mock upstream."""

    port: int

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def ask(self, path: str) -> bytes:
        """GET `path` from it."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def reset(self) -> None:
        """Let it forget what it saw."""
        self.ask("/reset")

    def stats(self) -> Stats:
        """Return what it saw since the last reset."""
        return msgspec.json.decode(self.ask("/stats"), type=Stats)


@contextmanager
def run_upstream(folder: Path = BUILD) -> Iterator[Upstream]:
    """Run the mock upstream on a free port."""
    process = subprocess.Popen([str(folder / "upstream")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Upstream(port=int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def run_load(
    words: Mapping[str, str | float], *, folder: Path = BUILD, look: Callable[[], None] | None = None
) -> Figures:
    """Run the load generator with `words` (the top of load.c lists them) and return its figures.

    `look` is called a few times a second while it runs.
    """
    command = [str(folder / "load"), *(f"{name}={value}" for name, value in words.items())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output = None
        while output is None:
            with suppress(subprocess.TimeoutExpired):
                output, complaint = process.communicate(timeout=LOOK_EVERY if look else None)
            if look:
                look()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode:
        raise InstrumentError(complaint.decode().strip())
    return msgspec.json.decode(output, type=Figures)
