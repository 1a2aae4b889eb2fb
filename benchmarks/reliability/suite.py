"""Rows whose proof is a test of the suite: it is run by pytest in a process of its own, and counted."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from . import ROOT, Row

LONGEST = 900.0  # seconds
COUNTED = ("passed", "failed", "error", "skipped")


@dataclass(frozen=True)
class Proof:
    """Some tests: what they try, in words; and where they are, as pytest is told, and by which words of their names."""

    tried: str
    where: tuple[str, ...]
    named: str = ""


def runs(groups: Sequence[Proof]) -> Callable[[bool], AsyncIterator[Row]]:
    """Return what runs all of them, one row for each."""

    async def run(quick: bool) -> AsyncIterator[Row]:
        for tests in groups:
            yield await asyncio.to_thread(row_of, tests)

    return run


def row_of(tests: Proof) -> Row:
    """Run some tests."""
    words = [sys.executable, "-m", "pytest", "--tb=line", "-p", "no:cacheprovider", *tests.where]
    words += ["-k", tests.named] if tests.named else []
    began = time.monotonic()
    code, said = _output(words)
    return judged(tests.tried, code, said, time.monotonic() - began)


def judged(tried: str, code: int, said: str, seconds: float) -> Row:
    """Return the row of a run of pytest that ended with `code` and `said` so much."""
    last = next((line for line in reversed(said.splitlines()) if " in " in line), "")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+?)s?\b", last) if word in COUNTED}
    if code or not counts or set(counts) - {"passed", "skipped"}:
        failed = (
            "; ".join(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", said, re.MULTILINE)) or f"pytest ended with {code}"
        )
        return Row(tried, f"{_told(counts)}: {failed}" if counts else failed, False)
    happened = f"{_told(counts)} in {seconds:.0f} s"
    return Row(tried, happened, True if counts.get("passed") else None)


def _told(counts: dict[str, int]) -> str:
    many = {"passed": "passed", "failed": "failed", "error": "not run for an error", "skipped": "skipped"}
    return ", ".join(f"{count} test{'s' if count != 1 else ''} {many[word]}" for word, count in counts.items())


def _output(words: Sequence[str]) -> tuple[int, str]:
    """Run a command in the root of the repository, and return its exit code and output."""
    try:
        done = subprocess.run(
            words, cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return 1, f"FAILED after-{LONGEST:.0f}-s"
    return done.returncode, done.stdout
