"""Plays the fault catalogue on a clock that jumps and prints what a caller hears: `make faults`.

The table of docs/never-silent.md is this one, `--write` puts it there, and `test_faults_played.py` holds the two
together. Every row is played three times, with everything at its default but for a filler and an apology:

- with a second model, which answers at once when it is asked;
- alone;
- with a second model that does the same.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple

from catalogue import BEFORE_SPEECH, FILLER, FINAL, FRIEND, MIDWAY, NO_CONNECTION, SORRY, WHOLE, WORDS, Fault, Unreached

from firstword import Policy
from firstword.testing import Score, says, talk

PAGE = Path(__file__).parent.parent / "docs" / "never-silent.md"
BEGIN, END = "<!-- made by `make faults` -->", "<!-- end -->"
GROUPS = {
    "Before the first word": (*NO_CONNECTION, *BEFORE_SPEECH),
    "After the first word": MIDWAY,
    "Odd, and whole": WHOLE,
    "What no other model would mend": FINAL,
}
SETTINGS: dict[str, Any] = {"fillers": [FILLER], "fill_after": Policy().fill_after, "apology": SORRY}
SHORT = {
    f"{WORDS} {SORRY}": "ten words and the apology",
    FRIEND: "the answer",
    FILLER.strip(): "a filler",
    SORRY: "the apology",
    WORDS: "ten words",
}


class Played(NamedTuple):
    """What the caller of one fault heard: with a second model, alone, and when both do the same."""

    helped: Score
    alone: Score
    both: Score


async def play(fault: Fault | Unreached) -> Played:
    """Play one row."""
    model = fault.play(1.0)
    return Played(
        await talk(models=[model, says(FRIEND)], **SETTINGS),
        await talk(models=model, **SETTINGS),
        await talk(models=[model, model], **SETTINGS),
    )


def told(score: Score) -> str:
    """Return what was heard, and when, in few words."""
    if not score:
        return f"status {score.status}"
    parts: list[str] = []
    for at, words in score:
        said = words.strip()
        for long, short in SHORT.items():
            said = said.replace(long, short)
        if said:
            parts.append(f"{said} at {at:g} s" if said in SHORT.values() else f"“{said}” at {at:g} s")
    first, *rest = parts
    return "; ".join([first, *rest]) if len(parts) < 4 else f"{first} … {rest[-1]}"


def row(fault: Fault | Unreached, played: Played) -> str:
    """Return one line of the table."""
    asked = ", ".join(f"{name} at {at:g} s" for at, name in played.helped.asked)
    silence = f"{played.helped.longest_silence:g} s"
    heard = [told(score) for score in played]
    return f"| {fault.name} | {heard[0]} | {silence} | {asked} | {heard[1]} | {heard[2]} |"


async def table() -> str:
    """Return the whole table."""
    lines = ["| The first model | With a second | Longest silence | Who was asked | Alone | When both do |"]
    lines.append("|---|---|---|---|---|---|")
    for title, faults in GROUPS.items():
        lines.append(f"| **{title}** | | | | | |")
        lines += [row(fault, await play(fault)) for fault in faults]
    return "\n".join(lines)


def within(page: str) -> str:
    """Return the table that stands in the page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """Print the table; with `--write`, put it into the page."""
    logging.getLogger("firstword").addHandler(logging.NullHandler())  # each row would be a line on the screen
    made = asyncio.run(table())
    if "--write" in sys.argv:
        head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}", "utf-8")
    print(made)


if __name__ == "__main__":
    main()
