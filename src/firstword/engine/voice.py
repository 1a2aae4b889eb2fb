"""The voice: text that comes in pieces is heard word by word, at a speaking pace."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable

# A word with the blanks behind it, once it is known to be whole; of scripts that put no space between words, one sign.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORD = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+(?=[\s{_UNSPACED}]))\s*|\s+")
_WIDE = re.compile(f"[{_UNSPACED}]")
WIDE = 3  # signs of an alphabet that take as long to say as one of these


class Voice:
    """Plays what it is told to say; `heard` is what has been heard so far, without fillers.

    rate: signs a second; 0 = as soon as a word is whole. tell: gets each word as it is heard.
    stops: is asked after each word whether to stop there, with all that was heard.
    """

    def __init__(
        self, rate: float, *, tell: Callable[[str], None], stops: Callable[[str], bool] = lambda heard: False
    ) -> None:
        self._rate = rate
        self._tell = tell
        self._stops = stops
        self._text = ""  # not heard yet
        self._sounds: deque[tuple[str, float]] = deque()  # sound that is not played yet, with its words
        self._filler = ""
        self._is_over = False
        self._grew = asyncio.Event()
        self.heard = ""

    def say(self, words: str, seconds: float | None = None) -> None:
        """Say this too; `seconds` is how long its sound takes, where there is sound."""
        if seconds is None:
            self._text += words
        else:
            self._sounds.append((words, seconds))
        self._grew.set()

    def fill(self, words: str) -> None:
        """Say this while nothing else is there to be said."""
        self._filler = words
        self._grew.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._is_over = True
        self._grew.set()

    async def play(self) -> bool:
        """Play until all was heard, and return False; True when it was to stop before."""
        while True:
            if self._filler:
                words, self._filler = self._filler, ""
                await self._take_time(self._seconds(words))
                self._tell(words)
            elif self._sounds:
                words, seconds = self._sounds.popleft()
                await self._take_time(seconds if self._rate else 0.0)
                if self._is_heard(words):
                    return True
            elif word := self._next():
                await self._take_time(self._seconds(word))
                if self._is_heard(word):
                    return True
            elif self._is_over:
                return False
            else:
                self._grew.clear()
                await self._grew.wait()

    def _is_heard(self, words: str) -> bool:
        self.heard += words
        if words:
            self._tell(words)
        return self._stops(self.heard)

    def _next(self) -> str:
        """Take the next whole word; empty while there is none."""
        found = _WORD.match(self._text)
        if found is None and not self._is_over:
            return ""
        end = found.end() if found else len(self._text)
        word, self._text = self._text[:end], self._text[end:]
        return word

    def _seconds(self, words: str) -> float:
        return (len(words) + (WIDE - 1) * len(_WIDE.findall(words))) / self._rate if self._rate else 0.0

    async def _take_time(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)


def stopping_at(words: str) -> Callable[[str], bool]:
    """Return what says whether these words were heard; of an alphabet's, whole words only."""
    inner = re.escape(words)
    found = re.compile(rf"(?<!\w){inner}(?!\w)" if words.isascii() else inner, re.IGNORECASE)
    return lambda heard: found.search(heard) is not None
