"""Cut the sound of a reply into frames of 40 ms, each with the words that begin in it. Pure.

The transcripts of all frames together are the text, sign for sign. A piece of text ends on a whole frame: what is
filled up with silence is less than a frame, in a place where a voice pauses anyway.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from . import RATE_HZ, Sound, Word

FRAME_SECONDS = 0.04
FRAME_SIZE = round(RATE_HZ * FRAME_SECONDS) * 2  # bytes: 1,280


@dataclass(frozen=True, slots=True)
class Frame:
    """40 ms of sound. `words` have their times from the beginning of the reply's sound."""

    pcm: bytes
    transcript: str = ""
    words: tuple[Word, ...] = ()


class Frames:
    """Takes the sound of a reply, piece of text by piece of text, and returns frames as they are full."""

    def __init__(self) -> None:
        self.count = 0  # frames so far
        self._pcm = bytearray()
        self._text = ""  # of this piece, what no frame has yet
        self._has_words = False  # the voice tells their times
        self._is_told = False  # it has shown whether it does
        self._marks: deque[tuple[int, str, Word | None]] = deque()  # at which frame a text begins
        self._offset = 0.0  # seconds at which the piece begins

    def begin(self, text: str) -> None:
        """Begin another piece of text; what of the one before had no frame goes with it."""
        self._text += text
        self._has_words = self._is_told = False
        self._offset = self.count * FRAME_SECONDS

    def add(self, sound: Sound) -> list[Frame]:
        """Take more sound of the piece."""
        if sound.words:
            self._mark(sound.words)
        elif sound.pcm and not self._is_told:
            self._marks.append((self.count, self._text, None))
            self._text = ""
        self._is_told = self._is_told or bool(sound.words or sound.pcm)
        self._pcm += sound.pcm
        # The last frame waits for the end of the piece: it takes what of the text no word has brought.
        return self._made(max(len(self._pcm) - 1, 0) // FRAME_SIZE)

    def end(self) -> list[Frame]:
        """End the piece, with silence up to the next whole frame."""
        late = "".join(text for _, text, _ in self._marks) + self._text
        words = tuple(word for _, _, word in self._marks if word is not None)
        self._marks.clear()
        self._text = ""
        if self._pcm:
            self._marks.append((self.count, late, None))
            self._marks.extend((self.count, "", word) for word in words)
            self._pcm += bytes(-len(self._pcm) % FRAME_SIZE)
        else:
            self._text = late  # nothing was heard of it: its text goes with what is heard next
        return self._made(len(self._pcm) // FRAME_SIZE)

    def rest(self) -> list[Frame]:
        """Return the frame of silence that has the text which no sound has come for; blanks are not worth one."""
        text, self._text = self._text, ""
        if not text.strip():
            return []
        self.count += 1
        return [Frame(bytes(FRAME_SIZE), text)]

    def _made(self, count: int) -> list[Frame]:
        """Return that many frames."""
        frames = []
        for place in range(0, count * FRAME_SIZE, FRAME_SIZE):
            texts, words = [], []
            while self._marks and self._marks[0][0] <= self.count:
                _, text, word = self._marks.popleft()
                texts.append(text)
                if word is not None:
                    words.append(word)
            frames.append(Frame(bytes(self._pcm[place : place + FRAME_SIZE]), "".join(texts), tuple(words)))
            self.count += 1
        del self._pcm[: count * FRAME_SIZE]
        return frames

    def _mark(self, words: tuple[Word, ...]) -> None:
        """Note at which frame each word begins, and what of the text goes with it: up to the next word."""
        text, ends, place = self._text, [], 0
        for word in words:
            found = text.find(word.text, place)
            ends.append((place, place) if found < 0 else (found, found + len(word.text)))
            place = ends[-1][1]
        begins = [0, *(start for start, _ in ends[1:]), _next_word(text, place)]
        for number, word in enumerate(words):
            moved = Word(word.text, word.start + self._offset, word.end + self._offset)
            low, high = begins[number], max(begins[number], begins[number + 1])
            self._marks.append((int(moved.start / FRAME_SECONDS + 1e-6), text[low:high], moved))
            begins[number + 1] = high
        self._text = text[begins[-1] :]


def _next_word(text: str, place: int) -> int:
    """Return where the next word begins; the end of the text when there is none."""
    while place < len(text) and not text[place].isalnum():
        place += 1
    return place
