"""What one run of the benchmark has to say: its rows of figures, and how the rounds are summed up.

Rules: a row is a flat dict. No row is left out. A figure is the median of the rounds; what was not measured is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .servers import SERVERS

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """All that one run of the benchmark has to say. `facts` name the machine and the software."""

    facts: Mapping[str, str]
    rows: Sequence[Row]
    reference: str  # whose figures are 1 in the ratios

    def of(self, server: str, what: str, streams: int | None = None) -> list[Row]:
        """Return the rows of one measurement, a round each."""
        return [
            row
            for row in self.rows
            if (row["server"], row["what"]) == (server, what) and streams in (None, row.get("streams"))
        ]

    def servers(self) -> list[str]:
        """Return the names of the measured servers, in the order of the table of servers."""
        return [name for name in SERVERS if any(row["server"] == name for row in self.rows)]

    def streams(self) -> list[int]:
        """Return the numbers of voice streams that were measured, the fewest first."""
        return sorted({row["streams"] for row in self.rows if row["what"] == "voice"})

    def reference_of(self, server: str) -> str:
        """Return whose figures are 1 for `server`: with a TLS upstream the reference with one, if it was measured."""
        with_tls = f"{self.reference}-tls"
        return with_tls if SERVERS[server].tls and with_tls in self.servers() else self.reference


def values(rows: Sequence[Row], key: str) -> list[float]:
    """Return what the rounds say of `key`."""
    return [row[key] for row in rows if row.get(key) is not None]


def middle(rows: Sequence[Row], key: str) -> float | None:
    """Return the median of `key` over the rounds."""
    found = values(rows, key)
    return median(found) if found else None


def number(value: float | None) -> str:
    """Write three digits that count, or a dash for what was not measured."""
    if value is None:
        return "-"
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{places}f}"
