"""The dialects of voice engines, one pure file each: what a request of theirs means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..action import Action, Deed
from ..turn import Turn


class Platform(Protocol):
    """Reads one voice engine's requests, and knows how it wants to be spoken to."""

    engine_tools: frozenset[str]  # names that the engine's own tools always have: no tool of an App may be called so

    def read(
        self, body: dict[str, Any], *, headers: Mapping[str, str], query: Mapping[str, str], path: str, key: str | None
    ) -> Turn:
        """Return the turn that a request asks for; `body` is taken over. Raises BadRequest that names the field."""

    def filler(self, words: str) -> str:
        """Return a filler in the form that the engine speaks at once; `words` end with a space."""

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return how the engine is told to end or transfer the call.

        Raises ActionError, with what has to be switched on, when it cannot be told.
        """
