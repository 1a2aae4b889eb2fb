"""What was tried on the server, and what happened: `make reliability` prints docs/reliability.md's tables, row by row.

Rules:
- A trial yields its rows as they end. What has figures is measured here; what the suite tries already is run there.
- A row has held, or not, or could not be tried on this machine; one that has not makes the command fail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by `make reliability` -->", "<!-- end of reliability -->"
HEAD = ("What was tried", "What happened", "Held")


@dataclass(frozen=True)
class Row:
    """One line of a table. `held` is None for what could not be tried."""

    tried: str
    happened: str
    held: bool | None

    @property
    def told(self) -> str:
        """Return the word for the last column."""
        return {True: "yes", False: "**no**", None: "not tried"}[self.held]


@dataclass(frozen=True)
class Trial:
    """One table: its `name` for the command, its `title` for the page. `run` takes whether to be quick."""

    name: str
    title: str
    run: Callable[[bool], AsyncIterator[Row]]


def table(title: str, rows: Iterable[Row]) -> str:
    """Return a heading and a table of Markdown."""
    cells = [HEAD, ("---",) * len(HEAD), *((row.tried, row.happened, row.told) for row in rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
    return "\n".join([f"### {title}", "", *lines])


def written(page: str, made: str) -> str:
    """Return the page with what was made between its marks."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}"
