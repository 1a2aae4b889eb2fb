"""What a request to a model has used: its tokens, as its server counted them, or as a guess. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_TOKENS = 100_000_000  # of one request; a server that counts more, or less than none, is not believed


@dataclass(slots=True)
class Used:
    """The tokens of one request to a model, lost ones too: of its prompt, of which some were `cached`, and its answer.

    is_counted: its server has counted them; else they are a guess.
    """

    model: str
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    is_counted: bool = False


def tokens_in(usage: Any, *path: str) -> int | None:
    """Return a count that stands in a server's `usage`; None for what is none, or not to be believed."""
    value = usage
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
