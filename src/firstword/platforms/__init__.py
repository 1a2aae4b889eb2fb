"""The dialects of voice engines, one pure file each: what a request of theirs means, and what they want of a reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from .. import plugins
from ..action import Action, Deed
from ..chunk import Chunk
from ..turn import Turn


@dataclass(slots=True)
class Asked:
    """A request as it came. `body` is taken over by who reads it; names of headers are in lower case."""

    body: dict[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    path: str
    key: str | None = field(repr=False)  # the caller's own key for the provider

    def turn(self, platform: str, **known: Any) -> Turn:
        """Return the turn of what is left in the body; `known` are its other fields."""
        return Turn(
            request=self.body,
            stream=bool(self.body.get("stream")),
            key=self.key,
            headers=self.headers,
            query=self.query,
            path=self.path,
            platform=platform,
            **known,
        )


class Platform(Protocol):
    """Reads one voice engine's requests, and knows how it wants to be spoken to."""

    engine_tools: frozenset[str]  # names that the engine's own tools always have: no tool of an App may be called so
    apology: str | None  # what is said instead of any error, because an HTTP error ends the call; None: errors are told
    speaks_errors: bool  # an error has the engine say a sentence of its own, over whatever is said
    resent: str  # what becomes of a turn that is sent again while it runs: "supersede" or "join"
    forgets_images: bool  # the engine's history has the words of earlier turns, and not their images

    def read(self, asked: Asked) -> Turn:
        """Return the turn that a request asks for. Raises BadRequest that names the field."""

    def filler(self, words: str) -> str:
        """Return a filler in the form that the engine speaks at once; `words` end with a space."""

    def opening(self, turn: Turn, id: str) -> Chunk | None:
        """Return the event before the reply `id`, which tells `turn.interruptable` and `turn.voice`; None for none."""

    def whole(self, completion: dict[str, Any]) -> dict[str, Any]:
        """Return a reply in one piece, which is a `chat.completion`, as the engine wants it."""

    def mistake(self, body: dict[str, Any], status: int) -> dict[str, Any]:
        """Return the body of an error, which is OpenAI's, as the engine wants it. `status` is that of HTTP."""

    def act(self, turn: Turn, action: Action) -> Deed:
        """Return how the engine is told to end or transfer the call.

        Raises ActionError, with what has to be switched on, when it cannot be told.
        """


@lru_cache(maxsize=64)
def named(name: str) -> Platform:
    """Return the platform of that name. Raises ConfigError that names those there are."""
    platform: Platform = plugins.load("platforms", name)
    return platform


def of(turn: Turn) -> Platform:
    """Return the platform whose turn it is."""
    return named(turn.platform)
