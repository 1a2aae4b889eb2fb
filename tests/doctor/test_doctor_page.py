"""The doctor's own order: every fault has a test and stands in the docs, the READMEs show what it finds today."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from ailments import FAULTS
from compare import CHECKS, PAGE, READMES, both, page, table, within
from conftest import ROOT

from firstword.cli import cli
from firstword.doctor import Fault, chosen, cost

TRIED_AT_REACH = (Path(__file__).parent / "test_reach.py").read_text("utf-8")


def every_fault() -> list[Fault]:
    return [fault for check in CHECKS for fault in check.faults]


def test_every_fault_is_played_by_a_server_that_has_it() -> None:
    """Somebody adds a fault, and no test shows that it is ever found."""
    names = {fault.name for fault in every_fault()}
    played = {name for name, _, _ in FAULTS}
    assert played <= names
    untold = sorted(name for name in names - played if f'"{name}"' not in TRIED_AT_REACH)
    assert untold == []


def test_every_fault_that_the_code_has_belongs_to_a_check() -> None:
    """A fault is written down, and left out of the lists that the page is printed from."""
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "src/firstword/doctor").glob("*.py"))
    written = set(re.findall(r'Fault\(\s*"([\w-]+)"', sources))
    listed = {fault.name for fault in every_fault()}
    assert len(written) > 80 and written <= listed


def test_each_fault_says_what_why_and_how_to_mend_it_in_sentences() -> None:
    """They are printed one under the other: each a sentence, no name used twice for different things."""
    faults = every_fault()
    for fault in faults:
        assert re.fullmatch(r"[a-z0-9-]+", fault.name)
        for text in (fault.says, fault.why, fault.mend):
            assert text.endswith(".") and "\n" not in text and "  " not in text, text
    assert all(len({other for other in faults if other.name == fault.name}) == 1 for fault in faults)


def test_the_page_tells_every_check_as_the_code_has_it() -> None:
    """A check is added or worded anew: `make doctor ARGS=--write` puts it into the page."""
    assert within(PAGE) == page()


def test_the_page_names_every_option() -> None:
    """Somebody adds an option to `firstword check`."""
    command = typer.main.get_command(cli)
    options = [name for option in command.commands["check"].params for name in option.opts]  # type: ignore[attr-defined]
    named = [name for name in options if name.startswith("--")]
    assert len(named) > 9 and [name for name in named if f"| `{name}" not in PAGE.read_text("utf-8")] == []


def test_the_page_counts_the_requests() -> None:
    """What it costs is told before it is paid."""
    told = f"All checks are {cost(CHECKS)} requests, the quick ones {cost(chosen(is_quick=True))}"
    assert told in PAGE.read_text("utf-8")


async def test_the_readmes_show_what_is_found_today() -> None:
    """The naive server of the benchmarks and firstword, before the same model; firstword has none of the faults."""
    made = table(*await both())
    assert [within(readme) for readme in READMES] == [made, made]
    assert made.count("| – |") == made.count("\n") - 1 > 5
