"""Note on the timeline when the first words of a reply leave, and its first whole sentence: what a caller waits for."""

from __future__ import annotations

from .. import clock
from ..chunk import Aside, Chunk
from ..sentences import MOST, may_end, sentence_ends
from ..turn import Turn


class FirstWords:
    """Looks at the chunks that leave, until a whole sentence has."""

    __slots__ = ("_has_begun", "_text", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._has_begun = False  # the answer
        self._text = ""  # of the answer

    def see(self, chunk: Chunk) -> bool:
        """Look at a chunk that leaves now. True when no more need be shown."""
        if not self._has_begun:
            if not chunk.speaks or chunk.calls:
                return False
            if self._begin(chunk):
                return True
        if type(chunk) is Aside:
            return False
        text = chunk.text
        self._text = whole = self._text + text
        if len(whole) <= MOST and not (may_end(text) and sentence_ends(whole)):
            return False
        self._turn.timeline.sentence = clock.now()
        return True

    def _begin(self, chunk: Chunk) -> bool:
        """Take the first words of a filler, or of the answer; True for sound, in which nothing else can be seen."""
        turn, at = self._turn, clock.now()
        timeline = turn.timeline
        if timeline.heard is None:
            timeline.heard = at
        is_sound = turn.aloud is not None or turn.wants_audio
        if type(chunk) is Aside or (is_sound and turn.filled):
            return False  # in sound, a filler and the answer are not told apart
        self._has_begun, timeline.replied = True, at
        return is_sound

    def end(self) -> None:
        """Take the end of the reply: what is left of an answer is spoken now, whatever it ends with."""
        timeline = self._turn.timeline
        if self._has_begun and self._text and timeline.sentence is None:
            timeline.sentence = clock.now()

    def instead(self) -> None:
        """Take words of ours that are said instead of an answer, or behind it."""
        if self._turn.timeline.heard is None:
            self._turn.timeline.heard = clock.now()
