"""Recognise a chunk that differs from an earlier one in its words only, without decoding it.

The chunks in the middle of a reply are alike to the byte, but for one string. Of a chunk that was decoded, and of which
nothing had to be noted, this keeps the bytes before and behind its words. What has the same bytes there, and between
them nothing that ends a string or a line, is the same JSON with other words: nothing is to be noted of it either.
OpenAI's chunks end in a second such string, `obfuscation`, of random length.
"""

from __future__ import annotations

import msgspec

from ..chunk import Chunk

MARK = b'"content":"'
PADDING = b'"obfuscation":"'
PROBE = b"words"
LESSONS = 16  # chunks of a reply that are learnt from; one whose chunks are never alike is decoded as it comes


class Likeness:
    """What the usual chunk of one reply looks like."""

    __slots__ = ("_after", "_before", "_between", "_least", "_lessons")

    def __init__(self) -> None:
        self._before = b""
        self._between = ""
        self._after = b""
        self._least = 0  # bytes that all but the words take; 0 = nothing was learnt yet
        self._lessons = LESSONS + 1

    def learn(self, frame: bytes, words: object) -> None:
        """Take a frame that says `words`, one of which nothing had to be noted, for the pattern."""
        self._lessons -= 1
        # Not of the first one: many a reply has no other.
        if not 0 <= self._lessons < LESSONS or not isinstance(words, str) or frame.count(MARK) != 1:
            return
        start = frame.find(MARK) + len(MARK)
        spelt = words.encode()
        rest = frame[start + len(spelt) :]
        if frame[start : start + len(spelt)] != spelt or rest[:1] != b'"' or b"\\" in spelt:
            return
        before, between, after = frame[:start], b"", rest
        padding = rest.find(PADDING)
        if padding >= 0:
            padding += len(PADDING)
            between, after = rest[:padding], rest[rest.find(b'"', padding) :]
        if _text(before + PROBE + between + after) == PROBE.decode():  # the mark stood where the words are
            self._before, self._between, self._after = before, between.decode(), after
            self._least = len(before) + len(between) + len(after)

    def read(self, data: bytes) -> Chunk | None:
        """Return `data` as a chunk when it is one whole frame that differs from the pattern in its words only.

        Blanks are no words, nor is nothing: whoever counts the silence has to know of them.
        """
        if not self._least or len(data) <= self._least or not data.startswith(self._before):
            return None
        if not data.endswith(self._after):
            return None
        try:
            text = data[len(self._before) : -len(self._after)].decode()
        except UnicodeDecodeError:
            return None
        if self._between:
            text, found, padding = text.partition(self._between)
            if not found or not _is_plain(padding):
                return None
        return Chunk.from_frame(data, text) if _is_plain(text) and text.strip() else None


def _is_plain(text: str) -> bool:
    return text.isprintable() and '"' not in text and "\\" not in text


def _text(frame: bytes) -> str | None:
    try:
        return Chunk.from_frame(frame).text
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
