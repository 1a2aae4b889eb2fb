"""Shaped text in pieces that end where a word does, for hooks that read numbers, currencies and abbreviations. Pure."""

from __future__ import annotations

from collections.abc import Callable

from . import Shaper
from .signs import is_wide

MAX_WORD = 80  # signs without the end of a word after which a piece is given all the same
ENDS = frozenset("!?\u2026")  # a full stop or a comma may stand within a number


class WholeWords:
    """The text of one reply, as `read` says it aloud. Used as a Shaper is; the last word waits for its end."""

    def __init__(self, shaper: Shaper, read: Callable[[str], str]) -> None:
        self._shaper = shaper
        self._read = read
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what is heard now."""
        self._held += self._shaper.feed(text)
        end = _end_of_words(self._held)
        piece, self._held = self._held[:end], self._held[end:]
        return self._read(piece) if piece else ""

    def end(self) -> str:
        """Return what was kept back: the text is over."""
        piece, self._held = self._held + self._shaper.end(), ""
        return self._read(piece) if piece else ""


def _end_of_words(text: str) -> int:
    """Return where the last word that is over ends."""
    for end in range(len(text), 0, -1):
        sign = text[end - 1]
        if sign.isspace() or sign in ENDS or is_wide(sign):
            return end
    return len(text) if len(text) > MAX_WORD else 0
