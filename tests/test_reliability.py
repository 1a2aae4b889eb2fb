"""docs/reliability.md and `make reliability`: the page has every trial, each is what it says, and a failure is told."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator

import pytest
from benchmarks import overload, soak
from benchmarks.reliability import BEGIN, END, PAGE, ROOT, Row, table, written
from benchmarks.reliability.__main__ import main
from benchmarks.reliability.leases import EVERYBODY, LIMITS, MOST_OF_SESSION, begin, every_share, hold
from benchmarks.reliability.suite import Proof, judged, row_of
from benchmarks.reliability.trials import OTHERS, STOPPED, STORES, TRIALS, hostile, overloaded, soaked

from firstword.testing import Upstream

HERE = pytest.mark.skipif(not soak.PROC.joinpath("self/statm").exists(), reason="needs Linux's /proc")
MADE = PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
GROUPS = [*STOPPED, *STORES, *OTHERS]
CALM = {
    "first word, storm/calm, p50": 1.1,
    "longest gap, storm, p50 (ms)": 110.0,
    "longest gap, calm, p50 (ms)": 100.0,
    "storm: let in": 100,
    "storm: refused": 400,
    "neither served nor told": 0,
}


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_every_trial() -> None:
    """A trial is added, or tests are named in other words: `make reliability ARGS=--write`."""
    assert re.findall("^### (.+)$", MADE, re.MULTILINE) == [trial.title for trial in TRIALS]
    for group in GROUPS:
        assert f"| {group.tried} |" in MADE, group.tried


def test_the_page_says_where_it_was_tried_and_what_held() -> None:
    """A reader wants to know what the figures are of, and whether something has failed."""
    where = re.findall(r"^Tried on \d{4}-\d\d-\d\d on \d+ cores of .+; it took [\d.]+ minutes\.$", MADE, re.MULTILINE)
    assert len(where) == len(TRIALS)
    rows = [line for line in MADE.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    ends = [line.rsplit("| ", 1)[1] for line in rows]
    assert len(rows) > 50 and set(ends) <= {"Held |", "yes |", "**no** |", "not tried |"}


@pytest.mark.parametrize("where", [where for group in GROUPS for where in group.where])
def test_the_tests_that_it_runs_are_there(where: str) -> None:
    """One of them is renamed: the row would fail, half an hour into the command."""
    path, _, name = where.partition("::")
    assert (ROOT / path).exists(), where
    assert not name or re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), where


def test_a_table_holds_what_would_break_it() -> None:
    """What happened may be any text."""
    made = table("Title", [Row("a | b", "c", True), Row("d", "e", False), Row("f", "g", None)], "Here.")
    assert made.startswith("### Title\n\nHere.\n\n| What was tried |")
    assert made.splitlines()[6:] == ["| a \\| b | c | yes |", "| d | e | **no** |", "| f | g | not tried |"]


def test_one_trial_may_be_done_again() -> None:
    """Its table takes the place of the old one; the others, and the rest of the page, stay as they are."""
    order = ["A", "B", "C"]
    one = written(f"head\n{BEGIN}\n{END}\nrest\n", {"C": "### C\n\nc"}, order)
    assert one == f"head\n{BEGIN}\n\n### C\n\nc\n\n{END}\nrest\n"
    two = written(one, {"A": "### A\n\na"}, order)
    assert two == f"head\n{BEGIN}\n\n### A\n\na\n\n### C\n\nc\n\n{END}\nrest\n"
    again = written(two, {"A": "### A\n\nanew"}, order)
    assert again == two.replace("a\n\n### C", "anew\n\n### C")
    assert written(again, {}, ["A"]).count("###") == 1, "a trial that is no more goes"


# --- tests that are run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said", "happened", "held"),
    [
        (0, "....\n4 passed in 1.20s", "4 tests passed in 2 s", True),
        (0, "1 passed, 3 skipped in 61.20s (0:01:01)", "1 test passed, 3 tests skipped in 2 s", True),
        (0, "ss\n2 skipped in 0.10s", "2 tests skipped in 2 s", None),
        (
            1,
            "FAILED tests/test_a.py::test_b - no\n1 failed, 2 passed in 1.0s",
            "1 test failed, 2 tests passed: tests/test_a.py::test_b",
            False,
        ),
        (
            1,
            "ERROR tests/test_a.py::test_b\n2 errors in 0.5s",
            "2 tests not run for an error: tests/test_a.py::test_b",
            False,
        ),
        (4, "no tests ran in 0.01s", "pytest ended with 4", False),
        (5, "", "pytest ended with 5", False),
    ],
)
def test_a_run_of_tests_is_judged_by_its_last_line(code: int, said: str, happened: str, held: bool | None) -> None:
    """What pytest prints, and how it ends."""
    assert judged("x", code, said, 2.0) == Row("x", happened, held)


def test_tests_are_run_and_counted() -> None:
    """One of this very file, in a process of its own."""
    row = row_of(Proof("x", ("tests/test_reliability.py::test_a_table_holds_what_would_break_it",)))
    assert row.held and re.fullmatch(r"1 test passed in \d+ s", row.happened), row


# --- trials, small --------------------------------------------------------------------------------


@HERE
async def test_a_short_soak_with_all_limits_is_a_row() -> None:
    """Some hundred turns by the callers of the long one."""
    row = await soaked(330)
    assert row.held, row
    assert "300 arrived whole, 30 were abandoned" in row.happened and "204 held" in row.happened


@HERE
async def test_a_lease_that_does_not_come_back_is_found() -> None:
    """One turn is still there, as far as its session's limit goes."""
    with Upstream.start() as upstream, soak.running(upstream.base_url, **LIMITS) as server:
        lines: list[object] = []
        who = EVERYBODY[0]
        assert await begin(server.port, who, "Stay.", lines) == "200"
        with pytest.raises(soak.Left, match=r"a lease was not given back: of 3 turns 1 were refused: {'429'}"):
            await hold(server.port, [who] * MOST_OF_SESSION, [])
        with pytest.raises(soak.Left, match="a turn beyond the limit was let in"):
            await hold(server.port, [], [EVERYBODY[1]])
        lines[0].transport.abort()  # type: ignore[attr-defined]
        assert (await every_share(server))["refused beyond"] == 12


