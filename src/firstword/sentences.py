"""Cut text that is still coming into the pieces that a voice says in one breath. Pure.

A piece is a sentence, or what must be said before one has ended: the first clause of a reply, so that it begins soon,
and what grows too long. Pieces put together are the text, sign for sign, and do not depend on how it was cut before.
"""

from __future__ import annotations

import re

ENDS = frozenset(".!?…")  # a blank has to follow: 3.14 and example.com hold no end
WIDE_ENDS = frozenset("\n。！？｡।॥؟۔")  # these end a sentence whatever follows
CLAUSE_ENDS = frozenset(",;:—–،")
WIDE_CLAUSE_ENDS = frozenset("，、；：")
CLOSERS = "\"'”’»)]*_"  # may stand between an end and the blank

FIRST_CLAUSE = 12  # signs; a shorter first clause is over before the next piece is there
FIRST_WIDE_CLAUSE = 4  # signs of a script that writes a word in one or two
MOST = 300  # signs; about 20 seconds of speech, and no sentence that anybody follows by ear

# A dot behind one of these is none of a sentence's. Those that often end one (etc., a.m.) are not here.
_ABBREVIATION = re.compile(
    r"mrs?|ms|dr|prof|st|sr|jr|vs|no|approx|e\.g|i\.e|cf|fig|gen|col|lt|sgt|capt|rev|hon"
    r"|nr|bzw|ca|z\.b|d\.h|u\.a|hr|fr|mme|mlle|sra|dra",
    re.IGNORECASE,
)


_LONGEST = len("approx")  # signs of those

_END = re.compile("[.!?…\n。！？｡।॥؟۔]")
may_end = _END.search  # the quick question: a piece of text without one of these ends no sentence


def sentence_ends(text: str) -> bool:
    """True when a text, as far as it has come, holds a whole sentence: a voice can begin with it.

    A mark at its very end counts, although more may come: who speaks it does not wait to see.
    """
    for found in _END.finditer(text):
        sign, end = found.group(), found.end()
        said = text[:end]
        if not any(map(str.isalnum, said)):
            continue
        if sign in WIDE_ENDS:
            return True
        rest = text[end:].lstrip(CLOSERS)
        if (not rest or rest[0].isspace()) and not _is_abbreviated(said):
            return True
    return False


class Sentences:
    """Takes a text as it comes, and returns its pieces as they are finished."""

    def __init__(self) -> None:
        self._piece = ""
        self._has_word = False  # the piece has something to say: marks alone are no piece
        self._is_first = True

    @property
    def has_words(self) -> bool:
        """True when words wait for the end of their sentence."""
        return self._has_word

    def feed(self, text: str) -> list[str]:
        """Take more of the text; return the pieces that are finished by it."""
        pieces = []
        for sign in text:
            self._piece += sign
            self._has_word = self._has_word or sign.isalnum()
            # Marks that never come to a word are no piece, but they do not gather without end either.
            if self._ends_with(sign) if self._has_word else len(self._piece) >= 2 * MOST:
                pieces.append(self.take())
        return pieces

    def take(self) -> str:
        """Return what is there, finished or not, and begin a new piece; empty when that is nothing."""
        piece, self._piece = self._piece, ""
        self._is_first = self._is_first and not self._has_word
        self._has_word = False
        return piece

    def _ends_with(self, sign: str) -> bool:
        length = len(self._piece)
        if sign in WIDE_ENDS:
            return True
        if self._is_first and sign in WIDE_CLAUSE_ENDS and length > FIRST_WIDE_CLAUSE:
            return True
        if sign.isspace():
            said = self._piece[:-1].rstrip(CLOSERS)
            if said[-1:] in ENDS and not _is_abbreviated(said):
                return True
            if self._is_first and said[-1:] in CLAUSE_ENDS and length > FIRST_CLAUSE:
                return True
        return length >= MOST and (sign.isspace() or _is_wide(sign) or length >= 2 * MOST)


def _is_abbreviated(said: str) -> bool:
    """True when the dot that `said` ends with belongs to its last word: Dr., e.g., J., or the 1. of a list."""
    if said[-1] != "." or said.endswith(".."):
        return False
    words = said[:-1].rsplit(None, 1)
    word = words[-1].lstrip("(\"'“‘«*_-") if words else ""
    if word.isdecimal():
        return said[:-1].strip() == word  # a number that a piece begins with counts what follows
    if len(word) > _LONGEST:
        return False
    return _ABBREVIATION.fullmatch(word) is not None or (len(word) == 1 and word.isalpha() and word not in ("I", "a"))


def _is_wide(sign: str) -> bool:
    """True for the scripts that put no blanks between words: kana and ideographs."""
    return "\u3040" <= sign <= "\u30ff" or "\u3400" <= sign <= "\u9fff" or "\U00020000" <= sign <= "\U0003134f"
