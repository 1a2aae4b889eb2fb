"""What a request to a model has used: its tokens, as its server counted them, or as a guess. Pure."""

from __future__ import annotations

from dataclasses import dataclass


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
