"""What a model has to be able to do, and one answer of it, from the order to the last word."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from .lines import Ended, Order, Told, Words
from .prompt import Tongue, fit

MOST = 512  # tokens of an answer when nobody says: some minutes of speech


class Unfit(ValueError):
    """An order cannot be carried out. `field` is the part of the request at fault."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class Mind(Tongue, Protocol):
    """A model that is loaded. It keeps what it has read last."""

    window: int  # tokens of a prompt and its answer together
    slice: int  # tokens that are read at a time: what somebody who has left is still waited for

    def recall(self, prompt: Sequence[int], *, afresh: bool) -> int:
        """Keep what `prompt` begins with as the last one did, and return its length; `afresh` = keep nothing."""

    def read(self, tokens: Sequence[int]) -> None:
        """Read on in the prompt."""

    def say(self, prompt: Sequence[int], order: Order) -> Iterator[int]:
        """Yield the tokens of the answer to a prompt, of which all but the last is read. Raises Unfit."""

    def spelled(self, token: int) -> bytes:
        """Return the bytes of a token, which may be a part of a character."""


def speak(mind: Mind, order: Order, has_left: Callable[[], bool]) -> Iterator[Told]:
    """Yield the words of an answer as they come, then how it ended. Raises Unfit."""
    most = min(order.most or MOST, mind.window // 2)
    prompt = fit(order.messages, mind, room=mind.window - most)
    cached = read = mind.recall(prompt, afresh=order.seed is not None)
    saying = mind.say(prompt, order)
    held = Held(order.stop)
    said, reason = 0, "stop"
    while read < len(prompt) - 1:
        if has_left():
            yield Ended(order.number, "left", read, cached, 0)
            return
        upto = min(read + mind.slice, len(prompt) - 1)
        mind.read(prompt[read:upto])
        read = upto
    for token in saying:
        said += 1
        if text := held.add(mind.spelled(token)):
            yield Words(order.number, text)
        if held.has_stopped:
            break
        if has_left():
            reason = "left"
            break
        if said >= most:
            reason = "length"
            break
    if not held.has_stopped and (text := held.rest()):
        yield Words(order.number, text)
    yield Ended(order.number, reason, len(prompt), cached, said)


class Held:
    """Words on their way out. Held back are parts of a character, and what may be the beginning of a `stop`."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [each for each in stop if each]
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self.has_stopped = False

    def add(self, data: bytes) -> str:
        """Return the words that may go out now."""
        self._text += self._decode(data)
        found = [at for each in self._stop if (at := self._text.find(each)) >= 0]
        if found:
            self.has_stopped = True
            return self._take(min(found))
        return self._take(len(self._text) - max(map(self._begun, self._stop), default=0))

    def rest(self) -> str:
        """Return what was held back, as the answer is over."""
        self._text += self._decode(b"", True)
        return self._take(len(self._text))

    def _begun(self, stop: str) -> int:
        """Return how many characters at the end may be the beginning of `stop`."""
        longest = min(len(stop) - 1, len(self._text))
        return next((size for size in range(longest, 0, -1) if stop.startswith(self._text[-size:])), 0)

    def _take(self, size: int) -> str:
        taken, self._text = self._text[:size], self._text[size:]
        return taken
