"""What came of one attack: a row of the table that says what was tried, and what happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One attack in a sentence, and its end in another one. `stands`: the server did what it should."""

    tried: str
    happened: str
    stands: bool