@HERE
async def test_an_attack_is_a_row() -> None:
    """The first of many."""
    rows: AsyncIterator[Row] = hostile(True)
    row = await anext(rows)
    await rows.aclose()  # type: ignore[attr-defined]
    assert row.held and row.tried == "A connection that says nothing", row


@pytest.mark.timeout(120)
async def test_a_short_overload_is_a_row() -> None:
    """Half a second of it: the figures say nothing, but everybody is served or told."""
    found = await overload.of_turns(0.5, 1)
    row = overloaded("room", found)
    assert row.happened.endswith("Neither served nor told: 0") and found["storm: let in"] > 0, row
    assert 0 < overload.BURN * 0.9 < overload.burned() < 5


@pytest.mark.parametrize(
    "change",
    [
        {},
        *(
            {name: value}
            for name, value in [
                ("first word, storm/calm, p50", 1.6),
                ("first word, storm/calm, p50", float("nan")),
                ("longest gap, storm, p50 (ms)", 160.0),
                ("storm: refused", 0),
                ("neither served nor told", 1),
            ]
        ),
    ],
    ids=str,
)
def test_overload_has_not_held_when_somebody_suffers(change: dict[str, float]) -> None:
    """Words come late, or in gaps; nobody is refused; somebody hears nothing at all."""
    assert overload.holds({**CALM, **change}) is (not change)


@pytest.mark.parametrize("words", [["--only", "soak,storms"], ["--write", "--quick"]])
def test_what_the_command_does_not_take_is_told(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that there is not, and a page of trials that were cut short."""
    monkeypatch.setattr(sys, "argv", ["reliability", *words])
    with pytest.raises(SystemExit, match="hint: see --help"):
        main()
