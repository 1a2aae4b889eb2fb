"""A Lua script, which runs as one step in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .. import clock
from .line import Call, Word


class Script:
    """A script, and the name that the store has for it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()

    def call(self, keys: Sequence[str], more: Sequence[Word]) -> Call:
        """Return a call that runs it, by its name; or whole, in a store that does not know it."""
        return Call(
            ("EVALSHA", self.sha, len(keys), *keys, *more),
            clock.now(),
            again=("EVAL", self.text, len(keys), *keys, *more),
        )
