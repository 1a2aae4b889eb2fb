"""What was tried on the server, and what happened: `make reliability` prints docs/reliability.md's tables, row by row.

Rules:
- A trial yields its rows as they end. What has figures is measured here; what the suite tries already is run there.
- A row has held, or not, or could not be tried on this machine; one that has not makes the command fail.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
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


def table(title: str, rows: Iterable[Row], where: str) -> str:
    """Return a heading, where it was tried, and a table of Markdown."""
    cells = [HEAD, ("---",) * len(HEAD), *((row.tried, row.happened, row.told) for row in rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
    return "\n".join([f"### {title}", "", where, "", *lines])


def written(page: str, made: Mapping[str, str], order: Iterable[str]) -> str:
    """Return the page with what was `made`, by its titles, in the place of what it had; all of it in this order."""
    head, _, rest = page.partition(BEGIN)
    had, _, rest = rest.partition(END)
    kept = {title: text.strip() for title, text in re.findall(r"(?ms)^### (.+?)$(.*?)(?=^### |\Z)", had)}
    tables = {**{title: f"### {title}\n\n{text}" for title, text in kept.items()}, **made}
    body = "\n\n".join(tables[title] for title in order if title in tables)
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{rest}"
