"""Recognise a chunk that differs from an earlier one in its words only, without decoding it.

The chunks in the middle of a reply are alike to the byte, but for one string. Of a chunk that was decoded, and of which
nothing had to be noted, this keeps the bytes before and behind its words. What has the same bytes there, and between
them nothing that ends a string or a line, is the same JSON with other words: nothing is to be noted of it either.
OpenAI's chunks end in a second such string, `obfuscation`, of random length.
"""

from __future__ import annotations

MARK = b'"content":"'
PADDING = b'"obfuscation":"'
LESSONS = 16  # chunks of a reply that are learnt from; one whose chunks are never alike is decoded as it comes


class Likeness:
    """What the usual chunk of one reply looks like."""

    __slots__ = ("_after", "_before", "_between", "_least", "_lessons")

    def __init__(self) -> None:
        self._before = b""
        self._between = b""
        self._after = b""
        self._least = 0  # bytes that all but the words take; 0 = nothing was learnt yet
        self._lessons = LESSONS

    def learn(self, frame: bytes, words: object) -> None:
        """Take a frame that says `words`, one of which nothing had to be noted, for the pattern."""
        if not self._lessons or not isinstance(words, str) or frame.count(MARK) != 1:
            return
        self._lessons -= 1
        start = frame.find(MARK) + len(MARK)
        spelt = words.encode()
        rest = frame[start + len(spelt) :]
        if frame[start : start + len(spelt)] != spelt or rest[:1] != b'"' or b"\\" in spelt:
            return
        self._before, self._between, self._after = frame[:start], b"", rest
        padding = rest.find(PADDING)
        if padding >= 0:
            padding += len(PADDING)
            self._between, self._after = rest[:padding], rest[rest.find(b'"', padding) :]
        self._least = len(self._before) + len(self._between) + len(self._after)

    def fits(self, data: bytes) -> bool:
        """True when `data` is one whole frame that differs from the pattern in its words only."""
        if not self._least or len(data) < self._least or not data.startswith(self._before):
            return False
        if not data.endswith(self._after):
            return False
        words = data[len(self._before) : -len(self._after)]
        if self._between:
            words, found, padding = words.partition(self._between)
            if not found:
                return False
            words += padding
        try:
            text = words.decode()
        except UnicodeDecodeError:
            return False
        return text.isprintable() and '"' not in text and "\\" not in text
