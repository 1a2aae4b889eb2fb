"""docs/capacity.md: its table is the command's, its figures are the README's, and the arithmetic is right."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from benchmarks.capacity import BEGIN, END, PORTS, Assumed, Measured, need, table
from conftest import ROOT

PAGE = (ROOT / "docs" / "capacity.md").read_text("utf-8")
SIZES = (1_000, 100_000, 1_000_000)


def test_the_pages_table_is_the_commands() -> None:
    """A figure is measured anew, or a default is changed: `make capacity ARGS=--write`."""
    kept = PAGE.partition(BEGIN)[2].partition(END)[0].strip()
    assert kept == table([need(calls) for calls in SIZES])


def test_the_command_takes_the_readers_own_numbers() -> None:
    """A reader types what the page shows, with a turn every six seconds."""
    words = shlex.split(re.findall(r'make capacity ARGS="(.+?)"', PAGE)[0])
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.capacity", *words, "--every", "6"], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    faster = replace(Assumed(), every=6.0)
    assert told.stdout.strip() == table([need(calls, faster) for calls in SIZES])
    wrong = subprocess.run(
        [sys.executable, "-m", "benchmarks.capacity", "--every", "0"], cwd=ROOT, capture_output=True, text=True
    )
    assert wrong.returncode == 1 and "hint:" in wrong.stderr and "Traceback" not in wrong.stderr


def test_what_was_measured_is_what_the_readme_says() -> None:
    """`make bench` was run again, and the README has other figures."""
    readme = (ROOT / "README.md").read_text("utf-8")
    [row] = re.findall(r"^\| firstword-tls \|(.+)\|$", readme, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    at_200, at_500, at_1000, memory = cells[2], cells[3], cells[4], cells[5]
    for cell in (at_200, at_500, at_1000):
        assert cell in PAGE
    rest, busy = (float(each) for each in memory.split(" -> "))
    assert (Measured().rest, Measured().thousand) == (rest * 1e6, (busy - rest) * 1e6)
    assert at_200 == "0.13 / 0.93"  # the docstring of Measured says it
    assert re.findall(r"`(python -m benchmarks.run [^`]+)`", readme)[0] in " ".join(PAGE.split())
    benchmarks = (ROOT / "benchmarks" / "measure.py").read_text("utf-8") + (
        ROOT / "benchmarks" / "README.md"
    ).read_text()
    assert "1.18 s" in benchmarks and "50 in all" in benchmarks


def test_a_call_is_not_a_stream() -> None:
    """The page's own example, by hand: a thousand calls, a turn every twelve seconds, 1.7 s each."""
    small = need(1000)
    assert small.turns == pytest.approx(1000 / 12)
    assert small.streams == pytest.approx(1000 / 12 * 1.7)
    assert small.cores == math.ceil(1000 / 12 * 50 / (200 * 50 / 1.18)) == 1
    assert small.processes == 2  # one may go
    assert small.tokens_a_minute == pytest.approx(1000 / 12 * 60 * 1550)
    assert small.money_an_hour == pytest.approx(1000 / 12 * 3600 * (1500 * 0.25 + 50 * 2.0) / 1e6)
    assert small.logs == pytest.approx(1000 / 12 * 150 * 86_400)
    assert small.connections == math.ceil(1000 + 1000 / 12 * 1.7)  # all on the one that is left


def test_more_calls_take_more_of_everything() -> None:
    """No figure falls when calls grow, and none of a thousand times as many is less than a hundred times as much."""
    few, many = need(1_000), need(1_000_000)
    for each in fields(few):
        less, more = getattr(few, each.name), getattr(many, each.name)
        assert more > less, each.name
        if each.name != "connections":  # of one process
            assert more >= 100 * less, each.name


def test_nobody_streams_more_than_he_calls() -> None:
    """A model so slow that the next turn would begin before the last has ended: a call has one turn at a time."""
    assert need(100, Assumed(first_word=60.0)).streams == 100
    assert need(0).cores == 1 and need(0).processes == 2


def test_linux_has_as_many_ports_as_the_page_says() -> None:
    """One address, to one other address and port."""
    assert f"{PORTS:,}" in PAGE
    assert need(1_000_000).ports == pytest.approx(1_000_000 / 12 * 1.7 / 28_232)


def test_the_pages_words_have_the_tables_numbers() -> None:
    """A default is changed, the table is written anew, and the words still tell the old one."""
    text = " ".join(PAGE.partition(END)[2].split())
    large, huge = need(100_000), need(1_000_000)
    for value in (large.connections, large.streams, large.turns, large.requests_a_minute, large.money_an_hour):
        assert f"{value:,.0f}" in text, value
    for value in (huge.commands, huge.processes):
        assert f"{value:,.0f}" in text, value
    assert f"{large.logs / 1e9:.0f} GB a day" in text and f"{huge.traffic / 1e9:.1f} GB a second" in text
    assert f"{math.ceil(huge.ports)} at the very least" in text
