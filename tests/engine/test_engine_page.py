"""The page on the fake engine says what it does: each command, setting, field and option, and a call as it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import typer
from conftest import ROOT

from firstword.cli import cli
from firstword.engine.marks import Marks
from firstword.engine.script import USAGE
from firstword.engine.setup import Setup

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
PAGE = (ROOT / "docs" / "engine.md").read_text("utf-8")


def named(heading: str) -> set[str]:
    """Return what stands in quotes in the first cells of a chapter's tables."""
    chapter = PAGE.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[0] for line in chapter.splitlines() if line.startswith(("| `", "| a "))]
    return {word for cell in cells for word in re.findall(r"`/?(\w+)", cell)}


def test_every_command_setting_field_and_option_stands_in_a_table() -> None:
    """Somebody adds one, or takes one away."""
    assert named("## Commands") == {*USAGE, "save", "help", "quit"}
    assert named("## Settings") == {each.name for each in fields(Setup)}
    assert named("## What is told of a turn") == {each.name for each in fields(Marks)}

    command = typer.main.get_command(cli).commands["engine"]  # type: ignore[attr-defined]
    options = [name for option in command.params for name in option.opts if name.startswith("--")]
    assert len(options) > 8 and [name for name in options if name not in PAGE] == []


def test_the_call_that_is_shown_prints_what_is_shown(tmp_path: Path) -> None:
    """A reader copies the script and plays it; the times are another matter."""
    talk, shown = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "talk.txt").write_text(talk)
    (tmp_path / "quick.json").write_text('{"params": {"model": "demo", "pace": 30}}')
    ran = subprocess.run(
        [FIRSTWORD, "engine", "--serve", "--script", "talk.txt", "--llm", "quick.json", "--rate", "400"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert _without_times(ran.stdout) == _without_times(shown)


def _without_times(text: str) -> str:
    """Leave out the figures, and what of a reply that is cut off depends on who is quicker, the model or the voice."""
    text = re.sub(r"\d+ of \d+ signs|\d+ chunks( · stop)?|sentence [\d.]+ · ", "", text)
    return re.sub(r"\d+\.\d{3}", "0", text)
